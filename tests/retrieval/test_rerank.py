"""rag/retrieval/rerank.py: a random cross-encoder against the library, and one made by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag.errors import ModelError
from rag.params import RerankParams
from rag.records import Passage
from rag.retrieval.fusion import Fusion
from rag.retrieval.rerank import Reranker, load_reranker, reranked
from tests.tiny_bert import WORDS, save_tiny_sentence_transformer, write_tiny_bert

PAIRS = [
    ("who is the captain ?", "captain marlow rests at noon ."),
    ("where is the boat ?", "the red boat sails from north port ."),
    ("what rests ?", "a blue seagull rests ."),
    ("who ?", "north " * 90),
    ("北 京 ?", "港"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of two layers with a head of one score."""
    import torch
    from sentence_transformers import CrossEncoder

    base = write_tiny_bert(tmp_path_factory.mktemp("bert") / "bert")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = CrossEncoder(str(base), num_labels=1, device="cpu")
        torch.nn.init.normal_(model.model.classifier.weight, std=1.0)
    folder = base.with_name("cross")
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def params(folder: Path, **changes: object) -> RerankParams:
    return RerankParams.model_validate({"model": str(folder), "max_tokens": 64, **changes})


def load(folder: Path, tmp_path: Path, **changes: object) -> Reranker:
    found = load_reranker(params(folder, **changes), tmp_path, device="cpu")
    assert found is not None
    return found


