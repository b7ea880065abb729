"""The contrastive loss by hand and against sentence-transformers; gradients of its cached form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rag.finetune.bi_encoder import BiEncoder, interpolate, movement
from rag.finetune.contrastive import (
    ContrastiveTraining,
    DevQuestions,
    PassageSide,
    cached_loss,
    contrastive_loss,
)
from rag.finetune.negatives import Negatives, RetrievalExample
from rag.params import RetrieverParams
from rag.records import Question
from rag.retrieval.encoder import Encoder
from rag.weights import resolve_weights

QUESTIONS = ("who sails north ?", "where is the red boat ?", "what rests at noon ?")
PASSAGES = (
    "captain marlow sails north",
    "the red boat is at port",
    "the blue boat rests at noon",
    "the seagull sails south",
    "marlow is at the red port",
    "noon",
)


def params(model: Path, mode: str = "full", **training: Any) -> RetrieverParams:
    settings = {"precision": "float32", "hard_negatives": 1, "batch_questions": 8, **training}
    tree = {"model": str(model), "max_tokens": 64, "mode": mode, "training": settings}
    return RetrieverParams.model_validate(tree)


def bi_encoder(settings: RetrieverParams, tmp_path: Path) -> BiEncoder:
    return BiEncoder(settings, resolve_weights(settings.model, None, tmp_path), 3, device="cpu")


def made(
    settings: RetrieverParams, encoder: BiEncoder, relevant: Mapping[int, set[int]] | None = None
) -> ContrastiveTraining:
    """Question i has passage i, and passage i + 3 as its hard negative."""
    examples = []
    for i, text in enumerate(QUESTIONS):
        question = Question(f"q{i}", text, ("x",), "d", True, "train", "en")
        examples.append(RetrievalExample(question, i, frozenset((relevant or {}).get(i, {i}))))
    texts = dict(enumerate(PASSAGES)) if settings.mode == "full" else None
    return ContrastiveTraining(
        encoder,
        settings.training,
        examples,
        Negatives([(i + 3,) for i in range(3)]),
        passages=PassageSide(encoder.encode(PASSAGES, "passage"), texts),
        dev=DevQuestions(QUESTIONS, [[0], [1], [2]], range(6)),
    )


def mean_loss(training: ContrastiveTraining, batch: Sequence[int]) -> torch.Tensor:
    loss = training.loss(batch)
    assert loss.weight == len(batch)
    return loss.total / loss.weight


def gradients(training: ContrastiveTraining, batch: Sequence[int]) -> dict[str, torch.Tensor]:
    for parameter in training.parameters().values():
        parameter.grad = None
    mean_loss(training, batch).backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in training.parameters().items()
        if parameter.grad is not None
    }


def test_the_loss_is_minus_the_log_of_the_share_of_the_right_passage() -> None:
    queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    passages = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
    first = -math.log(math.exp(2.0) / (math.exp(2.0) + math.exp(1.2) + math.exp(0.0)))
    second = -math.log(math.exp(1.6) / (math.exp(0.0) + math.exp(1.6) + math.exp(2.0)))
    loss = contrastive_loss(queries, passages, [0, 1], 0.5)
    assert loss.item() == pytest.approx((first + second) / 2, abs=1e-6)

    without = -math.log(math.exp(1.6) / (math.exp(0.0) + math.exp(1.6)))
    loss = contrastive_loss(queries, passages, [0, 1], 0.5, ignored=[(1, 2)])
    assert loss.item() == pytest.approx((first + without) / 2, abs=1e-6)


@pytest.mark.parametrize("mini_batch", [None, 2])
def test_loss_and_gradient_are_those_of_sentence_transformers(
    tiny_encoder: Path, tmp_path: Path, mini_batch: int | None
) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses

    settings = params(tiny_encoder, mini_batch=mini_batch, temperature=0.05)
    training = made(settings, bi_encoder(settings, tmp_path))
    own = mean_loss(training, [0, 1, 2]).item()
    found = gradients(training, [0, 1, 2])

    reference = SentenceTransformer(str(tiny_encoder), device="cpu")
    loss: Any = losses.MultipleNegativesRankingLoss(reference, scale=20.0)
    if mini_batch:
        loss = losses.CachedMultipleNegativesRankingLoss(
            reference, scale=20.0, mini_batch_size=mini_batch
        )
    columns = [QUESTIONS, PASSAGES[:3], PASSAGES[3:]]
    value = loss([reference.preprocess(list(texts)) for texts in columns], torch.arange(3))
    value.backward()
    assert own == pytest.approx(value.item(), abs=1e-5)
    named = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    assert set(found) == set(named)
    for name, gradient in named.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mini_batch", [1, 2])
def test_cached_gradients_are_those_of_the_whole_batch(
    tiny_encoder: Path, tmp_path: Path, mini_batch: int
) -> None:
    whole = params(tiny_encoder)
    expected = gradients(made(whole, bi_encoder(whole, tmp_path)), [0, 1, 2])
    parts = params(tiny_encoder, mini_batch=mini_batch)
    found = gradients(made(parts, bi_encoder(parts, tmp_path)), [0, 1, 2])
    assert set(found) == set(expected)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5)


def test_cached_parts_are_run_again_with_the_same_dropout() -> None:
    """Were the masks others, the gradient would not be that of the loss that was returned."""
    weight = torch.nn.Parameter(torch.ones(50))
    masks: list[torch.Tensor] = []

    def part() -> torch.Tensor:
        masks.append(torch.bernoulli(torch.full((50,), 0.5)))
        return weight * masks[-1]

    torch.manual_seed(1)
    loss = cached_loss([part, part], lambda parts: (parts[0] * parts[1]).sum() + parts[0].sum())
    after = torch.get_rng_state()
    (2.0 * loss).backward()
    assert torch.equal(torch.get_rng_state(), after)
    assert not torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])
    assert torch.equal(masks[1], masks[3])
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, 2.0 * (2.0 * masks[0] * masks[1] + masks[0]))


def test_another_passage_that_answers_is_neither_right_nor_wrong(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    settings = params(tiny_encoder, "query")
    encoder = bi_encoder(settings, tmp_path)
    queries = torch.tensor(encoder.encode(QUESTIONS, "query"))
    passages = torch.tensor(encoder.encode(PASSAGES, "passage"))
    training = made(settings, encoder, {0: {0, 1, 4}})
    scores = queries @ passages.T / 0.05
    scores[0, [1, 4]] = -torch.inf
    expected = (scores.logsumexp(1) - scores.diagonal()).mean().item()
    assert mean_loss(training, [0, 1, 2]).item() == pytest.approx(expected, abs=1e-4)


def test_every_epoch_shows_other_negatives(tiny_encoder: Path, tmp_path: Path) -> None:
    """A position counts epoch and example: 3 is the first question in the second epoch."""
    negatives = Negatives([(3, 4), (5,), ()])
    drawn = [[negatives.draw(i, epoch, 1) for i in range(3)] for epoch in range(3)]
    assert drawn == [[(3,), (5,), ()], [(4,), (5,), ()], [(3,), (5,), ()]]
    assert negatives.draw(0, 1, 5) == (4, 3)
    settings = params(tiny_encoder, "query")
    training = made(settings, bi_encoder(settings, tmp_path))
    batches = [sorted(batch) for batch in training.epoch_batches(1, seed=4)]
    assert sorted(chain.from_iterable(batches)) == [3, 4, 5]
    assert training.names([3, 4, 2]) == ["q0", "q1", "q2"]


@pytest.mark.parametrize(("mode", "encoded"), [("query", ()), ("full", PASSAGES)])
def test_frozen_passages_do_not_go_through_the_model(
    tiny_encoder: Path,
    tmp_path: Path,
    mode: str,
    encoded: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = params(tiny_encoder, mode)
    training = made(settings, bi_encoder(settings, tmp_path))
    seen: list[tuple[str, str]] = []
    plain = BiEncoder.embed

    def embed(self: BiEncoder, texts: Sequence[str], side: Any) -> torch.Tensor:
        seen.extend((side, text) for text in texts)
        return plain(self, texts, side)

    monkeypatch.setattr(BiEncoder, "embed", embed)
    training.loss([0, 1, 2])
    assert sorted(text for side, text in seen if side == "query") == sorted(QUESTIONS)
    assert sorted(text for side, text in seen if side == "passage") == sorted(encoded)


def test_a_saved_encoder_serves_the_same_vectors_and_names_no_machine(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    settings = params(tiny_encoder)
    encoder = bi_encoder(settings, tmp_path)
    tuned = {name: value + 0.01 for name, value in encoder.base.items()}
    encoder.load(tuned)
    encoder.encode(QUESTIONS, "query")  # leaves padding and truncation in the tokenizer
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        encoder.save(folder)
    files = [path.relative_to(folders[0]) for path in folders[0].rglob("*") if path.is_file()]
    assert all((folders[0] / p).read_bytes() == (folders[1] / p).read_bytes() for p in files)
    content = b"".join((folders[0] / path).read_bytes() for path in files)
    assert not any(part in content for part in (str(tmp_path).encode(), b"__version__", b"/tmp"))

    served = Encoder(settings.model_copy(update={"model": str(folders[0])}), tmp_path)
    expected = encoder.encode(QUESTIONS, "query")
    np.testing.assert_allclose(served.encode(QUESTIONS, "query"), expected, atol=1e-6)


def test_interpolation_and_movement_by_hand() -> None:
    base = {"layer.0.w": torch.tensor([3.0, 4.0]), "embeddings.w": torch.tensor([2.0])}
    tuned = {"layer.0.w": torch.tensor([3.0, 5.0]), "embeddings.w": torch.tensor([2.0])}
    middle = interpolate(base, tuned, 0.5)
    assert middle["layer.0.w"].tolist() == [3.0, 4.5]
    assert movement(base, tuned) == {
        "all": pytest.approx(1 / math.sqrt(29), abs=1e-6),
        "embeddings": 0.0,
        "layer 00": pytest.approx(0.2),
    }


def test_lora_trains_the_adapter_alone_and_is_merged_into_plain_weights(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    settings = params(tiny_encoder, lora={"rank": 2, "alpha": 4})
    encoder = bi_encoder(settings, tmp_path)
    assert all("lora_" in name for name in encoder.parameters())
    before = encoder.encode(QUESTIONS, "query")
    np.testing.assert_allclose(
        before, bi_encoder(params(tiny_encoder), tmp_path).encode(QUESTIONS, "query")
    )
    with torch.no_grad():
        for name, parameter in encoder.parameters().items():
            if "lora_B" in name:
                parameter.add_(0.1)
    adapted = encoder.encode(QUESTIONS, "query")
    assert not np.allclose(adapted, before, atol=1e-3)
    encoder.merge_adapter()
    np.testing.assert_allclose(encoder.encode(QUESTIONS, "query"), adapted, atol=1e-5)
    assert set(encoder.state()) == set(encoder.base)
