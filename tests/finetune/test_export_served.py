"""A reader that is rounded on its way out is judged as it is served, and needs no base model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rag.artifacts import Artifacts
from rag.evaluation.answer_scores import exact_match, token_f1
from rag.finetune.examples import dev_metrics
from rag.finetune.reader import reading_data, tune_reader
from rag.params import Params, load_params
from rag.reading.abstention import choose_threshold
from rag.reading.reader import load_reader, manifest_examples, read_manifest
from rag.release.bundle import verify_bundle, write_bundle
from tests.toy import run_python

pytestmark = pytest.mark.integration

SCORES = {"f1": token_f1, "exact_match": exact_match}
ASK = """
import json, sys
from pathlib import Path
from rag.artifacts import Artifacts
from rag.params import load_params
from rag.reading.answerer import QuestionAnswerer
artifacts = Artifacts(Path(sys.argv[1]), state_folder=Path(sys.argv[2]))
answerer = QuestionAnswerer.load(artifacts, load_params(artifacts.params))
print(json.dumps([answer.text for answer in answerer.answer(["Who commands the Seafox?"])]))
"""


@pytest.fixture
def trained(finished_toy: Path, tmp_path: Path) -> Callable[..., tuple[Artifacts, Params]]:
    """A copy of the toy project in which the reader was trained with these overrides."""

    def train(*overrides: str) -> tuple[Artifacts, Params]:
        project = tmp_path / "project"
        shutil.copytree(finished_toy, project, ignore=shutil.ignore_patterns(".git"))
        artifacts = Artifacts(project)
        params = load_params(artifacts.params, overrides)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(project)
            tune_reader(params, artifacts, scores=SCORES)
        return artifacts, params

    return train


@pytest.mark.parametrize(
    "overrides",
    [("reader.quantize=int8",), ("reader.export=merged", "reader.training.precision=bfloat16")],
)
def test_what_is_judged_on_dev_is_what_is_served(
    overrides: tuple[str, ...],
    trained: Callable[..., tuple[Artifacts, Params]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    artifacts, params = trained(*overrides, "reader.training.epochs=2")
    monkeypatch.chdir(artifacts.root)
    manifest = read_manifest(artifacts.reader)
    served = load_reader(
        params.reader,
        artifacts.weights_cache,
        artifacts.reader,
        examples=manifest_examples(manifest, params.reader.examples),
    )
    dev = reading_data(params, artifacts).dev
    answers = served.answer(
        [example.question.text for example in dev], [example.passages for example in dev]
    )
    assert manifest["abstain_below"] == choose_threshold(
        answers, [example.question.answers for example in dev], token_f1
    )
    metrics = dev_metrics(answers, dev, SCORES)
    assert manifest["dev"] == {name: round(value, 4) for name, value in metrics.items()}
    assert (manifest["quantize"], manifest["export"]) == (
        params.reader.quantize,
        params.reader.export,
    )


def test_a_release_of_a_merged_reader_answers_without_its_base(
    trained: Callable[..., tuple[Artifacts, Params]], tmp_path: Path
) -> None:
    artifacts, params = trained("reader.export=merged")
    bundle = tmp_path / "bundle"
    manifest = write_bundle(artifacts, params, bundle)
    assert verify_bundle(bundle) == manifest
    names = {name for name in manifest["files"] if name.startswith("data/models/reader/weights/")}
    assert {Path(name).name for name in names} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copytree(artifacts.root / "rag", elsewhere / "rag")
    shutil.rmtree(artifacts.root)
    arguments = [str(bundle), str(tmp_path / "state")]
    done = run_python(elsewhere, f"import sys; sys.argv[1:] = {arguments!r}\n{ASK}")
    done.check_returncode()
    assert json.loads(done.stdout) == ["Captain Marlow"]
