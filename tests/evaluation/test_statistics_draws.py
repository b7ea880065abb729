"""Draws of clusters: by hand, against the multinomial distribution, alike whatever the blocks."""

from __future__ import annotations

import time

import numpy as np
import pytest

from rag.evaluation import resampling
from rag.evaluation.resampling import clusters_of, leave_one_out, resampled_sums
from rag.evaluation.statistics import Resampling, bootstrap_intervals, mean_of


def test_rows_are_added_up_by_cluster_and_equal_clusters_merged() -> None:
    columns = np.array([[1.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    of_documents = clusters_of(columns, ["b", "a", "b"])
    assert of_documents.sums.tolist() == [[2.0, 1.0], [5.0, 2.0]]
    assert of_documents.sizes.tolist() == [1, 2]
    assert of_documents.total.tolist() == [[7.0, 3.0]]
    many = clusters_of(np.tile([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]], (20, 1)), None)
    assert many.sums.tolist() == [[0.0, 1.0], [1.0, 1.0]]
    assert many.times.tolist() == [40, 20]
    assert (many.count, many.total.tolist()) == (60, [[20.0, 60.0]])


def test_rows_that_only_seem_equal_are_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "_MIX", 1.0)  # now (1, 2) and (2, 1) mix into one number
    columns = np.tile([[1.0, 2.0], [2.0, 1.0]], (50, 1))
    assert clusters_of(columns, None).times.tolist() == [1] * 100


def counts_drawn(columns: np.ndarray, seed: int = 3, resamples: int = 20_000) -> np.ndarray:
    return resampled_sums(clusters_of(columns, None), resamples, seed)


@pytest.mark.parametrize("clusters_a_block", [2**13, 3])
def test_each_cluster_is_drawn_as_a_multinomial_says(
    monkeypatch: pytest.MonkeyPatch, clusters_a_block: int
) -> None:
    monkeypatch.setattr(resampling, "_BLOCK", clusters_a_block)
    groups = 8
    times = counts_drawn(np.eye(groups))  # (R, G): how often each cluster was drawn
    assert (times.sum(axis=1) == groups).all()
    assert times.mean(axis=0) == pytest.approx(np.ones(groups), abs=0.03)
    expected = np.eye(groups) - 1.0 / groups  # G (diag(p) - p p') with p = 1 / G
    assert np.cov(times.T) == pytest.approx(expected, abs=0.04)
    none = (times == 0).mean()
    assert none == pytest.approx((1 - 1 / groups) ** groups, abs=0.005)


def test_merged_clusters_are_drawn_from_the_same_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scores = np.repeat([0.0, 0.5, 1.0], [300, 100, 200])
    columns = np.column_stack([scores, np.ones(600)])
    merged = counts_drawn(columns)[:, 0]
    monkeypatch.setattr(resampling, "_DRAWS_A_COUNT", 1000)  # merging never pays
    single = counts_drawn(columns)[:, 0]
    assert len(clusters_of(columns, None).times) == 600
    levels = [0.025, 0.25, 0.5, 0.75, 0.975]
    assert np.quantile(merged, levels) == pytest.approx(np.quantile(single, levels), abs=1.0)
    assert merged.std() == pytest.approx(np.sqrt(600) * scores.std(), rel=0.02)


def test_equal_seeds_draw_alike_and_batches_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for columns in (np.random.default_rng(2).random((40, 3)), np.tile(np.eye(2), (40, 1))):
        whole = counts_drawn(columns, resamples=500)
        assert (counts_drawn(columns, resamples=500) == whole).all()
        assert (counts_drawn(columns, seed=4, resamples=500) != whole).any()
        monkeypatch.setattr(resampling, "_DRAWS_AT_ONCE", 170)
        assert counts_drawn(columns, resamples=500) == pytest.approx(whole, abs=1e-12)
        monkeypatch.undo()


def test_leaving_out_one_cluster_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    clusters = clusters_of(np.array([[3.0, 1.0], [0.0, 1.0], [6.0, 1.0]]), None)
    monkeypatch.setattr(resampling, "_BLOCK", 2)
    assert leave_one_out(clusters, mean_of(0, 1)).tolist() == [3.0, 4.5, 1.5]


def test_ten_thousand_clusters_take_seconds_and_little_memory() -> None:
    columns = np.random.default_rng(6).random((10_000, 12))
    start = time.process_time()
    found = bootstrap_intervals(
        columns, {"ratio": mean_of(0, 11)}, None, Resampling(1_000, 0.95, 1), bounds=(0.0, 2.0)
    )["ratio"]
    assert time.process_time() - start < 1.0  # a tenth of the usual 10,000 resamples
    assert found.low < found.value < found.high
