"""The query encoder trained through the reader's likelihood."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rag.artifacts import Artifacts
from rag.errors import TrainingError
from rag.finetune import reader as stage
from rag.finetune.end_to_end import EndToEndTraining
from rag.finetune.loop import train
from rag.params import Params
from rag.retrieval.embeddings import read_embeddings, to_chunk_id
from rag.retrieval.fusion import Fusion
from tests.end_to_end_project import DISTILLATION, END_TO_END, SCORES, TEMPERATURE
from tests.tiny_seq2seq import write_tiny_bart

pytestmark = pytest.mark.integration

Retrieved = Callable[..., tuple[Artifacts, Params]]


@pytest.fixture
def training(retrieved: Retrieved) -> Callable[..., tuple[EndToEndTraining, stage.ReadingData]]:
    """Training that has not begun, and its data."""

    def make(*overrides: str, dense_weight: float = 0.9) -> tuple[EndToEndTraining, Any]:
        artifacts, params = retrieved(*overrides, dense_weight=dense_weight)
        data = stage.reading_data(params, artifacts)
        made = stage.reader_training(params, artifacts, data, SCORES)
        assert isinstance(made, EndToEndTraining)
        return made, data

    return make


@pytest.fixture(params=["causal", "seq2seq", "extractive"])
def reader_of_each_kind(
    request: pytest.FixtureRequest, tiny_bert: Path, tmp_path: Path
) -> Sequence[str]:
    """Overrides of params for a reader of this kind; the two last ones cannot read."""
    if request.param == "causal":
        return ()
    model = tiny_bert if request.param == "extractive" else write_tiny_bart(tmp_path / "bart")
    return f"reader.kind={request.param}", f"reader.model={model}", "reader.lora=null"


def test_the_gradient_of_a_questions_vector_is_the_hand_formula(
    retrieved: Retrieved, reader_of_each_kind: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """d -log p(y|x) / d E_q(x) = - sum_k (posterior_k - prior_k) w E_p(z_k) / temperature."""
    weight = 0.9
    artifacts, params = retrieved(END_TO_END, *reader_of_each_kind)
    data = stage.reading_data(params, artifacts)
    training: Any = stage.reader_training(params, artifacts, data, SCORES)
    vectors: list[torch.Tensor] = []
    embed = training._encoder.embed

    def watched(texts: Sequence[str], side: Any) -> torch.Tensor:
        vectors.append(embed(texts, side))
        vectors[-1].retain_grad()
        return vectors[-1]

    monkeypatch.setattr(training._encoder, "embed", watched)
    batch = [i for own in training.epoch_batches(0, 1) for i in own]
    names = list(training.names(batch))
    training.loss(batch).total.backward()
    [queries] = vectors
    assert queries.grad is not None

    embeddings = read_embeddings(artifacts.embeddings)
    by_id = {to_chunk_id(i): v for i, v in zip(embeddings.ids, embeddings.vectors, strict=True)}
    rule = Fusion.read(artifacts.fusion).rule("en")
    assert rule.dense_weight == weight
    examples = {example.question.question_id: example for example in data.train}
    reader = training._reader._reader
    for row, name in enumerate(names):
        example = examples[name]
        if not example.target:
            assert not queries.grad[row].any(), "a refusal does not teach what to find"
            continue
        passages = np.stack([by_id[passage.chunk_id] for passage in example.passages])
        bm25 = np.array([passage.bm25_score for passage in example.passages]) / rule.bm25_scale
        query = queries[row].detach().numpy()
        scores = weight * passages @ query + (1 - weight) * bm25
        read = np.argsort(-scores)[:2]
        gold = [p.document_id for p in example.passages].index(example.question.document_id)
        if gold not in read:
            read[1] = gold
        prior = softmax(scores[read] / TEMPERATURE)
        shown = [example.passages[place] for place in read]
        likelihood = reader.log_likelihood([example.question.text], [shown], [example.target])[0]
        posterior = softmax(np.log(prior) + likelihood)
        expected = -((posterior - prior) @ passages[read]) * weight / TEMPERATURE
        np.testing.assert_allclose(queries.grad[row].numpy(), expected, rtol=1e-3, atol=1e-4)
    assert queries.grad.abs().max() > 0.1


def softmax(values: Any) -> Any:
    shares = np.exp(values - values.max())
    return shares / shares.sum()


def test_scores_are_those_of_retrieval(training: Callable[..., Any]) -> None:
    """Also of passages that BM25 did not find, or dense search alone."""
    made, data = training(END_TO_END)
    for before, now in zip(data.dev, made.rescored(data.dev), strict=True):
        assert [p.chunk_id for p in now.passages] == [p.chunk_id for p in before.passages]
        np.testing.assert_allclose(
            [p.score for p in now.passages], [p.score for p in before.passages], atol=1e-5
        )


def test_the_encoder_has_its_own_learning_rate_and_names(training: Callable[..., Any]) -> None:
    made, _ = training(END_TO_END)
    own = [name for name in made.parameters() if name.startswith("query_encoder.")]
    assert len(own) == len(list(made._encoder.model.parameters()))
    assert made.rates() == pytest.approx(dict.fromkeys(own, 0.005 / 0.00001))


def test_without_a_language_that_uses_dense_search_it_is_refused(
    training: Callable[..., Any],
) -> None:
    with pytest.raises(TrainingError, match=r"dense_weight above 0.*retrieve\.dense_weights with"):
        training(END_TO_END, dense_weight=0.0)


@pytest.mark.parametrize("fusion", ["rag_sequence", "rag_token"])
@pytest.mark.parametrize("objective", [END_TO_END, DISTILLATION], ids=["marginal", "distillation"])
def test_the_encoder_learns_to_find_what_the_reader_answers_from(
    training: Callable[..., Any], objective: str, fusion: str
) -> None:
    made, data = training(objective, f"reader.fusion={fusion}")
    before = gold_shares(made, data)
    settings = made._params.training
    rows: list[Mapping[str, float]] = []
    train(made, settings, seed=3, log=lambda row, _: rows.append(row))
    after = gold_shares(made, data)
    assert before["prior"] < 0.5, before
    assert before["posterior"] < 0.85, before
    assert after["prior"] > 0.75, after
    assert after["posterior"] > 0.99, after
    # Over-retrieval: what the first encoder ranks below the passages read is read in the end.
    assert min(before["ranks"]) == 1
    assert max(before["ranks"]) > made._params.passages
    assert max(after["ranks"]) <= made._params.passages
    facts = made.facts()
    assert facts["movement"]["all"] > 0.01
    assert facts["dev"]["after"]["recall@1"] > facts["dev"]["before"]["recall@1"]
    [*_, last] = [row for row in rows if "dev_f1" in row]
    assert next(iter(last)) == "dev_f1"
    assert last["dev_gold_posterior"] > last["dev_gold_prior"] > 70.0


def gold_shares(made: Any, data: Any) -> dict[str, Any]:
    """Of the answerable train questions, by the encoder as it stands: the means of p(z|x) and
    p(z|x,y) of the gold passage among those read, and its ranks among all candidates."""
    known = [example for example in data.train if example.target]
    priors, posteriors, ranks = [], [], []
    for example in made.rescored(known):
        gold = [p.document_id == example.question.document_id for p in example.passages]
        ranks.append(gold.index(True) + 1)
        read = example.passages[: made._params.passages]
        prior = softmax(np.array([p.score for p in read]) / TEMPERATURE)
        likelihood = made._reader._reader.log_likelihood(
            [example.question.text], [read], [example.target]
        )[0]
        posterior = softmax(np.log(prior) + likelihood)
        priors.append(prior[gold[: len(read)]].sum())
        posteriors.append(posterior[gold[: len(read)]].sum())
    return {"prior": np.mean(priors), "posterior": np.mean(posteriors), "ranks": ranks}


def test_training_may_read_fewer_passages_than_answering(retrieved: Retrieved) -> None:
    artifacts, params = retrieved(
        "reader.end_to_end=null", "reader.passages=3", "reader.training.passages=2"
    )
    data = stage.reading_data(params, artifacts)
    assert {len(example.passages) for example in data.train} == {2}
    assert {len(example.passages) for example in data.dev} == {3}
