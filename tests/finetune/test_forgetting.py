"""The forgetting probe, and the ranks that it and the dev evaluation rest on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from rag.finetune import ranking
from rag.finetune.forgetting import PROBE, Probe, read_probe
from rag.finetune.ranking import rank_relevant
from rag.retrieval.encoder import FloatMatrix, Side

VECTORS = np.eye(4, dtype=np.float32)


def test_the_probe_is_general_small_and_of_two_languages() -> None:
    probe = read_probe(PROBE)
    assert len(set(probe.passages)) == len(set(probe.questions)) == len(probe.questions) >= 100
    chinese = sum(any("一" <= letter <= "鿿" for letter in text) for text in probe.questions)
    assert 20 <= chinese <= len(probe.questions) / 2
    assert all(question not in probe.passages for question in probe.questions)


def test_a_probe_asks_each_question_of_all_passages() -> None:
    """The sides are encoded apart, because one of them may be frozen."""
    asked: Counter[tuple[str, Side]] = Counter()

    def queries(texts: Sequence[str], side: Side) -> FloatMatrix:
        asked["queries", side] += 1
        return VECTORS[[0, 0, 2]]

    def passages(texts: Sequence[str], side: Side) -> FloatMatrix:
        asked["passages", side] += 1
        return VECTORS[:3]

    found = Probe(("a", "b", "c"), ("x", "y", "z")).rank(queries, passages)
    assert asked == {("queries", "query"): 1, ("passages", "passage"): 1}
    # The second question has the vector of the first one's passage; the others score 0 alike.
    assert found.ranks.tolist() == [1, 2, 1]
    assert found.metrics() == {
        "mrr": pytest.approx(100.0 * 2.5 / 3),
        "recall@1": pytest.approx(200.0 / 3),
        "recall@5": 100.0,
        "recall@20": 100.0,
    }
    assert found.distinct_share() == pytest.approx(2 / 3)


@pytest.mark.parametrize("block", [1, 3, 100])
def test_ranks_count_what_is_strictly_closer_than_the_best_relevant(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "_BLOCK_ROWS", block)
    passages = np.array([[0.1], [0.9], [0.5], [0.9], [0.7]], dtype=np.float32)
    query = np.ones((4, 1), dtype=np.float32)
    found = rank_relevant(query, passages, [[0], [2, 4], [3], [1]])
    assert found.ranks.tolist() == [5, 3, 1, 1]
    assert found.first.tolist() == [1, 1, 1, 1]
    assert found.distinct_share() == 0.25
