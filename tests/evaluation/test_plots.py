"""Plot files and charts: what is drawn stands where its value says."""

from __future__ import annotations

from pathlib import Path

import pytest

from rag.errors import MetricError
from rag.evaluation.charts import interval_bars, line_panel, stacked_bar
from rag.evaluation.plots import write_plots

METRICS = {
    "systems": {
        "tuned": {"f1": {"value": 61.2, "low": 57.9, "high": 64.4}},
        "closed_book": {"f1": {"value": 3.0, "low": 1.0, "high": 5.5}},
    },
    "slices": {
        "language": {
            "en": {
                "n": 3,
                "small": True,
                "systems": {"tuned": {"f1": {"value": 50.0, "low": 0.0, "high": 100.0}}},
            }
        }
    },
    "errors": {"tuned": {"right": 2, "reading": 1}},
    "abstention": {"tuned": {"aurc": 25.0, "curve": [[33.3333, 0.0], [100.0, 33.3333]]}},
}
HISTORY = [
    {"step": 1, "epoch": 0.5, "loss": 2.5, "learning_rate": 0.001},
    {"step": 2, "epoch": 1.0, "loss": 1.5, "learning_rate": 0.0005},
    {"step": 2, "dev_f1": 40.0, "dev_exact_match": 30.0},
]


def test_plot_files_hold_what_dvc_draws(tmp_path: Path) -> None:
    paths = write_plots(tmp_path / "plots", METRICS, HISTORY)
    texts = {path.name: path.read_text(encoding="utf-8") for path in paths}
    assert texts == {
        "training.csv": "step,loss,learning_rate\n1,2.5,0.001\n2,1.5,0.0005\n",
        "dev.csv": "step,dev_f1,dev_exact_match\n2,40.0,30.0\n",
        "systems.csv": "system,metric,value,low,high\n"
        "tuned,f1,61.2,57.9,64.4\nclosed_book,f1,3.0,1.0,5.5\n",
        "slices.csv": "dimension,slice,questions,small,system,metric,value,low,high\n"
        "language,en,3,True,tuned,f1,50.0,0.0,100.0\n",
        "errors.csv": "system,error,questions,percent\n"
        "tuned,right,2,66.6667\ntuned,reading,1,33.3333\n",
        "risk_coverage.csv": "system,coverage,risk\ntuned,33.3333,0.0\ntuned,100.0,33.3333\n",
    }


def test_metrics_without_slices_leave_their_tables_empty(tmp_path: Path) -> None:
    write_plots(tmp_path, {"systems": METRICS["systems"]}, HISTORY)
    for name in ("slices", "errors", "risk_coverage"):
        assert (tmp_path / f"{name}.csv").read_text(encoding="utf-8").count("\n") == 1


def test_a_loss_that_is_not_finite_is_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="loss is nan at step 3"):
        write_plots(tmp_path, METRICS, [{"step": 3, "loss": float("nan")}])


def test_bars_and_whiskers_stand_at_their_values() -> None:
    bar = interval_bars([("<Tuned>", "system-0", METRICS["systems"]["tuned"]["f1"])])
    assert 'class="fill" style="width:61.20%"' in bar
    assert 'class="whisker" style="left:57.90%;width:6.50%"' in bar
    assert "&lt;Tuned&gt;" in bar


def test_stacked_bar_leaves_out_nothing_but_zeros() -> None:
    bar = stacked_bar([("Right", "right", 3), ("Wrong", "wrong", 1), ("None", "none", 0)])
    assert 'title="Right: 3 (75 %)"' in bar
    assert 'title="Wrong: 1 (25 %)"' in bar
    assert "None" not in bar


def test_line_runs_from_corner_to_corner() -> None:
    panel = line_panel("F1", [(0, 0.0), (10, 40.0), (20, 80.0)], decimals=1, from_zero=True)
    assert 'points="0.00,100.00 50.00,50.00 100.00,0.00"' in panel
    assert "0.0 → 80.0" in panel
    assert '<span style="top:50.00%">40</span>' in panel


def test_a_long_line_is_thinned_and_a_flat_one_is_drawn() -> None:
    points = [(float(step), 1.0) for step in range(10_000)]
    panel = line_panel("Loss", points, decimals=2, smooth=True, from_zero=True)
    assert len(panel) < 12_000
    assert 'class="raw"' in panel
    assert 'points="50.00,' in line_panel("Loss", [(3.0, 0.0)], decimals=2, from_zero=True)
