"""Lengths of answers by hand."""

from __future__ import annotations

import pytest

from rag.errors import MetricError
from rag.evaluation.lengths import answer_lengths


def test_lengths_by_hand() -> None:
    lengths = answer_lengths(["The Sea Eagle.", " 北京。", "", " \u200b\n", "?"])
    assert lengths.tokens.tolist() == [2, 2, 0, 0, 1]
    assert lengths.characters.tolist() == [14, 3, 0, 0, 1]
    assert lengths.empty.tolist() == [False, False, True, True, False]
    assert lengths.mean_tokens == 5 / 5
    assert lengths.mean_characters == 18 / 5
    assert lengths.empty_rate == 2 / 5


def test_no_answer_has_no_length() -> None:
    with pytest.raises(MetricError, match="no answer to measure"):
        answer_lengths([])
