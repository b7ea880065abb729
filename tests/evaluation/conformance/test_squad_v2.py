"""SQuAD 2.0's numbers by hand, under the names that its script prints."""

from __future__ import annotations

import math

import pytest

from rag.errors import MetricError
from rag.evaluation.squad_v2 import squad_v2_scores

REFERENCES = {"q1": ["Sea Eagle", "an eagle"], "q2": ["in 2019"], "q3": [], "q4": [""]}
#: Right; half right (F1 of "2019" and "in 2019" is 2/3); an answer to no question; rightly none.
PREDICTIONS = {"q4": "", "q3": "the master", "q2": "2019", "q1": "The Sea Eagle"}
DOUBT = {"q1": 0.1, "q2": 0.4, "q3": 0.6, "q4": 0.9}


def test_numbers_by_hand() -> None:
    numbers, scores = squad_v2_scores(PREDICTIONS, REFERENCES)
    assert numbers == pytest.approx(
        {
            "exact": 100 * 2 / 4,
            "f1": 100 * (1 + 2 / 3 + 0 + 1) / 4,
            "total": 4,
            "HasAns_exact": 100 * 1 / 2,
            "HasAns_f1": 100 * (1 + 2 / 3) / 2,
            "HasAns_total": 2,
            "NoAns_exact": 100 * 1 / 2,
            "NoAns_f1": 100 * 1 / 2,
            "NoAns_total": 2,
        }
    )
    assert scores["exact"].tolist() == [1.0, 0.0, 0.0, 1.0]


def test_best_threshold_by_hand() -> None:
    numbers, _ = squad_v2_scores(PREDICTIONS, REFERENCES, DOUBT)
    # Declining all is right twice. Answering q1 too: 3; and q2: 3 exact, F1 3 2/3; and q3: 1 less.
    assert numbers["best_exact"] == pytest.approx(100 * 3 / 4)
    assert numbers["best_exact_thresh"] == 0.1
    assert numbers["best_f1"] == pytest.approx(100 * (3 + 2 / 3) / 4)
    assert numbers["best_f1_thresh"] == 0.4
    applied, _ = squad_v2_scores(PREDICTIONS, REFERENCES, DOUBT, threshold=0.4)
    assert applied["f1"] == pytest.approx(numbers["best_f1"])
    assert applied["NoAns_exact"] == 100.0


def test_best_may_be_never_to_answer() -> None:
    numbers, _ = squad_v2_scores({"q": "no"}, {"q": []}, {"q": 0.2})
    assert (numbers["best_f1"], numbers["best_f1_thresh"]) == (100.0, -math.inf)
    assert "HasAns_f1" not in numbers


def test_joined_by_id_and_every_culprit_named() -> None:
    with pytest.raises(MetricError, match="no prediction for: q2"):
        squad_v2_scores({"q1": "a"}, {"q1": ["a"], "q2": ["a"]})
    with pytest.raises(MetricError, match="unknown questions: q2"):
        squad_v2_scores({"q1": "a", "q2": "a"}, {"q1": ["a"]})
    with pytest.raises(MetricError, match="no probability of no answer for: q1"):
        squad_v2_scores({"q1": "a"}, {"q1": ["a"]}, {})
    with pytest.raises(MetricError, match="is not finite for: q1"):
        squad_v2_scores({"q1": "a"}, {"q1": ["a"]}, {"q1": math.nan})
    with pytest.raises(MetricError, match="there is no question"):
        squad_v2_scores({}, {})
