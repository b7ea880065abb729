"""chrF against sacrebleu, by hand, and where it has to hold whatever the text."""

from __future__ import annotations

import random

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics.chrf import CHRF

from rag.errors import MetricError
from rag.evaluation.chrf import (
    chrf,
    chrf_of,
    chrf_signature,
    chrf_statistics,
    corpus_chrf,
)

WORDS = "the a sea eagle, sails daily. from 北京 到 上海。 서울은 port's harbour-side at 9:30 x"


def random_corpus(seed: int, size: int) -> tuple[list[str], list[list[str]]]:
    """Texts of no word to nine, some shorter than six characters, with one to three references."""
    generator = random.Random(seed)

    def text(least: int) -> str:
        return " ".join(generator.choices(WORDS.split(), k=generator.randint(least, 9)))

    references = [[text(1) for _ in range(generator.randint(1, 3))] for _ in range(size)]
    predictions = [
        generator.choice([text(0), accepted[-1], accepted[0] + " daily"]) for accepted in references
    ]
    return predictions, references


def by_sacrebleu(predictions: list[str], references: list[list[str]]) -> float:
    most = max(map(len, references))
    streams = [
        [accepted[stream] if stream < len(accepted) else None for accepted in references]
        for stream in range(most)
    ]
    return float(sacrebleu.corpus_chrf(predictions, streams).score)


@pytest.mark.parametrize("seed", range(5))
def test_corpus_chrf_agrees_with_sacrebleu(seed: int) -> None:
    predictions, references = random_corpus(seed, 30)
    expected = by_sacrebleu(predictions, references)
    assert 20.0 < expected < 90.0
    assert corpus_chrf(predictions, references) == pytest.approx(expected, abs=1e-9)


def test_each_example_agrees_with_sacrebleu() -> None:
    predictions, references = random_corpus(6, 80)
    for prediction, accepted in zip(predictions, references, strict=True):
        expected = sacrebleu.sentence_chrf(prediction, accepted).score / 100.0
        assert chrf(prediction, accepted) == pytest.approx(expected, abs=1e-9)


def test_chrf_of_resamples_agrees_with_sacrebleu() -> None:
    predictions, references = random_corpus(7, 20)
    counts = chrf_statistics(predictions, references)
    drawn = np.random.default_rng(0).integers(0, 20, size=(10, 20))
    for chosen, score in zip(drawn, chrf_of(counts[drawn].sum(axis=1)), strict=True):
        expected = by_sacrebleu([predictions[i] for i in chosen], [references[i] for i in chosen])
        assert score == pytest.approx(expected, abs=1e-9)


def test_chrf_by_hand() -> None:
    # "ab" of "abc": characters 2 of 2 and 2 of 3, pairs 1 of 1 and 1 of 2; no triple predicted.
    # Precision 1, recall (2/3 + 1/2) / 2 = 7/12; F2 = 5 * 7/12 / (4 + 7/12) = 7/11.
    assert chrf("ab", ["abc"]) == pytest.approx(7 / 11, abs=1e-12)
    assert chrf("a b", ["x", "abc"]) == pytest.approx(7 / 11, abs=1e-12)
    # Recall weighs more: "abc" of "ab" has precision 7/12 and recall 1, F2 = 5 * 7/12 / (7/3 + 1).
    assert chrf("abc", ["ab"]) == pytest.approx((35 / 12) / (10 / 3), abs=1e-12)


def test_the_corpus_is_no_mean_of_examples() -> None:
    predictions, references = ["ab", "zzzz"], [["ab"], ["ab"]]
    counts = chrf_statistics(predictions, references)
    assert chrf_of(counts).tolist() == pytest.approx([100.0, 0.0])
    # Characters 2 of 6 and 2 of 4, pairs 1 of 4 and 1 of 2: precision 7/24, recall 1/2.
    expected = 100 * 5 * (7 / 24) * (1 / 2) / (4 * 7 / 24 + 1 / 2)
    assert corpus_chrf(predictions, references) == pytest.approx(expected, abs=1e-9)


def test_nothing_against_nothing_is_right() -> None:
    assert corpus_chrf(["", " "], [[""], [""]]) == 100.0
    assert chrf("", []) == chrf("", ["eagle", ""]) == 1.0
    assert chrf("eagle", []) == chrf("", ["eagle"]) == chrf("eagle", [""]) == 0.0
    assert corpus_chrf(["eagle"], [[""]]) == 0.0
    assert sacrebleu.corpus_chrf([""], [[""]]).score == 0.0


def test_signature_is_that_of_sacrebleu() -> None:
    metric = CHRF()
    metric.corpus_score(["a"], [["a"]])
    assert f"nrefs:1|{chrf_signature()}" == str(metric.get_signature())


def test_what_cannot_be_scored_is_named() -> None:
    with pytest.raises(MetricError, match="no example"):
        corpus_chrf([], [])
    with pytest.raises(MetricError, match="example 1 has no reference"):
        corpus_chrf(["a", "b"], [["a"], []])
    with pytest.raises(MetricError, match="2 predictions but 1 lists"):
        corpus_chrf(["a", "b"], [["a"]])


TEXT = st.text("ab. 北京", max_size=8)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_bounds_and_order(pairs: list[tuple[str, str]]) -> None:
    predictions = [prediction for prediction, _ in pairs]
    references = [[reference] for _, reference in pairs]
    score = corpus_chrf(predictions, references)
    assert 0.0 <= score <= 100.0 + 1e-9
    assert corpus_chrf(predictions[::-1], references[::-1]) == pytest.approx(score, abs=1e-9)
    assert corpus_chrf(predictions, [[text] for text in predictions]) == pytest.approx(100.0)
