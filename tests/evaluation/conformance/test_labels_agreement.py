"""Label scores against scikit-learn, by hand, and on the answers that others map by substring."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from rag.errors import MetricError
from rag.evaluation.labels import accuracy, label_scores

KNOWN = ["maybe", "no", "yes"]
SPELLINGS = {
    "yes": ["yes", "Yes.", " YES "],
    "no": ["no", "No!", "“no”"],
    "maybe": ["maybe", "Maybe…"],
    "unknown": ["unknown", "Unknown"],
    "yesterday": ["yesterday"],
}


def random_labels(seed: int, size: int) -> tuple[list[str], list[str]]:
    """Predictions, some outside the labels, and references, in canonical spelling."""
    generator = random.Random(seed)
    references = generator.choices(KNOWN, weights=[1, 4, 6], k=size)
    predictions = [
        generator.choice([right, generator.choice(list(SPELLINGS))]) for right in references
    ]
    return predictions, references


@pytest.mark.parametrize("zero_division", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_scores_agree_with_scikit_learn(seed: int, zero_division: float) -> None:
    # From three examples, so that some labels are never predicted or never right.
    predictions, references = random_labels(seed, 3 * (seed + 1) ** 2)
    generator = random.Random(seed)
    scores = label_scores(
        [generator.choice(SPELLINGS[text]) for text in predictions],
        [generator.choice(SPELLINGS[text]) for text in references],
        labels=["Maybe", "No", "Yes"],
        zero_division=zero_division,
    )
    assert scores.labels == tuple(KNOWN)

    def by_scikit_learn(average: str | None) -> list[object]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return list(
                precision_recall_fscore_support(
                    references,
                    predictions,
                    labels=KNOWN,
                    average=average,
                    zero_division=zero_division,
                )
            )

    each = by_scikit_learn(None)
    for ours, theirs in zip(
        (scores.precision, scores.recall, scores.f1, scores.support), each, strict=True
    ):
        np.testing.assert_allclose(ours, np.asarray(theirs), atol=1e-9)
    for average in ("macro", "micro", "weighted"):
        found = getattr(scores, average)
        expected = by_scikit_learn(average)[:3]
        assert [found.precision, found.recall, found.f1] == pytest.approx(expected, abs=1e-9)
    assert scores.accuracy == pytest.approx(accuracy_score(references, predictions), abs=1e-9)
    inside = confusion_matrix(references, predictions, labels=KNOWN)
    assert scores.confusion[:, :3].tolist() == inside.tolist()
    assert scores.confusion.sum() == len(references)


def test_label_scores_by_hand() -> None:
    scores = label_scores(
        ["yes", "Yes.", "no", "unknown", "yes"],
        ["yes", "no", "no", "no", "Yes"],
    )
    assert scores.labels == ("no", "yes")
    assert scores.confusion.tolist() == [[1, 1, 1], [0, 2, 0]]  # the last column is neither
    assert scores.accuracy == pytest.approx(3 / 5)
    assert scores.precision.tolist() == pytest.approx([1 / 1, 2 / 3])
    assert scores.recall.tolist() == pytest.approx([1 / 3, 2 / 2])
    assert scores.f1.tolist() == pytest.approx([2 / 4, 4 / 5])
    assert scores.macro.f1 == pytest.approx((2 / 4 + 4 / 5) / 2)
    assert scores.weighted.f1 == pytest.approx((3 * 2 / 4 + 2 * 4 / 5) / 5)
    # Pooled: 3 right of 4 predictions of a known label, and of 5 examples.
    assert (scores.micro.precision, scores.micro.recall) == pytest.approx((3 / 4, 3 / 5))
    assert scores.correct.tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize("text", ["unknown", "not sure", "cannot be determined", "yesterday", ""])
def test_a_label_inside_another_word_is_no_label(text: str) -> None:
    scores = label_scores([text, text], ["no", "yes"])
    assert scores.accuracy == 0.0
    assert scores.outside == ((0, text), (1, text))
    assert scores.outside_rate == 1.0


def test_labels_in_any_spelling_and_script() -> None:
    assert accuracy(["Yes.", "“no”", "是。"], ["yes", "NO", "是"]) == 1.0


def test_what_cannot_be_scored_is_named() -> None:
    with pytest.raises(MetricError, match="2 predictions but 1 labels"):
        label_scores(["a", "b"], ["a"])
    with pytest.raises(MetricError, match="no example"):
        label_scores([], [])
    with pytest.raises(MetricError, match=r"example 1, 'perhaps', is not among .* 'no', 'yes'"):
        label_scores(["no", "no"], ["no", "perhaps"], labels=["no", "yes"])
    with pytest.raises(MetricError, match=r"'Yes' and 'yes\.' are the same label"):
        label_scores(["no"], ["no"], labels=["Yes", "yes.", "no"])
    with pytest.raises(MetricError, match="zero_division must be 0 or 1, got nan"):
        label_scores(["no"], ["no"], zero_division=float("nan"))


LABEL = st.sampled_from(["yes", "No", "maybe", "unknown"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(LABEL, LABEL), min_size=1, max_size=12))
def test_bounds_and_order(pairs: list[tuple[str, str]]) -> None:
    predictions, references = (list(side) for side in zip(*pairs, strict=True))
    scores = label_scores(predictions, references)
    again = label_scores(predictions[::-1], references[::-1])
    for average in ("macro", "micro", "weighted"):
        found, mirrored = getattr(scores, average), getattr(again, average)
        for name in ("precision", "recall", "f1"):
            assert 0.0 <= getattr(found, name) <= 1.0
            assert getattr(mirrored, name) == pytest.approx(getattr(found, name), abs=1e-12)
    assert scores.micro.recall == pytest.approx(scores.accuracy)
    perfect = label_scores(references, references)
    assert perfect.accuracy == perfect.macro.f1 == perfect.micro.f1 == 1.0
