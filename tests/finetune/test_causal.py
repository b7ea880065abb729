"""LoRA on the upper layers, and a loss on the answers alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rag.errors import ParamsError
from rag.evaluation.answer_scores import exact_match
from rag.finetune.causal import CausalReaderTraining, add_lora
from rag.finetune.examples import ReadingExample
from rag.finetune.loop import train
from rag.params import Params
from rag.reading.causal import CausalReader
from tests.toy import toy_params

MakeExample = Callable[..., ReadingExample]
PASSAGES = ("The Seafox sails under Captain Marlow.", "The Tidestar is docked for 9 days.")


@pytest.fixture(scope="module")
def params(toy_model: Path) -> Params:
    return toy_params(f"reader.model={toy_model}", "reader.lora.frozen_layers=1")


@pytest.fixture
def reader(params: Params, tmp_path: Path) -> CausalReader:
    return CausalReader(params.reader, tmp_path, None)


@pytest.fixture
def training(reader: CausalReader, params: Params, example: MakeExample) -> CausalReaderTraining:
    examples = [
        example("Who commands the Seafox?", PASSAGES[:1], "Captain Marlow"),
        example("Is the Seafox red?", PASSAGES[:1]),
        example("How long is the Tidestar docked?", PASSAGES[1:], "9 days"),
    ]
    return CausalReaderTraining(reader, params, examples, examples, {"exact_match": exact_match})


def test_only_the_upper_layers_are_trained(training: CausalReaderTraining) -> None:
    names = training.parameters()
    modules = {name.split(".layers.")[1].rsplit(".lora_", 1)[0] for name in names}
    projections = {f"1.self_attn.{name}_proj" for name in "qkvo"}
    assert modules == projections | {f"1.mlp.{name}_proj" for name in ("gate", "up", "down")}
    assert len(names) == 2 * len(modules)
    training.loss([0, 1]).backward()
    model = training._model  # of all tensors, not only of those that say they are trained
    touched = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(touched) == set(names)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in touched.values())


def test_all_layers_where_none_is_frozen(params: Params, tmp_path: Path) -> None:
    lora = params.reader.lora.model_copy(update={"frozen_layers": 0})
    model = add_lora(CausalReader(params.reader, tmp_path, None), lora, seed=1)
    trained = {name.split(".")[4] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"0", "1"}


def test_too_many_frozen_layers_is_an_error_of_the_params(
    reader: CausalReader, params: Params
) -> None:
    lora = params.reader.lora.model_copy(update={"frozen_layers": 2})
    with pytest.raises(ParamsError, match=r"reader\.lora\.frozen_layers: must be < 2.*got 2"):
        add_lora(reader, lora, seed=1)


def test_questions_about_one_passage_are_one_row(training: CausalReaderTraining) -> None:
    rows = [training.names([i]) for i in range(len(training.lengths))]
    assert sorted(map(len, rows)) == [1, 2]
    assert ["id of Who commands the Seafox?", "id of Is the Seafox red?"] in rows


def test_the_loss_is_the_mean_over_all_answer_tokens(
    training: CausalReaderTraining, reader: CausalReader
) -> None:
    total, count = 0.0, 0
    for question, passage, answer in (
        ("Who commands the Seafox?", PASSAGES[0], "Captain Marlow"),
        ("Is the Seafox red?", PASSAGES[0], ""),
        ("How long is the Tidestar docked?", PASSAGES[1], "9 days"),
    ):
        prompt, wanted = reader.prompt(question, [passage]), reader.answer_ids(answer)
        ids = torch.tensor([[*prompt.shared, *prompt.own, *wanted]])
        labels = torch.cat(
            [torch.full((ids.shape[1] - len(wanted),), -100), ids[0, -len(wanted) :]]
        )
        with torch.inference_mode():
            total += float(reader.model(ids, labels=labels[None]).loss) * len(wanted)
        count += len(wanted)
    assert training.loss([0, 1]).item() == pytest.approx(total / count, abs=1e-4)


def test_training_teaches_the_answers_and_a_saved_reader_gives_them(
    training: CausalReaderTraining, params: Params, tmp_path: Path
) -> None:
    settings = params.reader.training.model_copy(update={"epochs": 20, "evaluations": 1})
    losses = []
    summary = train(
        training, settings, seed=1, log=lambda row, _: losses.append(row.get("loss", -1.0))
    )
    assert summary.best_metrics == {"dev_exact_match": 100.0}
    assert losses[-2] < 0.1 * losses[0]
    training.save(tmp_path)
    expected = training.answer(training._dev)
    loaded = CausalReader(params.reader, tmp_path, tmp_path)
    answers = loaded.answer(
        [example.question.text for example in training._dev],
        [example.passages for example in training._dev],
    )
    assert [answer.text for answer in answers] == ["Captain Marlow", "", "9 days"]
    assert answers == expected
