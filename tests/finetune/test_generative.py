"""The losses of readers that write text: each fusion against the formula written out slowly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rag.errors import ParamsError
from rag.finetune.adapters import add_lora
from rag.finetune.examples import ReadingExample
from rag.finetune.frozen_layers import FrozenLayers
from rag.finetune.generative import GenerativeReaderTraining
from rag.finetune.loop import train
from rag.params import LoraParams
from rag.reading.causal import CausalReader
from rag.reading.generative import Source
from tests.finetune.generative_toy import ASKED, PASSAGES, plain_log_p
from tests.toy import toy_params

MakeExample = Callable[..., ReadingExample]


@pytest.fixture
def training(make: Callable[..., GenerativeReaderTraining]) -> GenerativeReaderTraining:
    return make()


def test_only_the_upper_layers_are_trained(training: GenerativeReaderTraining) -> None:
    names = training.parameters()
    modules = {name.split(".layers.")[1].rsplit(".lora_", 1)[0] for name in names}
    projections = {f"1.self_attn.{name}_proj" for name in "qkvo"}
    assert modules == projections | {f"1.mlp.{name}_proj" for name in ("gate", "up", "down")}
    assert len(names) == 2 * len(modules)
    training.loss([0, 1]).total.backward()
    model = training._reader.model  # of all tensors, not only of those that say they are trained
    touched = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(touched) == set(names)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in touched.values())


def adapted(toy_model: Path, tmp_path: Path, lora: LoraParams) -> Any:
    reader = CausalReader(toy_params(f"reader.model={toy_model}").reader, tmp_path, None)
    return add_lora(reader.model, lora, task="CAUSAL_LM", name="toy", seed=1)


def test_all_layers_where_none_is_frozen(toy_model: Path, tmp_path: Path) -> None:
    model = adapted(toy_model, tmp_path, LoraParams(frozen_layers=0))
    trained = {name.split(".")[4] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"0", "1"}


def test_too_many_frozen_layers_is_an_error_of_the_params(toy_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"frozen_layers: must be < 2.*got 2.*lora=null"):
        adapted(toy_model, tmp_path, LoraParams(frozen_layers=2))


def test_all_weights_are_trained_without_an_adapter(
    make: Callable[..., GenerativeReaderTraining], tmp_path: Path
) -> None:
    training = make("reader.lora=null")
    model = training._reader.model
    assert set(training.parameters()) == {name for name, _ in model.named_parameters()}
    training.save(tmp_path)
    assert not (tmp_path / "adapter").exists()
    loaded = CausalReader(training._params, tmp_path, tmp_path)
    for name, weight in loaded.model.named_parameters():
        torch.testing.assert_close(weight, training.parameters()[name])


def test_questions_about_one_passage_come_together(training: GenerativeReaderTraining) -> None:
    [batch] = training.epoch_batches(0, seed=1)
    assert sorted(training.names(batch)) == sorted(f"id of {question}" for question, _ in ASKED)
    costs = [training._reader.cost(Source(ASKED[i][0], PASSAGES[:1])) for i in (0, 1)]
    assert costs[0].shared == costs[1].shared
    small = training._batches_of(costs[0].shared_tokens + 60)
    assert [sorted(batch) for batch in small] == [[0, 1], [2]]


def test_the_loss_is_the_sum_over_all_answer_tokens(training: GenerativeReaderTraining) -> None:
    reader = training._reader
    shown = (PASSAGES[0], PASSAGES[0], PASSAGES[1])
    expected = [
        plain_log_p(reader, question, passage, answer)
        for (question, answer), passage in zip(ASKED, shown, strict=True)
    ]
    loss = training.loss([0, 1, 2])
    assert loss.total.item() == pytest.approx(-sum(float(one.sum()) for one in expected), abs=1e-3)
    assert loss.weight == sum(map(len, expected))
    assert 0 < loss.tokens <= loss.padded_tokens


# frozen layers


def test_what_frozen_layers_say_is_computed_once(training: GenerativeReaderTraining) -> None:
    frozen = training._reader.states
    assert isinstance(frozen, FrozenLayers)
    first = training.loss([0, 1, 2]).total
    remembered = dict(frozen._known)
    assert remembered
    assert training.loss([0, 1, 2]).total.item() == first.item()
    assert all(frozen._known[rows] is states for rows, states in remembered.items())
    for states in frozen._known.values():
        states.zero_()
    assert training.loss([0, 1, 2]).total.item() != first.item(), "the memory is what is used"


def test_remembering_changes_no_loss_and_keeps_to_its_limit(
    make: Callable[..., GenerativeReaderTraining],
) -> None:
    kept, not_kept = make(), make("reader.training.cache_mb=0")
    losses = [one.loss([0, 1, 2]) for one in (kept, kept, not_kept)]
    assert losses[0].total.item() == losses[1].total.item() == losses[2].total.item()
    assert not not_kept._reader.states._known
    gradients = []
    for one, loss in zip((kept, not_kept), losses[1:], strict=True):
        loss.total.backward()
        gradients.append([p.grad for p in one.parameters().values()])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_gradient_checkpointing_changes_no_gradient(
    make: Callable[..., GenerativeReaderTraining],
) -> None:
    gradients = []
    for switch in ("false", "true"):
        training = make(f"reader.training.gradient_checkpointing={switch}")
        training.train_mode(True)
        training.loss([0, 1, 2]).total.backward()
        gradients.append([p.grad for p in training.parameters().values()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize("fusion", ["concat", "rag_sequence", "rag_token"])
def test_training_teaches_the_answers_and_a_saved_reader_gives_them(
    make: Callable[..., GenerativeReaderTraining], tmp_path: Path, fusion: str
) -> None:
    overrides = [] if fusion == "concat" else ["reader.passages=2"]
    training = make(f"reader.fusion={fusion}", *overrides)
    settings = training._params.training.model_copy(update={"epochs": 40, "evaluations": 1})
    losses = []
    summary = train(
        training, settings, seed=1, log=lambda row, _: losses.append(row.get("loss", -1.0))
    )
    assert summary.best_metrics == {"dev_exact_match": 100.0}
    assert losses[-2] < 0.1 * losses[0]
    training.save(tmp_path)
    expected = training.answer(training._dev)
    loaded = CausalReader(training._params, tmp_path, tmp_path, prior_temperature=0.5)
    answers = loaded.answer(
        [example.question.text for example in training._dev],
        [example.passages for example in training._dev],
    )
    assert [answer.text for answer in answers] == ["Captain Marlow", "", "9 days"]
    assert answers == expected
