"""The train_retriever stage: what it writes, keeps and counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.artifacts import Artifacts
from rag.errors import ParamsError, TrainingError
from rag.finetune import retriever
from rag.finetune.negatives import Negatives
from rag.finetune.retriever import tune_retriever
from rag.params import Params
from rag.records import read_chunks
from rag.retrieval.encoder import Encoder
from rag.weights import resolve_weights
from tests.retrieval_toy import PLACES, SUBJECTS, contents, questions

pytestmark = pytest.mark.integration


def report(artifacts: Artifacts) -> dict[str, Any]:
    text = (artifacts.query_encoder / "training.json").read_text(encoding="utf-8")
    tree: dict[str, Any] = json.loads(text)
    return tree


def weights_of(artifacts: Artifacts) -> dict[str, str]:
    return {
        side: json.loads((artifacts.retriever / side / "encoder.json").read_text())["weights"]
        for side in ("passage", "query")
    }


def vectors(artifacts: Artifacts, params: Params, folder: Path | None) -> dict[str, Any]:
    encoder = Encoder(params.retriever, artifacts.weights_cache, folder=folder)
    texts = [chunk.text for chunk in read_chunks(artifacts.chunks)]
    return {
        "passage": encoder.encode(texts, "passage"),
        "query": encoder.encode(texts, "query"),
        "fingerprint": encoder.passage_fingerprint,
    }


def test_mode_none_writes_manifests_alone(
    corpus: Callable[..., Artifacts], tuning: Callable[..., Params]
) -> None:
    artifacts = corpus()
    tune_retriever(tuning("none"), artifacts)
    assert weights_of(artifacts) == {"passage": "base", "query": "passage"}
    assert set(contents(artifacts.retriever)) == {"passage/encoder.json", "query/encoder.json"}


@pytest.mark.parametrize("extra", ["", "mini_batch=4", "lora={rank: 4, alpha: 8, dropout: 0.1}"])
def test_mode_query_teaches_unseen_subjects_and_leaves_passages_byte_identical(
    corpus: Callable[..., Artifacts], tuning: Callable[..., Params], extra: str
) -> None:
    artifacts = corpus()
    settings = tuning("query", *([f"retriever.training.{extra}"] if extra else []))
    tune_retriever(settings, artifacts)
    found = report(artifacts)
    assert found["kept"] == "tuned"
    assert found["dev"]["after"]["mrr"] > found["dev"]["before"]["mrr"] + 5.0
    assert weights_of(artifacts) == {"passage": "base", "query": "tuned"}
    before = vectors(artifacts, settings, None)
    after = vectors(artifacts, settings, artifacts.retriever)
    assert after["passage"].tobytes() == before["passage"].tobytes()
    assert after["fingerprint"] == before["fingerprint"]
    assert not np.allclose(after["query"], before["query"], atol=1e-3)


def test_mode_full_tunes_both_sides_with_the_same_weights(
    corpus: Callable[..., Artifacts], tuning: Callable[..., Params]
) -> None:
    artifacts = corpus()
    settings = tuning(
        "full", "retriever.training.hard_negatives=1", "retriever.training.mining_rounds=2"
    )
    tune_retriever(settings, artifacts)
    found = report(artifacts)
    assert found["dev"]["after"]["mrr"] > found["dev"]["before"]["mrr"] + 20.0
    assert weights_of(artifacts) == {"passage": "tuned", "query": "passage"}
    after = vectors(artifacts, settings, artifacts.retriever)
    assert after["fingerprint"] != vectors(artifacts, settings, None)["fingerprint"]
    assert after["query"].tobytes() == after["passage"].tobytes()
    assert found["movement"]["all"] > 0.01
    assert {"embeddings", "layer 00", "layer 01"} < set(found["movement"])
    assert set(found["general_probe"]) == {"before", "after"}
    steps = [
        json.loads(line)["step"]
        for line in contents(artifacts.query_encoder)["history.jsonl"].splitlines()
    ]
    assert steps == sorted(steps)
    assert steps.count(0) == 1


def test_a_large_corpus_is_searched_by_what_could_be_mistaken_and_a_sample(
    corpus: Callable[..., Artifacts],
    tuning: Callable[..., Params],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retriever, "_SEARCHED", 25)
    settings = tuning("full", "retriever.training.mining_candidates=1")
    artifacts = corpus()
    weights = resolve_weights(settings.retriever.model, None, artifacts.weights_cache)
    work = retriever._Tuning(settings, artifacts, weights)
    rows = work._searched(work._data.dev)
    assert len(rows) == len(set(rows)) == 25
    assert {row for example in work._data.dev for row in example.relevant} <= set(rows)
    _, dev = work._passages_and_dev(work._vectors, Negatives([()] * 48))
    found = [{rows[place] for place in places} for places in dev.relevant]
    assert found == [set(example.relevant) for example in work._data.dev]
    tune_retriever(settings, artifacts)
    assert report(artifacts)["kept"] == "tuned"


def test_what_is_not_better_on_dev_is_not_kept(
    corpus: Callable[..., Artifacts], tuning: Callable[..., Params]
) -> None:
    """Dev asks in the very words of the passages, which no encoder finds better than untuned."""
    texts = [f"the {subject} is at {place}" for subject, place in product(SUBJECTS, PLACES)]
    changed = {
        item.question_id: {"text": texts[int(str(item.document_id)[1:])]}
        for item in questions()
        if item.split == "dev"
    }
    for mode in ("query", "full"):
        artifacts = corpus(mode, changed)
        tune_retriever(tuning(mode, "retriever.training.patience=2"), artifacts)
        found = report(artifacts)
        assert found["dev"]["before"]["mrr"] == 100.0
        assert (found["kept"], found["best_step"], found["share"]) == ("untuned", 0, 0.0)
        assert found["last_step"] == round(found["steps"] / 2)
        assert found["dev"]["after"] == found["dev"]["before"]
        assert found["movement"]["all"] == 0.0
        assert weights_of(artifacts) == {"passage": "base", "query": "passage"}
        assert not list(artifacts.retriever.rglob("*.safetensors"))


def test_questions_that_cannot_teach_or_measure_are_counted(
    corpus: Callable[..., Artifacts], tuning: Callable[..., Params]
) -> None:
    synthetic = json.dumps({"synthetic": True})
    dev = [item.question_id for item in questions() if item.split == "dev"]
    train = [item.question_id for item in questions() if item.split == "train"]
    changed = {
        train[0]: {"answers": ["rests"]},  # no passage of its document says so
        train[1]: {"document_id": None},
        train[2]: {"slices": synthetic},
        dev[0]: {"slices": synthetic},
        dev[1]: {"answers": ["rests"]},
        train[3]: {"answers": [], "answerable": False},
    }
    artifacts = corpus(changed=changed)
    tune_retriever(tuning("query", "retriever.training.epochs=1"), artifacts)
    assert report(artifacts)["questions"] == {
        "train": 45,
        "train_synthetic": 1,
        "train_without_gold": 2,
        "dev": 14,
        "dev_synthetic_left_out": 1,
        "dev_without_gold": 1,
    }
    assert report(artifacts)["caveats"] == ["chosen on 14 dev questions only: a gain may be chance"]


def test_nothing_to_measure_on_is_an_error_that_says_what_to_do(
    corpus: Callable[..., Artifacts], tuning: Callable[..., Params]
) -> None:
    dev = {item.question_id: {"document_id": None} for item in questions() if item.split == "dev"}
    with pytest.raises(TrainingError, match=r"16 answerable dev questions.*retriever\.mode"):
        tune_retriever(tuning("query"), corpus(changed=dev))


def test_sharded_weights_are_refused_before_anything_is_touched(
    corpus: Callable[..., Artifacts], tuning: Callable[..., Params]
) -> None:
    sharded = ("processes=2", "batches_per_step=2", "shard_weights=true")
    settings = tuning("full", *(f"retriever.training.{change}" for change in sharded))
    artifacts = corpus()
    with pytest.raises(ParamsError, match=r"retriever\.training\.shard_weights: .*set it to false"):
        tune_retriever(settings, artifacts)
    assert not artifacts.retriever.exists()
