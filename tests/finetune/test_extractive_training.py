"""The extractive reader trained: whole or with an adapter, saved, loaded, killed and resumed."""

from __future__ import annotations

import json
import math
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from rag.artifacts import Artifacts
from rag.errors import ParamsError
from rag.finetune.extractive import ExtractiveReaderTraining
from rag.finetune.loop import train
from rag.params import Params
from rag.reading.extractive import ExtractiveReader
from tests.tiny_bert import write_tiny_bert
from tests.toy import run_python

MakeTraining = Callable[..., ExtractiveReaderTraining]
BOATS = "the red boat sails. the blue boat rests"
FULL = ("reader.lora=null",)
RAG = ("reader.lora=null", "reader.fusion=rag_sequence")
ADAPTER = ("reader.lora={rank: 8, alpha: 16, dropout: 0.0, frozen_layers: 1}",)


# training


@pytest.mark.parametrize("overrides", [FULL, RAG, ADAPTER], ids=["full", "rag", "adapter"])
def test_a_few_steps_teach_the_answers_and_a_saved_reader_gives_them(
    extractive_training: MakeTraining,
    extractive_params: Callable[..., Params],
    tmp_path: Path,
    overrides: Sequence[str],
) -> None:
    rate = "0.02" if overrides == ADAPTER else "0.003"
    settings = extractive_params(*overrides, f"reader.training.learning_rate={rate}")
    training = extractive_training(*overrides)
    losses = []
    summary = train(
        training,
        settings.reader.training,
        seed=1,
        log=lambda row, _: losses.append(row.get("loss", -1.0)),
    )
    # The one passage that holds the second answer has a prior of 1 / (1 + e): no loss is lower, and
    # the other passage, which nothing teaches to be silent, wins with what it points at.
    floor, right = (math.log(1 + math.e) / 3, 2 / 3) if overrides == RAG else (0.0, 1.0)
    assert floor < losses[-2] < floor + 0.1 * losses[0]
    assert summary.best_metrics == {"dev_exact_match": pytest.approx(100 * right)}
    training.save(tmp_path / "reader")
    loaded = ExtractiveReader(settings.reader, tmp_path, tmp_path / "reader", prior_temperature=0.5)
    answers = loaded.answer(
        [example.question.text for example in training._dev],
        [example.passages for example in training._dev],
    )
    assert [answer.text for answer in answers][::2] == ["boat", ""]
    assert answers == training.answer(training._dev)


def trained_names(training: ExtractiveReaderTraining) -> set[str]:
    return {name.split("encoder.")[-1] for name in training.parameters()}


def test_an_adapter_leaves_lower_layers_alone_and_trains_the_head_whole(
    extractive_training: MakeTraining,
) -> None:
    training = extractive_training(*ADAPTER)
    linear = ("attention.self.query", "attention.self.key", "attention.self.value")
    linear += ("attention.output.dense", "intermediate.dense", "output.dense")
    assert trained_names(training) == {
        f"layer.1.{module}.lora_{part}.default.weight" for module in linear for part in "AB"
    } | {
        f"base_model.model.qa_outputs.modules_to_save.default.{part}" for part in ("weight", "bias")
    }


def test_token_types_reach_a_model_with_an_adapter(extractive_training: MakeTraining) -> None:
    """A fresh adapter changes nothing: logits are those of the plain model."""
    plain, adapted = extractive_training(*FULL)._reader, extractive_training(*ADAPTER)._reader
    readings = plain.read(["who sails?"], [BOATS])
    with torch.inference_mode():
        torch.testing.assert_close(adapted.logits(readings), plain.logits(readings))


def test_too_many_frozen_layers_name_the_way_out(extractive_training: MakeTraining) -> None:
    with pytest.raises(ParamsError) as error:
        extractive_training("reader.lora.frozen_layers=2")
    message = str(error.value)
    assert "reader.lora.frozen_layers: must be < 2" in message
    assert "reader.lora=null" in message


