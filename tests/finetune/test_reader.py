"""The train_reader stage on the toy project: killed, it goes on; finished, it starts anew."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from scipy.special import log_softmax, logsumexp  # type: ignore[import-untyped]

from rag.artifacts import Artifacts
from rag.evaluation.answer_scores import exact_match, token_f1
from rag.finetune import reader, stage_key
from rag.finetune.examples import ReadingExample, dev_metrics, judged_passages
from rag.finetune.generative import GenerativeReaderTraining
from rag.params import Params, load_params
from rag.reading.causal import CausalReader
from rag.reading.reader import read_manifest
from tests.toy import run_python, toy_params

SCORES = {"f1": token_f1, "exact_match": exact_match}
#: Runs the stage, and kills the process (if asked to) as a step begins; prints the steps begun.
STAGE = """
import os, signal
from rag.__main__ import main
from rag.finetune.generative import GenerativeReaderTraining
steps, loss = [], GenerativeReaderTraining.loss
def counted(self, batch):
    steps.append(batch)
    if len(steps) == {fatal}:
        os.kill(os.getpid(), signal.SIGKILL)
    return loss(self, batch)
GenerativeReaderTraining.loss = counted
assert main(["train_reader"]) == 0
print(len(steps))
"""


@pytest.fixture
def project(finished_toy: Path, tmp_path: Path) -> Callable[[str], Artifacts]:
    """A copy of the toy project in which the reader has yet to be trained.

    Its dropout makes the result depend on the random numbers that a checkpoint has to keep.
    """

    def copy(name: str) -> Artifacts:
        folder = tmp_path / name
        shutil.copytree(finished_toy, folder, ignore=shutil.ignore_patterns(".git"))
        shutil.rmtree(folder / "data" / "models" / "reader")
        text = (folder / "params.yaml").read_text(encoding="utf-8")
        changed = text.replace("dropout: 0.0", "dropout: 0.2")
        assert changed != text
        (folder / "params.yaml").write_text(changed, encoding="utf-8")
        return Artifacts(folder)

    return copy


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.integration
def test_a_killed_stage_goes_on_and_ends_bit_for_bit_the_same(
    project: Callable[[str], Artifacts],
) -> None:
    whole, killed = project("whole"), project("killed")
    finished = run_python(whole.root, STAGE.format(fatal=0))
    finished.check_returncode()
    steps = int(finished.stdout.splitlines()[-1])
    evaluated = round(steps / 3)

    stopped = run_python(killed.root, STAGE.format(fatal=evaluated + 6))
    assert stopped.returncode == -signal.SIGKILL
    assert not (killed.reader / "reader.json").exists()
    assert history_steps(killed)[-1] > evaluated
    [checkpoint] = killed.checkpoints.iterdir()
    assert sorted(path.name for path in checkpoint.iterdir()) == [
        f"{evaluated}.checkpoint.safetensors",
        "checkpoint.json",
    ]

    resumed = run_python(killed.root, STAGE.format(fatal=0), hash_seed=5)
    resumed.check_returncode()
    assert int(resumed.stdout.splitlines()[-1]) == steps - evaluated
    assert contents(killed.reader) == contents(whole.reader)
    assert "history.jsonl" in contents(killed.reader)


def history_steps(artifacts: Artifacts) -> list[int]:
    lines = artifacts.history.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["step"] for line in lines]


class Interrupted(Exception):
    """Stands for the end of the process."""


def tune(
    artifacts: Artifacts, params: Params, monkeypatch: pytest.MonkeyPatch, fatal: int = 0
) -> int:
    """Runs the stage here, stopped at step `fatal` of this run; returns the steps begun."""
    begun = 0
    plain = GenerativeReaderTraining.loss

    def counted(self: GenerativeReaderTraining, batch: Sequence[int]) -> Any:
        nonlocal begun
        begun += 1
        if begun == fatal:
            raise Interrupted
        return plain(self, batch)

    with monkeypatch.context() as patch:
        patch.chdir(artifacts.root)
        patch.setattr(GenerativeReaderTraining, "loss", counted)
        try:
            reader.tune_reader(params, artifacts, scores=SCORES)
        except Interrupted:
            assert fatal
    return begun


@pytest.mark.integration
def test_a_checkpoint_is_used_only_for_what_it_was_made_by(
    project: Callable[[str], Artifacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = project("project")
    params = load_params(artifacts.params, ["reader.training.epochs=3"])
    steps = tune(artifacts, params, monkeypatch)
    assert not any(artifacts.checkpoints.iterdir())
    # A finished stage that is run again trains again, and comes to the same.
    first = contents(artifacts.reader)
    assert tune(artifacts, params, monkeypatch) == steps
    assert contents(artifacts.reader) == first

    tune(artifacts, params, monkeypatch, fatal=steps - 1)
    [kept] = artifacts.checkpoints.iterdir()
    other = load_params(
        artifacts.params, ["reader.training.epochs=3", "reader.training.learning_rate=0.001"]
    )
    assert tune(artifacts, other, monkeypatch) == steps
    assert not kept.exists()


@pytest.mark.integration
def test_the_key_of_a_checkpoint_covers_params_seed_inputs_weights_and_code(
    finished_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    shutil.copytree(finished_toy, project, ignore=shutil.ignore_patterns(".git"))
    monkeypatch.chdir(project)
    artifacts = Artifacts(project)
    monkeypatch.setattr(stage_key, "__file__", str(project / "rag" / "finetune" / "stage_key.py"))

    def key(*overrides: str) -> str:
        return reader._stage_key(load_params(artifacts.params, overrides), artifacts)

    keys = [key(), key("seed=14"), key("reader.training.epochs=9")]
    changed = [
        *(project / "rag" / "finetune" / f"{name}.py" for name in ("generative", "loop", "reader")),
        project / "rag" / "reading" / "causal.py",
        artifacts.contexts,
        artifacts.questions,
        project / "toy-model" / "tokenizer.json",
    ]
    for path in changed:
        path.write_bytes(path.read_bytes() + b"\n")
        keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key("gate.min_effect=3.0", "evaluate.resamples=2000") == keys[-1]


def test_an_example_of_dev_is_what_retrieval_gave(example: Callable[..., ReadingExample]) -> None:
    """A reader that is shown the gold passage on dev would look better than it is."""
    made = example("who?", ["no answer here", "nor here", "nor there"], "marlow")
    shown = reader._dev_example(made.question, {made.question.question_id: made.passages}, 2)
    assert [passage.text for passage in shown.passages] == ["no answer here", "nor here"]


@pytest.mark.parametrize("given", [None, -0.5])
def test_a_threshold_that_is_given_is_not_chosen(
    given: float | None, example: Callable[..., ReadingExample]
) -> None:
    params = toy_params(f"reader.abstain={'null' if given is None else given}")
    assert reader._threshold(params, [], [example("who?", [], "marlow")], token_f1) == given


@pytest.mark.integration
def test_passages_are_weighed_as_is_best_on_dev_with_the_tuned_reader(
    project: Callable[[str], Artifacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No other temperature or weight near those of reader.json names the right passages as well."""
    artifacts = project("weighed")
    monkeypatch.chdir(artifacts.root)
    settings = [
        *("reader.fusion=rag_sequence", "reader.passages=3", "reader.training.passages=1"),
        *("reader.training.question_weight=0.3", "reader.training.epochs=1"),
    ]
    params = load_params(artifacts.params, settings)
    tune(artifacts, params, monkeypatch)
    manifest = read_manifest(artifacts.reader)
    temperature, weight = manifest["prior_temperature"], manifest["query_likelihood"]
    data = reader.reading_data(params, artifacts)
    judged = judged_passages(data.dev, 3)
    questions = [example.question.text for example in data.dev]
    served = CausalReader(
        params.reader,
        artifacts.weights_cache,
        artifacts.reader,
        prior_temperature=temperature,
        query_likelihood=weight,
    )
    table = served.query_log_likelihood(
        [example.question.text for example in judged.examples],
        [example.passages for example in judged.examples],
    )

    def loss(temperature: float, weight: float) -> float:
        total = 0.0
        for scores, likelihoods, right in zip(judged.scores, table, judged.right, strict=True):
            if right.any():
                log_p = log_softmax(scores / temperature + weight * likelihoods.astype(float))
                total -= float(logsumexp(log_p[right]))
        return total

    best = loss(temperature, weight)
    for other in ((1.3, 1.0), (0.7, 1.0), (1.0, 1.3), (1.0, 0.7)):
        assert loss(temperature * other[0], weight * other[1]) >= best - 1e-3
    assert weight > 0.0
    assert best <= loss(data.prior_temperature, 0.0) + 1e-6
    answers = served.answer(questions, [example.passages for example in data.dev])
    assert manifest["dev"] == {
        name: round(value, 4) for name, value in dev_metrics(answers, data.dev, SCORES).items()
    }
