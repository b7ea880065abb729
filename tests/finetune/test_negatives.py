"""Mining on vectors in the plane, where every similarity can be read off; BM25 by its formula."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import chain

import numpy as np
import pytest

from rag.finetune import negatives
from rag.finetune.batches import alike_batches
from rag.finetune.negatives import (
    Negatives,
    RetrievalExample,
    bm25_candidates,
    dense_candidates,
    mine_negatives,
)
from rag.records import Question
from rag.retrieval.bm25 import Bm25Encoder
from rag.retrieval.encoder import FloatMatrix


def unit(*degrees: float) -> FloatMatrix:
    angles = np.radians(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def example(gold: int, *relevant: int, answer: str = "marlow") -> RetrievalExample:
    question = Question("q", "who?", (answer,), "d", True, "train", "en")
    return RetrievalExample(question, gold, frozenset({gold, *relevant}))


TEXTS = ["marlow", "a", "b", "c", "d", "e", "Captain Marlow", "f"]


def texts_of(rows: Iterable[int]) -> Mapping[int, str]:
    return {row: TEXTS[row] for row in rows}


def mine(asked: RetrievalExample, *, margin: float, bm25: Iterable[int] = ()) -> Negatives:
    # Passage i lies at 10 · i degrees and the question at 20: passage 2 is the closest.
    passages = unit(*(10.0 * i for i in range(8)))
    found = [np.array(list(bm25), dtype=np.int64)]
    return mine_negatives(
        [asked], unit(20.0), passages, found, texts_of, candidates=7, margin=margin
    )


def test_relevant_passages_are_never_negatives() -> None:
    mined = mine(example(2, 1, 3), margin=0.0)
    # Closest first: 2, then 1 and 3, 0 and 4 (ties by row), 5, 6; 6 contains the answer.
    assert mined.rows == [(4, 5)]
    assert mined.counts.facts() == {
        "candidates": 7,
        "relevant": 3,
        "within_margin": 0,
        "with_answer": 2,  # 0 and 6
        "mined": 2,
        "questions_without": 0,
    }


def test_passages_about_as_close_as_the_gold_one_are_left_out() -> None:
    # The gold passage 4 lies 20 degrees away: cos 20 = .940. Passages 1 and 3 have cos 10 = .985
    # and are closer; 5 has cos 30 = .866, which a margin of .1 (.846) leaves out as well.
    assert mine(example(4), margin=0.0).rows == [(5,)]
    assert mine(example(4), margin=0.1).rows == [()]
    facts = mine(example(4), margin=0.1).counts.facts()
    assert (facts["within_margin"], facts["questions_without"]) == (5, 1)


def test_dense_and_bm25_take_turns() -> None:
    mined = mine(example(2), margin=0.01, bm25=[7, 5, 1])
    # The gold passage had the first turn of dense search.
    assert mined.rows == [(7, 1, 5, 3, 4)]


def test_a_question_keeps_a_few_of_the_hardest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives, "KEPT", 2)
    assert mine(example(2), margin=0.0).rows == [(1, 3)]


@pytest.mark.parametrize("block", [1, 3, 8192])
def test_dense_candidates_are_the_closest_whatever_the_blocks(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "_BLOCK_ROWS", block)
    monkeypatch.setattr(negatives, "_BLOCK_QUERIES", 2)
    passages = unit(0, 40, 20, 40, 60, 80, 20)
    found = dense_candidates(unit(0, 40, 80), passages, 3)
    assert [rows.tolist() for rows in found] == [[0, 2, 6], [1, 3, 2], [5, 4, 1]]


@pytest.mark.parametrize("block", [1, 2, 8192])
def test_bm25_candidates_are_ranked_by_its_formula(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(negatives, "_BLOCK_ROWS", block)
    texts = [
        "petrel petrel ferry",
        "fulmar ferry",
        "gannet ferry timetable",
        "gull kiosk",
        "petrel kiosk kennel dog gull",
    ]
    questions = ["Which petrel?", "the ferry timetable", "a heron"]
    encoder = Bm25Encoder(Bm25Encoder.average_length(texts))
    passages = [encoder.passage(text) for text in texts]
    expected = []
    for question in questions:
        scores = []
        for passage in passages:
            score = 0.0
            for term in encoder.query(question).indices.tolist():
                holders = sum(term in other.indices for other in passages)
                rarity = math.log(1.0 + (len(texts) - holders + 0.5) / (holders + 0.5))
                score += rarity * float(passage.values[passage.indices == term].sum())
            scores.append(score)
        ranked = sorted(range(len(texts)), key=lambda row: (-scores[row], row))
        expected.append([row for row in ranked if scores[row] > 0.0][:3])
    assert expected == [[0, 4], [2, 1, 0], []]
    found = bm25_candidates(questions, lambda: iter(texts), 3)
    assert [rows.tolist() for rows in found] == expected


def test_a_batch_is_an_item_with_its_nearest_that_are_left() -> None:
    """Two far groups of four, two items a batch: no batch mixes the groups."""
    neighbours = {
        item: [other for other in range(8) if other // 4 == item // 4] for item in range(8)
    }
    for seed in range(5):
        batches = alike_batches(neighbours, dict.fromkeys(range(8), 3), 6, seed)
        assert sorted(chain.from_iterable(batches)) == list(range(8))
        assert all(len({item // 4 for item in batch}) == 1 for batch in batches)
        assert [len(batch) for batch in batches] == [2] * 4
        assert alike_batches(neighbours, dict.fromkeys(range(8), 3), 6, seed) == batches
    assert alike_batches(neighbours, dict.fromkeys(range(8), 3), 6, 9) != batches


def test_items_whose_neighbours_are_taken_share_batches() -> None:
    alone = {item: [item] for item in range(5)}
    batches = alike_batches(alone, dict.fromkeys(range(5), 1), 2, seed=1)
    assert sorted(len(batch) for batch in batches) == [1, 2, 2]
    assert sorted(chain.from_iterable(batches)) == list(range(5))
