"""Training of readers that are an encoder and a decoder, by every fusion."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from rag.artifacts import Artifacts
from rag.evaluation.answer_scores import exact_match
from rag.finetune.examples import ReadingExample
from rag.finetune.generative import GenerativeReaderTraining
from rag.finetune.loop import train
from rag.params import Params
from rag.reading.marginal import rag_sequence, rag_token
from rag.reading.seq2seq import Seq2SeqReader
from rag.yaml_input import merge_overrides, read_yaml
from tests.tiny_bert import write_tiny_bert
from tests.tiny_seq2seq import write_tiny_bart, write_tiny_gpt2, write_tiny_t5
from tests.toy import run_python, toy_params

MakeTraining = Callable[..., GenerativeReaderTraining]
FUSIONS = ("concat", "fid", "rag_sequence", "rag_token")
PASSAGES = ("The Seafox sails under Captain Marlow.", "It is docked for 9 days, at Elgin.")
ASKED = (
    ("Who commands the Seafox?", "Captain Marlow"),
    ("For how many days?", "9 days"),
    ("From where?", "Elgin"),
    ("Who is red?", ""),
)
LORA = "reader.lora={rank: 16, alpha: 32, frozen_layers: 0}"
SCORES = {"exact_match": exact_match}
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


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """Overrides that name each model."""
    root = tmp_path_factory.mktemp("models")
    bert, gpt2 = write_tiny_bert(root / "bert"), write_tiny_gpt2(root / "gpt2")
    return {
        "bart": (f"reader.model={write_tiny_bart(root / 'bart')}",),
        "t5": (f"reader.model={write_tiny_t5(root / 't5')}",),
        "pair": (f"reader.model={bert}", f"reader.decoder={gpt2}"),
    }


@pytest.fixture
def make(
    models: dict[str, tuple[str, ...]], tmp_path: Path, example: Callable[..., ReadingExample]
) -> MakeTraining:
    """A training of four questions about two passages, one of them without an answer."""

    def training(model: str, *overrides: str) -> GenerativeReaderTraining:
        params = seq2seq_params(models[model], *overrides)
        reader = Seq2SeqReader(params.reader, tmp_path, None, prior_temperature=0.5)
        examples = [
            scored(example(question, PASSAGES, *([answer] if answer else [])))
            for question, answer in ASKED
        ]
        return GenerativeReaderTraining(reader, params, examples, examples, SCORES)

    return training


def seq2seq_params(names: Sequence[str], *overrides: str) -> Params:
    return toy_params(
        "reader.kind=seq2seq",
        *names,
        "reader.passages=2",
        "reader.lora=null",
        "reader.max_answer_tokens=12",
        *overrides,
    )


def scored(made: ReadingExample) -> ReadingExample:
    """Retrieval gives its first passage 0.9 and its second 0.5."""
    passages = (replace(made.passages[0], score=0.9), replace(made.passages[1], score=0.5))
    return replace(made, passages=passages)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("model", ["bart", "t5", "pair"])
def test_the_loss_is_minus_log_p_of_the_answers(
    model: str, fusion: str, make: MakeTraining
) -> None:
    """Every question on its own, put together by the formula of its fusion."""
    training = make(model, f"reader.fusion={fusion}")
    reader = training._reader
    total, weight = 0.0, 0
    with torch.inference_mode():
        for example in training._examples:
            sources = reader.sources(example.question.text, example.passages)
            answer = reader.answer_ids(example.target)
            rows = [reader.token_log_probabilities([own], [answer])[0] for own in sources]
            tokens = torch.stack(rows)[None]  # (1, K, T)
            prior = torch.tensor([[0.9, 0.5]]).div(0.5).log_softmax(-1)
            if fusion == "rag_token":
                log_p = rag_token(prior, tokens)
            elif fusion == "rag_sequence":
                log_p = rag_sequence(prior, tokens.sum(-1))
            else:
                log_p = tokens.sum()
            total -= float(log_p)
            weight += len(answer)
        loss = training.loss(range(len(ASKED)))
    assert float(loss.total) == pytest.approx(total, abs=1e-3)
    assert loss.weight == weight
    assert 0 < loss.tokens <= loss.padded_tokens


@pytest.mark.integration
@pytest.mark.parametrize(
    ("model", "fusion", "overrides"),
    [
        *(("bart", fusion, ()) for fusion in FUSIONS),
        ("t5", "fid", ()),
        ("pair", "concat", ()),
        ("pair", "fid", ()),
        ("bart", "rag_token", (LORA,)),
        ("bart", "rag_sequence", (LORA, "reader.export=merged")),
        ("pair", "concat", (LORA,)),
        ("pair", "fid", (LORA, "reader.export=merged")),
        ("bart", "fid", ("reader.training.gradient_checkpointing=true",)),
    ],
)
def test_a_few_examples_are_learned_and_saved(
    model: str, fusion: str, overrides: Sequence[str], make: MakeTraining, tmp_path: Path
) -> None:
    training = make(
        model,
        f"reader.fusion={fusion}",
        "reader.training.epochs=60",
        "reader.training.learning_rate=0.01",
        "reader.training.evaluations=2",
        *overrides,
    )
    before = training.evaluate()["dev_exact_match"]
    train(training, training._params.training, seed=1, log=lambda metrics, step: None)
    assert before <= 25.0
    assert training.evaluate()["dev_exact_match"] == 100.0
    expected = training.answer(training._examples)
    training.save(tmp_path / "tuned")
    loaded = Seq2SeqReader(training._params, tmp_path, tmp_path / "tuned", prior_temperature=0.5)
    found = loaded.answer(
        [example.question.text for example in training._examples],
        [example.passages for example in training._examples],
    )
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.text for one in found] == [answer for _, answer in ASKED]
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-4)


@pytest.fixture
def project(finished_toy: Path, tmp_path: Path) -> Callable[[str, str], Artifacts]:
    """A copy of the toy project in which a BART with dropout has yet to be trained."""

    def copy(name: str, fusion: str) -> Artifacts:
        folder = tmp_path / name
        shutil.copytree(finished_toy, folder, ignore=shutil.ignore_patterns(".git"))
        shutil.rmtree(folder / "data" / "models" / "reader")
        write_tiny_bart(folder / "tiny-bart", dropout=0.2)
        overrides = [
            "reader.kind=seq2seq",
            "reader.model=./tiny-bart",
            f"reader.fusion={fusion}",
            "reader.passages=2",
            "reader.lora=null",
            "reader.training.epochs=2",
            "reader.training.evaluations=2",
        ]
        tree = merge_overrides(read_yaml(folder / "params.yaml"), overrides)
        text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        (folder / "params.yaml").write_text(text, encoding="utf-8")
        return Artifacts(folder)

    return copy


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.integration
@pytest.mark.parametrize("fusion", [pytest.param("fid", marks=pytest.mark.slow), "rag_token"])
def test_a_killed_stage_goes_on_and_ends_bit_for_bit_the_same(
    fusion: str, project: Callable[[str, str], Artifacts]
) -> None:
    whole, killed = project("whole", fusion), project("killed", fusion)
    finished = run_python(whole.root, STAGE.format(fatal=0))
    finished.check_returncode()
    steps = int(finished.stdout.splitlines()[-1])
    evaluated = round(steps / 2)

    stopped = run_python(killed.root, STAGE.format(fatal=evaluated + 2))
    assert stopped.returncode == -signal.SIGKILL
    assert not (killed.reader / "reader.json").exists()

    resumed = run_python(killed.root, STAGE.format(fatal=0), hash_seed=5)
    resumed.check_returncode()
    assert int(resumed.stdout.splitlines()[-1]) == steps - evaluated
    assert contents(killed.reader) == contents(whole.reader)
    assert "weights/model.safetensors" in contents(killed.reader)
