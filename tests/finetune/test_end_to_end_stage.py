"""The train_reader stage end to end, and what serves of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rag.artifacts import Artifacts
from rag.errors import ModelError
from rag.finetune import reader as stage
from rag.finetune.end_to_end import EndToEndTraining
from rag.params import Params
from rag.reading.answerer import QuestionAnswerer, System
from rag.retrieval.embeddings import read_embeddings
from rag.retrieval.encoder import Encoder
from tests.end_to_end_project import END_TO_END, SCORES
from tests.retrieval_toy import contents

pytestmark = pytest.mark.integration

Retrieved = Callable[..., tuple[Artifacts, Params]]


@pytest.fixture(scope="module")
def tuned(
    retrieved: Retrieved, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifacts, Params]:
    """A project whose reader was trained end to end; not to be changed."""
    untouched, params = retrieved(END_TO_END, "reader.training.evaluations=3")
    copied = tmp_path_factory.mktemp("tuned") / "project"
    shutil.copytree(untouched.root, copied)
    artifacts = Artifacts(copied)
    stage.tune_reader(params, artifacts, scores=SCORES)
    return artifacts, params


@pytest.mark.parametrize("system", ["tuned", "oracle", "zero_shot"])
def test_the_tuned_system_searches_with_the_tuned_encoder_and_baselines_do_not(
    tuned: tuple[Artifacts, Params], tiny_encoder: Path, system: System
) -> None:
    from sentence_transformers import SentenceTransformer

    artifacts, params = tuned
    asked = ["where is the 北 boat ?", "京 noon who ?"]
    answerer = QuestionAnswerer.load(artifacts, params, system)
    found = answerer.search(asked, 8)
    answerer.close()
    own = system != "zero_shot"
    model = SentenceTransformer(str(artifacts.reader_query_encoder if own else tiny_encoder))
    expected = model.encode(asked) @ read_embeddings(artifacts.embeddings).vectors.T
    for passages, scores in zip(found, expected, strict=True):
        dense = {p.document_id: p.dense_score for p in passages}
        assert dense == pytest.approx({f"d{i}": s for i, s in enumerate(scores)}, abs=1e-5)
    first = [passages[0].document_id for passages in found]
    assert (first == ["d0", "d7"]) is own


def test_only_the_query_side_is_another_and_its_fingerprint_says_so(
    tuned: tuple[Artifacts, Params], retrieved: Retrieved
) -> None:
    artifacts, params = tuned
    untouched, _ = retrieved()
    for name in ("embed", "retrieve", "models/retriever"):
        assert contents(artifacts.data / name) == contents(untouched.data / name)
    sides = {"folder": artifacts.retriever, "device": "cpu"}
    plain = Encoder(params.retriever, artifacts.weights_cache, **sides)
    own = Encoder(
        params.retriever,
        artifacts.weights_cache,
        query_folder=artifacts.reader_query_encoder,
        **sides,
    )
    assert own.passage_fingerprint == plain.passage_fingerprint
    assert own.query_fingerprint != plain.query_fingerprint
    report = json.loads((artifacts.reader / "reader.json").read_text())["end_to_end"]
    assert report["objective"] == "marginal"
    assert report["movement"]["all"] > 0.01
    assert set(report["dev"]["before"]) == {"recall@1", "mrr", "gold_prior"}
    assert report["dev"]["after"]["mrr"] > report["dev"]["before"]["mrr"]


def test_a_reader_trained_alone_leaves_no_query_encoder_behind(
    tuned: tuple[Artifacts, Params], tmp_path: Path
) -> None:
    shutil.copytree(tuned[0].root, tmp_path / "project")
    artifacts, settings = Artifacts(tmp_path / "project"), tuned[1].reader
    alone = settings.model_copy(
        update={
            "end_to_end": None,
            "training": settings.training.model_copy(update={"epochs": 1}),
        }
    )
    params = tuned[1].model_copy(update={"reader": alone})
    stage.tune_reader(params, artifacts, scores=SCORES)
    assert not artifacts.reader_query_encoder.exists()
    assert "end_to_end" not in json.loads((artifacts.reader / "reader.json").read_text())
    with pytest.raises(ModelError, match=r"query_encoder/encoder\.json is missing; run: dvc repro"):
        QuestionAnswerer.load(artifacts, tuned[1])


class Interrupted(Exception):
    """Stands for the end of the process."""


def test_an_interrupted_training_ends_bit_for_bit_the_same(
    tuned: tuple[Artifacts, Params],
    retrieved: Retrieved,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finished, params = tuned
    shutil.copytree(retrieved()[0].root, tmp_path / "project")
    artifacts = Artifacts(tmp_path / "project")
    steps = json.loads((finished.reader / "reader.json").read_text())["steps"]
    assert steps >= 9

    def tune(fatal: int) -> int:
        begun = 0
        plain = EndToEndTraining.loss

        def counted(self: EndToEndTraining, batch: Sequence[int]) -> Any:
            nonlocal begun
            begun += 1
            if begun == fatal:
                raise Interrupted
            return plain(self, batch)

        with monkeypatch.context() as patch:
            patch.setattr(EndToEndTraining, "loss", counted)
            stage.tune_reader(params, artifacts, scores=SCORES)
        return begun

    evaluated = round(steps / 3)
    with pytest.raises(Interrupted):
        tune(evaluated + 2)
    assert not artifacts.reader_query_encoder.exists()
    assert tune(0) == steps - evaluated
    assert contents(artifacts.reader) == contents(finished.reader)
    assert "query_encoder/model.safetensors" in contents(finished.reader)
