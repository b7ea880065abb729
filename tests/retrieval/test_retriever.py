"""rag/retrieval/retriever.py over five chunks, whose order is worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag.errors import IndexMismatchError
from rag.params import IndexParams
from rag.records import Chunk
from rag.retrieval.embeddings import Embeddings, make_embeddings
from rag.retrieval.encoder import Encoder, FloatMatrix
from rag.retrieval.fusion import Candidates, Fusion, FusionRule
from rag.retrieval.index import VectorIndex, open_index, publish_index
from rag.retrieval.retriever import Retriever

FUSION = Fusion({"default": FusionRule(0.0, bm25_scale=2.0), "zh": FusionRule(1.0)})
QUESTION = "petrel gull"


@pytest.fixture(scope="module")
def minilm(chunks: list[Chunk], encoder: Encoder) -> Embeddings:
    vectors = encoder.encode([chunk.text for chunk in chunks], "passage")
    ids = [chunk.chunk_id for chunk in chunks]
    return make_embeddings(ids, vectors, encoder.passage_fingerprint)


@pytest.fixture(scope="module")
def index(
    chunks: list[Chunk], minilm: Embeddings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VectorIndex]:
    folder = tmp_path_factory.mktemp("index")
    told = [
        replace(chunk, source=f"{'ab'[i % 2]}.md", metadata={"year": 2000 + i})
        for i, chunk in enumerate(chunks)
    ]
    publish_index(IndexParams(), folder, minilm, [told])
    index = open_index(IndexParams(), folder, minilm.facts)
    yield index
    index.close()


@pytest.fixture(scope="module")
def retriever(index: VectorIndex, encoder: Encoder) -> Retriever:
    return Retriever(encoder, index, FUSION, candidates=5)


def dense_scores(chunks: Sequence[Chunk], minilm: Embeddings, encoder: Encoder) -> dict[str, float]:
    """Chunk to dot product with the question, best first."""
    scores = minilm.vectors @ encoder.encode([QUESTION], "query")[0]
    return {chunks[i].chunk_id: float(scores[i]) for i in np.argsort(-scores)}


def test_weight_0_is_the_order_of_bm25(retriever: Retriever, chunks: list[Chunk]) -> None:
    """Chunk 1 has "petrel" twice in 3 terms, chunk 4 "gull" once in 2; the average is 2.4.

    Each term is in one chunk of five. The other chunks share no term with the question, and so are
    equal.
    """
    [passages] = retriever.search([QUESTION], ["en"], 5)
    assert [passage.chunk_id[-1] for passage in passages] == ["1", "4", "2", "3", "5"]
    assert [passage.rank for passage in passages] == [1, 2, 3, 4, 5]
    idf = np.log(1 + (5 - 1 + 0.5) / (1 + 0.5))
    petrel = idf * 2 * 1.9 / (2 + 0.9 * (0.25 + 0.75 * 3 / 2.4))
    gull = idf * 1 * 1.9 / (1 + 0.9 * (0.25 + 0.75 * 2 / 2.4))
    scores = [petrel, gull, 0, 0, 0]
    assert [passage.bm25_score for passage in passages] == pytest.approx(scores, rel=1e-5)
    halved = [score / 2 for score in scores]
    assert [passage.score for passage in passages] == pytest.approx(halved, rel=1e-5)
    assert passages[1].text == chunks[3].text == "gull kiosk"
    assert passages[1].document_id == "d4"


def test_weight_1_is_the_order_of_the_dot_product(
    retriever: Retriever, chunks: list[Chunk], minilm: Embeddings, encoder: Encoder
) -> None:
    [passages] = retriever.search([QUESTION], ["zh"], 5)
    expected = dense_scores(chunks, minilm, encoder)
    assert [passage.chunk_id for passage in passages] == list(expected)
    for passage in passages:
        assert passage.dense_score == passage.score
        assert passage.score == pytest.approx(expected[passage.chunk_id], abs=1e-5)


def test_each_question_is_ranked_by_the_rule_of_its_language(
    retriever: Retriever, chunks: list[Chunk], minilm: Embeddings, encoder: Encoder
) -> None:
    found = retriever.search([QUESTION, QUESTION, QUESTION], ["zh", "en", "sv"], 5)
    dense, terms, other = ([passage.chunk_id for passage in passages] for passages in found)
    assert dense == list(dense_scores(chunks, minilm, encoder))
    assert terms == other != dense


def test_candidates_can_be_ranked_by_another_fusion(retriever: Retriever) -> None:
    found = retriever.candidates([QUESTION])
    dense = Fusion({"default": FusionRule(1.0)})
    again = retriever.ranked([QUESTION], found, ["en"], 5, fusion=dense)
    assert again == retriever.search([QUESTION], ["zh"], 5)


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_than_the_limit(retriever: Retriever, limit: int) -> None:
    for weight_language in ("en", "zh"):
        [passages] = retriever.search([QUESTION], [weight_language], limit)
        assert len(passages) == limit


def test_only_what_matches_the_filter_is_found(retriever: Retriever) -> None:
    """Chunks 1, 3 and 5 are of a.md, 2 and 4 of b.md; years count from 2000."""
    [passages] = retriever.search([QUESTION], ["en"], 5, {"source": "b.md"})
    assert [passage.chunk_id[-1] for passage in passages] == ["4", "2"]
    where = {"source": "a.md", "metadata.year": ["2000", "2002", "2003"]}
    [passages] = retriever.search([QUESTION], ["en"], 5, where)
    assert [passage.chunk_id[-1] for passage in passages] == ["1", "3"]


def test_candidates_are_the_union_of_both_searches(index: VectorIndex, encoder: Encoder) -> None:
    """One candidate from each: the list of BM25 is full, so what it leaves out is not known."""
    narrow = Retriever(encoder, index, FUSION, candidates=1)
    [found] = narrow.candidates(["dog petrel petrel"])
    by_id = {name[-1]: i for i, name in enumerate(found.ids)}
    assert set(by_id) <= {"1", "5"}
    assert not np.isnan(found.bm25[by_id["1"]])
    assert list(found.ids) == sorted(found.ids)


def test_a_question_without_a_known_term_is_ranked_by_meaning(retriever: Retriever) -> None:
    [found] = retriever.candidates(["puppy"])
    assert np.isnan(found.bm25).all()
    [passages] = retriever.search(["puppy"], ["zh"], 1)
    assert passages[0].text == "dog kennel"
    assert passages[0].bm25_score == 0.0


def test_no_questions_no_passages(retriever: Retriever) -> None:
    assert retriever.search([], [], 5) == []


def test_progress_counts_the_questions(retriever: Retriever) -> None:
    done: list[int] = []
    retriever.candidates([QUESTION] * 1100, progress=done.append)
    assert done == [1024, 76]


def test_a_chunk_that_the_index_lost_is_an_error(retriever: Retriever) -> None:
    ghost = Candidates.of({"00000000000000ff": 0.5}, {})
    with pytest.raises(IndexMismatchError, match=r"00000000000000ff; run: ragloop index rebuild"):
        retriever.ranked([QUESTION], [ghost], ["en"], 5)


class AxisEncoder:
    """Every question is the first axis; `Retriever` asks no more of an encoder."""

    def encode(self, texts: Sequence[str], side: str) -> FloatMatrix:
        return np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (len(texts), 1))


def ties(folder: Path, scores: Sequence[float], order: Sequence[int], candidates: int) -> list[str]:
    """The candidates where chunk i has dense score `scores[i]`, built in `order`."""
    ids = [f"{row:016x}" for row in order]
    angles = np.arccos([scores[row] for row in order])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    embeddings = make_embeddings(ids, vectors, "an encoder")
    publish_index(IndexParams(), folder, embeddings, [[Chunk(i, i, 0, "ferry", 1) for i in ids]])
    retriever = Retriever(
        AxisEncoder(),  # type: ignore[arg-type]
        open_index(IndexParams(), folder, embeddings.facts),
        Fusion(),
        candidates=candidates,
    )
    [found] = retriever.candidates(["petrel"])
    retriever.close()
    return [str(int(name, 16)) for name in found.ids]


@pytest.mark.parametrize("seed", range(3))
def test_of_equal_scores_the_smallest_ids_are_taken(tmp_path: Path, seed: int) -> None:
    """Three of 0.9, then twenty of 0.5 of which two fit: 3 and 4, in whatever order they lie."""
    scores = [0.9] * 3 + [0.5] * 20
    order = np.random.default_rng(seed).permutation(len(scores)).tolist()
    assert ties(tmp_path, scores, order, 5) == ["0", "1", "2", "3", "4"]


def test_of_too_many_equal_scores_none_is_taken(tmp_path: Path) -> None:
    """150 chunks of one score behind one better: which two of them come first would be chance."""
    assert ties(tmp_path, [0.9] + [0.5] * 150, range(151), 3) == ["0"]
