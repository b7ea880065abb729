"""MMD and the two exact tests: by hand, against scipy, and by simulation of 1,000 windows."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import fisher_exact

from rag.errors import InputError
from rag.monitoring.drift import (
    FloatMatrix,
    QueryReference,
    calibrate,
    fall_p_value,
    rise_p_value,
    squared_mmd,
    strangest,
)
from rag.monitoring.episodes import Episode, Rule
from tests.monitoring.conftest import Topics, unit

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
RULE = Rule(hits=3, windows=5)
WINDOW = 50


def alarms(reference: QueryReference, windows: Iterable[FloatMatrix]) -> list[int]:
    """The windows, from 0, at which an alarm begins."""
    episode, begun = Episode(), []
    for number, queries in enumerate(windows):
        before = episode.is_on
        episode = episode.after([squared_mmd(reference, queries) > reference.threshold], RULE)
        if episode.is_on and not before:
            begun.append(number)
    return begun


def test_the_statistic_by_its_definition() -> None:
    """Gretton et al. (2012), equation 3, one pair after another."""
    generator = np.random.default_rng(1)
    ours, theirs = (unit(generator.normal(size=(count, 3))) for count in (8, 4))
    reference = QueryReference(ours, 4, scale=0.7, within=_mean_kernel(ours), threshold=0.0)
    across = np.mean([_kernel(x, y) for x in theirs for y in ours])
    expected = _mean_kernel(theirs) + _mean_kernel(ours) - 2 * across
    assert squared_mmd(reference, theirs) == pytest.approx(expected, abs=1e-6)


def _kernel(x: FloatMatrix, y: FloatMatrix) -> float:
    return float(np.exp(-((x - y) ** 2).sum() / 0.7))


def _mean_kernel(rows: FloatMatrix) -> float:
    pairs = [(i, j) for i in range(len(rows)) for j in range(len(rows)) if i != j]
    return float(np.mean([_kernel(rows[i], rows[j]) for i, j in pairs]))


def test_the_threshold_is_that_of_windows_drawn_out_of_the_reference(topics: Topics) -> None:
    """The statistic of each split, computed the long way; a share alpha of them is above."""
    vectors = topics.draw(60)
    reference = calibrate(vectors, 20, alpha=0.1, seed=3, permutations=99)
    generator = np.random.default_rng(3)
    generator.permutation(60)
    values = []
    for _ in range(99):
        chosen = generator.permutation(60)[:20]
        rest = np.setdiff1d(np.arange(60), chosen)
        part = QueryReference(vectors[rest], 20, reference.scale, 0.0, 0.0)
        within = QueryReference(vectors[rest], 40, reference.scale, 0.0, 0.0)
        # Of a set with itself: mean over pairs - 2 (mean over pairs and the diagonal).
        own = squared_mmd(within, vectors[rest])
        mean = (2 / 40 + own) / (1 - 2 * 39 / 40)
        values.append(squared_mmd(part, vectors[chosen]) + mean)
    assert sum(value > reference.threshold + 1e-5 for value in values) == 9
    assert min(abs(value - reference.threshold) for value in values) < 1e-4


def test_a_swapped_distribution_is_noticed_and_a_thousand_calm_windows_are_not(
    topics: Topics,
) -> None:
    reference = calibrate(topics.draw(500), WINDOW, alpha=0.01, seed=13)
    calm = alarms(reference, (topics.draw(WINDOW) for _ in range(1000)))
    assert len(calm) <= 1
    other = topics.swapped()
    begun = alarms(reference, (other.draw(WINDOW) for _ in range(RULE.windows)))
    assert len(begun) == 1
    assert begun[0] < RULE.windows


def test_the_false_alarm_rate_of_one_window_is_the_one_asked_for(topics: Topics) -> None:
    """On average over references: one that is unlike its source by chance has more of them."""
    hits = []
    for seed in range(30):
        reference = calibrate(topics.draw(300), 30, alpha=0.05, seed=seed, permutations=300)
        windows = (topics.draw(30) for _ in range(40))
        hits += [squared_mmd(reference, queries) > reference.threshold for queries in windows]
    assert 0.02 < np.mean(hits) < 0.08


def test_the_strangest_queries_are_those_without_a_neighbour() -> None:
    reference = QueryReference(unit(np.eye(4)[:3]), 3, 1.0, 0.0, 0.0)
    queries = unit(np.array([[1.0, 0, 0, 0.1], [0, 0, 0, 1.0], [0, 1.0, 0, 1.0]]))
    assert strangest(reference, queries, 2) == [1, 2]


def test_too_few_or_equal_queries_are_refused(topics: Topics) -> None:
    with pytest.raises(InputError, match="39 reference queries are too few for windows of 20"):
        calibrate(topics.draw(39), 20, alpha=0.01, seed=1)
    with pytest.raises(InputError, match="all the same"):
        calibrate(np.repeat(topics.draw(1), 40, axis=0), 20, alpha=0.01, seed=1)
    reference = calibrate(topics.draw(40), 20, alpha=0.01, seed=1)
    with pytest.raises(InputError, match="a window has 20 queries, got 19"):
        squared_mmd(reference, topics.draw(19))


def test_a_rise_by_fisher() -> None:
    table = [[9, 41], [20, 180]]
    expected = fisher_exact(table, alternative="greater").pvalue
    assert rise_p_value((20, 200), (9, 50)) == pytest.approx(expected)
    # 1 of 2 and then 2 of 2: the chance of both hits in the second pair, 3 hits of 4, is 1/2.
    assert rise_p_value((1, 2), (2, 2)) == pytest.approx(0.5)


def test_a_fall_of_scores() -> None:
    before = np.linspace(0.5, 0.9, 200).tolist()
    assert fall_p_value(before, np.linspace(0.4, 0.8, 100).tolist()) < 0.001
    assert fall_p_value(before, np.linspace(0.6, 1.0, 100).tolist()) > 0.99


@pytest.mark.integration
def test_questions_about_other_things_are_noticed_by_minilm(tmp_path: Path) -> None:
    """Wikipedia questions are served to a system that was trained on a company's FAQ."""
    if not SHARED.is_dir():
        pytest.skip(f"no {SHARED.parent.name}/{SHARED.name} beside the project")
    from rag.params import RetrieverParams
    from rag.retrieval.encoder import Encoder

    faq = _questions(SHARED / "faq_en" / "faq-en.jsonl.xz", 400)
    qed = _questions(SHARED / "qed_en" / "qed-train-first-release.jsonl.xz", 150)
    encoder = Encoder(RetrieverParams(), tmp_path)
    own, other = encoder.encode(faq, "query"), encoder.encode(qed, "query")
    order = np.random.default_rng(13).permutation(len(own))
    own = own[order]
    reference = calibrate(own[:250], WINDOW, alpha=0.01, seed=13)
    windows = [other[start : start + WINDOW] for start in (0, 50, 100)]
    assert alarms(reference, windows) == [2]
    calm = [own[start : start + WINDOW] for start in (250, 300, 350)]
    assert alarms(reference, calm) == []


def _questions(path: Path, count: int) -> list[str]:
    found = []
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            found.append(row["q"] if "q" in row else row["question_text"])
            if len(found) == count:
                break
    return found