def test_scores_are_those_of_the_library(folder: Path, tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    library = CrossEncoder(str(folder), max_length=64, device="cpu")
    expected = library.predict(PAIRS, show_progress_bar=False)
    scores = load(folder, tmp_path).scores(PAIRS)
    np.testing.assert_allclose(scores, expected, atol=5e-5)
    assert scores.dtype == np.float32
    assert scores.max() - scores.min() > 0.01  # not one score for all


@pytest.mark.parametrize("batch_tokens", [256, 512, 8192])
def test_a_score_depends_on_its_pair_alone(folder: Path, tmp_path: Path, batch_tokens: int) -> None:
    """Whatever else is scored and in what batches."""
    reranker = load(folder, tmp_path, batch_tokens=batch_tokens)
    alone = np.concatenate([reranker.scores([pair]) for pair in PAIRS])
    np.testing.assert_array_equal(reranker.scores(PAIRS), alone)
    np.testing.assert_array_equal(reranker.scores(PAIRS[::-1] * 9), np.tile(alone[::-1], 9))


def test_progress_counts_the_pairs(folder: Path, tmp_path: Path) -> None:
    done: list[int] = []
    load(folder, tmp_path).scores(PAIRS, progress=done.append)
    assert sum(done) == len(PAIRS)


def test_nothing_to_score(folder: Path, tmp_path: Path) -> None:
    assert load(folder, tmp_path).scores([]).shape == (0,)


@pytest.fixture(scope="module")
def counter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder whose score can be worked out: 1 for a pair without "captain", else 3.

    All layers are silenced but the embeddings of words; the head reads the pooled first token, so
    the score is written into its bias, and attention of uniform weight brings "captain" to it.
    """
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu", activation_fn=torch.nn.Identity())
    bert = model.model.bert
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.zero_()
        captain = 5 + WORDS.split().index("captain")  # after five special tokens
        # The layer norm of the embeddings has weight 0 but for one place, where "captain" is high.
        bert.embeddings.word_embeddings.weight[captain, 0] = 1.0
        bert.embeddings.LayerNorm.weight[0] = 1.0
        first = bert.encoder.layer[0]
        first.attention.self.value.weight[0, 0] = 1.0
        first.attention.output.dense.weight[0, 0] = 1.0
        # Passes on the sign of the mean: one place against the others, normalised.
        first.attention.output.LayerNorm.weight[0] = 1.0
        first.output.LayerNorm.weight[0] = 1.0
        bert.encoder.layer[1].attention.output.LayerNorm.weight[0] = 1.0
        bert.encoder.layer[1].output.LayerNorm.weight[0] = 1.0
        bert.pooler.dense.weight[0, 0] = 1000.0
        model.model.classifier.weight[0, 0] = 2.0
        model.model.classifier.bias[0] = 1.0
    path = tmp_path_factory.mktemp("counter") / "counter"
    model.save_pretrained(str(path), create_model_card=False)
    return path


def passages(*texts: str) -> list[Passage]:
    """In fused order, scores 0.9, 0.8, ..."""
    return [
        Passage(f"{rank:016x}", f"d{rank}", text, 1.0 - rank / 10, rank, 0.5, 3.0)
        for rank, text in enumerate(texts, start=1)
    ]


def test_passages_are_put_in_the_order_of_their_scores(counter: Path, tmp_path: Path) -> None:
    """Of the first three only the third names the captain: 3, then 1 and 1 in fused order."""
    row = passages("a boat", "a port", "captain marlow", "captain", "noon")
    reranker = load(counter, tmp_path, passages=3)
    [found] = reranked(reranker, ["who ?"], [row])
    assert [passage.document_id for passage in found] == ["d3", "d1", "d2", "d4", "d5"]
    assert [passage.rank for passage in found] == [1, 2, 3, 4, 5]
    # The rest keep fused scores, 0.6 and 0.5, below the lowest new one.
    expected = [3.0, 1.0, 1.0, 0.6, 0.5]
    assert [passage.score for passage in found] == pytest.approx(expected, abs=1e-5)
    assert found[0] == replace(row[2], rank=1, score=found[0].score)


class Fixed:
    """Scores that are given; `reranked` asks no more of a reranker."""

    def __init__(self, passages: int, scores: Sequence[float]) -> None:
        self.passages = passages
        self._scores = np.array(scores, dtype=np.float32)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        assert len(pairs) == len(self._scores)
        return self._scores


def test_scores_never_rise_from_first_to_last() -> None:
    """New scores -4 and -2; the rest, fused at 0.7 and 0.6, follow on -4 with the same step."""
    row = passages("a", "b", "c", "d")
    [found] = reranked(Fixed(2, [-4.0, -2.0]), ["?"], [row])  # type: ignore[arg-type]
    assert [passage.document_id for passage in found] == ["d2", "d1", "d3", "d4"]
    assert [passage.score for passage in found] == pytest.approx([-2.0, -4.0, -4.0, -4.1])


def test_each_question_has_its_own_scores() -> None:
    rows = [passages("a", "b"), [], passages("c")]
    found = reranked(Fixed(5, [0.1, 0.2, 0.3]), ["x", "y", "z"], rows)  # type: ignore[arg-type]
    assert [[passage.text for passage in row] for row in found] == [["b", "a"], [], ["c"]]


def test_no_model_no_reranker(tmp_path: Path) -> None:
    assert load_reranker(RerankParams(), tmp_path) is None


def test_the_weights_are_named_by_their_hash(folder: Path, tmp_path: Path) -> None:
    digest = load(folder, tmp_path).weights.sha256
    assert len(digest) == 64
    (folder / "vocab.txt").write_text("changed", encoding="utf-8")
    assert load(folder, tmp_path).weights.sha256 != digest
    (folder / "vocab.txt").unlink()


def test_only_the_reranker_of_the_fusion_is_taken(folder: Path, tmp_path: Path) -> None:
    digest = load(folder, tmp_path).weights.sha256
    assert load_reranker(params(folder), tmp_path, fusion=Fusion(reranker=digest)) is not None
    assert load_reranker(RerankParams(), tmp_path, fusion=Fusion()) is None
    for wanted, other in ((params(folder), None), (params(folder), "ab"), (RerankParams(), "ab")):
        with pytest.raises(ModelError, match=rf"was run with {other}; run: dvc repro retrieve"):
            load_reranker(wanted, tmp_path, fusion=Fusion(reranker=other))


def test_an_encoder_is_no_reranker(tmp_path: Path) -> None:
    folder = save_tiny_sentence_transformer(tmp_path / "encoder")
    with pytest.raises(ModelError, match=r"is BertModel, expected a cross-encoder"):
        load_reranker(params(folder), tmp_path)


def changed(folder: Path, target: Path, **config: object) -> Path:
    """A copy whose configuration says something else."""
    target.mkdir()
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    tree = json.loads((folder / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(tree | config))
    return target


def test_a_classifier_of_several_labels_is_refused(folder: Path, tmp_path: Path) -> None:
    labels = {"0": "no", "1": "perhaps", "2": "yes"}
    other = changed(folder, tmp_path / "labels", id2label=labels)
    with pytest.raises(ModelError, match=r"gives 3 scores a pair, expected a cross-encoder with"):
        load_reranker(params(other), tmp_path)


def test_more_tokens_than_positions_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"max_tokens: .* reads at most 512 tokens, got 1000"):
        load_reranker(params(folder, max_tokens=1000), tmp_path)


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    other = changed(folder, tmp_path / "pickled")
    (other / "model.safetensors").rename(other / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled weights \(pytorch_model\.bin\)"):
        load_reranker(params(other), tmp_path)