def test_a_merged_adapter_is_whole_weights_that_answer_alike(
    extractive_training: MakeTraining, extractive_params: Callable[..., Params], tmp_path: Path
) -> None:
    training = extractive_training(*ADAPTER, "reader.export=merged")
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in training.parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    reader = training._reader
    readings = reader.read(["who sails?"], [BOATS])
    with torch.inference_mode():
        before = reader.logits(readings)
    training.save(tmp_path / "reader")
    assert [path.name for path in (tmp_path / "reader").iterdir()] == ["weights"]
    loaded = ExtractiveReader(extractive_params(*ADAPTER).reader, tmp_path, tmp_path / "reader")
    for model in (loaded, reader):
        with torch.inference_mode():
            torch.testing.assert_close(model.logits(readings), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("overrides", "files"),
    [
        (FULL, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]),
        (ADAPTER, ["adapter_config.json", "adapter_model.safetensors"]),
    ],
    ids=["full", "adapter"],
)
def test_a_saved_reader_tells_nothing_of_this_machine(
    extractive_training: MakeTraining, tmp_path: Path, overrides: Sequence[str], files: list[str]
) -> None:
    training = extractive_training(*overrides)
    training._params = training._params.model_copy(update={"model": "boats"})
    folder = tmp_path / "reader"
    training.save(folder)
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.parent for path in found} == {
        folder / ("weights" if overrides == FULL else "adapter")
    }
    assert sorted(path.name for path in found) == files
    for secret in (str(Path.home()), str(tmp_path.parent.parent)):
        assert not any(secret.encode() in path.read_bytes() for path in found)


# killed

#: Runs the stage, and kills the process (if asked to) as a step begins; prints the steps begun.
STAGE = """
import os, signal
from rag.__main__ import main
from rag.finetune.extractive import ExtractiveReaderTraining
steps, loss = [], ExtractiveReaderTraining.loss
def counted(self, batch):
    steps.append(batch)
    if len(steps) == {fatal}:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(self, batch)
ExtractiveReaderTraining.loss = counted
assert main(["train_reader"]) == 0
print(len(steps))
"""


@pytest.mark.integration
@pytest.mark.parametrize(
    "lora",
    [
        pytest.param("null", marks=pytest.mark.slow),
        "{rank: 4, alpha: 8, dropout: 0.2, frozen_layers: 0}",
    ],
)
def test_a_killed_stage_goes_on_and_ends_bit_for_bit_the_same(
    finished_toy: Path, tmp_path: Path, lora: str
) -> None:
    whole, killed = (extractive_project(finished_toy, tmp_path / name, lora) for name in "ab")
    finished = run_python(whole.root, STAGE.format(fatal=0))
    finished.check_returncode()
    steps = int(finished.stdout.splitlines()[-1])
    evaluated = round(steps / 3)

    stopped = run_python(killed.root, STAGE.format(fatal=evaluated + 6))
    assert stopped.returncode == -signal.SIGKILL
    assert not (killed.reader / "reader.json").exists()
    resumed = run_python(killed.root, STAGE.format(fatal=0), hash_seed=5)
    resumed.check_returncode()
    assert int(resumed.stdout.splitlines()[-1]) == steps - evaluated
    found = contents(killed.reader)
    assert found == contents(whole.reader)
    assert ("weights/model.safetensors" in found) == (lora == "null")
    assert json.loads(found["reader.json"])["kind"] == "extractive"


def extractive_project(finished: Path, folder: Path, lora: str) -> Artifacts:
    """A copy of the toy project with an extractive reader that has yet to be trained.

    Dropout makes the result depend on the random numbers that a checkpoint has to keep.
    """
    import yaml

    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns(".git"))
    shutil.rmtree(folder / "data" / "models" / "reader")
    model = write_tiny_bert(folder / "tiny-bert")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.1}))
    path = folder / "params.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    tree["reader"] |= {
        "kind": "extractive",
        "model": f"./{model.name}",
        "fusion": "rag_sequence",
        "passages": 2,
        "stride_tokens": 16,
        "lora": yaml.safe_load(lora),
    }
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    return Artifacts(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the curve, which has times in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if path.name != "history.jsonl"
    }
