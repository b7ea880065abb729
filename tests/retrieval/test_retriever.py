"""rag/retrieval/retriever.py over five chunks, whose order is worked out by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rag.params import IndexParams
from rag.records import Chunk
from rag.retrieval.embeddings import Embeddings, make_embeddings
from rag.retrieval.encoder import Encoder
from rag.retrieval.fusion import Candidate, Fusion
from rag.retrieval.index import open_index, publish_index
from rag.retrieval.retriever import Retriever

FUSION = Fusion({"default": 0.0, "zh": 1.0})
QUESTION = "petrel gull"


@pytest.fixture(scope="module")
def minilm(chunks: list[Chunk], encoder: Encoder) -> Embeddings:
    vectors = encoder.encode([chunk.text for chunk in chunks], "passage")
    return make_embeddings(chunks, vectors, encoder.fingerprint)


@pytest.fixture(scope="module")
def retriever(
    chunks: list[Chunk],
    encoder: Encoder,
    minilm: Embeddings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Retriever]:
    folder = tmp_path_factory.mktemp("index")
    publish_index(IndexParams(), folder, minilm, chunks)
    index = open_index(IndexParams(), folder, minilm)
    retriever = Retriever(encoder, index, chunks, FUSION, candidates=5, average_tokens=2.4)
    yield retriever
    retriever.close()


def dense_order(minilm: Embeddings, encoder: Encoder) -> list[str]:
    scores = minilm.vectors @ encoder.encode([QUESTION], "query")[0]
    return [minilm.ids[i] for i in np.argsort(-scores)]


def test_weight_0_is_the_order_of_bm25(retriever: Retriever, chunks: list[Chunk]) -> None:
    """Chunk 1 has "petrel" twice in 3 terms, chunk 4 "gull" once in 2; the average is 2.4.

    Each term is in one chunk of five.

    The other chunks share no term with the question, and so are equal.
    """
    [passages] = retriever.search([QUESTION], ["en"], 5)
    assert [passage.chunk_id[-1] for passage in passages] == ["1", "4", "2", "3", "5"]
    assert [passage.rank for passage in passages] == [1, 2, 3, 4, 5]
    idf = np.log(1 + (5 - 1 + 0.5) / (1 + 0.5))
    petrel = idf * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 2.4))
    gull = idf * 1 * 2.2 / (1 + 1.2 * (0.25 + 0.75 * 2 / 2.4))
    assert [passage.bm25_score for passage in passages] == pytest.approx(
        [petrel, gull, 0, 0, 0], rel=1e-5
    )
    scaled = [1, gull / petrel, 0, 0, 0]
    assert [passage.score for passage in passages] == pytest.approx(scaled, rel=1e-5)
    assert passages[1].text == chunks[3].text == "gull kiosk"
    assert passages[1].document_id == "d4"


def test_weight_1_is_the_order_of_the_dot_product(
    retriever: Retriever, minilm: Embeddings, encoder: Encoder
) -> None:
    [passages] = retriever.search([QUESTION], ["zh"], 5)
    assert [passage.chunk_id for passage in passages] == dense_order(minilm, encoder)
    scores = minilm.vectors @ encoder.encode([QUESTION], "query")[0]
    expected = sorted(scores.tolist(), reverse=True)
    assert [passage.dense_score for passage in passages] == pytest.approx(expected, abs=1e-5)


def test_each_question_is_ranked_by_the_weight_of_its_language(
    retriever: Retriever, minilm: Embeddings, encoder: Encoder
) -> None:
    found = retriever.search([QUESTION, QUESTION, QUESTION], ["zh", "en", "sv"], 5)
    dense, terms, other = ([passage.chunk_id for passage in passages] for passages in found)
    assert dense == dense_order(minilm, encoder)
    assert terms == other != dense


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_than_the_limit(retriever: Retriever, limit: int) -> None:
    for weight_language in ("en", "zh"):
        [passages] = retriever.search([QUESTION], [weight_language], limit)
        assert len(passages) == limit


def test_candidates_are_the_union_of_both_searches(
    chunks: list[Chunk], encoder: Encoder, minilm: Embeddings, tmp_path: Path
) -> None:
    """One candidate from each: the list of BM25 is full, so what it leaves out is not known."""
    publish_index(IndexParams(), tmp_path, minilm, chunks)
    index = open_index(IndexParams(), tmp_path, minilm)
    narrow = Retriever(encoder, index, chunks, FUSION, candidates=1, average_tokens=2.4)
    [found] = narrow.candidates(["dog petrel petrel"])
    narrow.close()
    by_id = {candidate.chunk_id[-1]: candidate for candidate in found}
    assert set(by_id) <= {"1", "5"}
    assert by_id["1"].bm25 is not None
    assert [candidate.chunk_id for candidate in found] == sorted(c.chunk_id for c in found)


def test_a_question_without_a_known_term_is_ranked_by_meaning(retriever: Retriever) -> None:
    [found] = retriever.candidates(["puppy"])
    assert all(isinstance(candidate, Candidate) and candidate.bm25 is None for candidate in found)
    [passages] = retriever.search(["puppy"], ["zh"], 1)
    assert passages[0].text == "dog kennel"
    assert passages[0].bm25_score == 0.0


def test_no_questions_no_passages(retriever: Retriever) -> None:
    assert retriever.search([], [], 5) == []
