"""Hand-made tables and numbers for the report: a champion, slices, errors, tests, abstention."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from rag.evaluation.scoring import summarize

DECISION = {
    "outcome": "REJECT",
    "reasons": ["f1 -10.0 points against champion: <not> enough"],
    "checks": [
        {
            "name": "guard against champion",
            "metric": "exact_match",
            "value": -10.0,
            "low": -20.0,
            "high": 0.0,
            "threshold": -2.0,
            "passed": False,
            "detail": "",
        }
    ],
    "compared_with": "champion",
    "n_questions": 4,
    "params": {},
}
SLICES = {
    "type": {"which": ["q1"], "when": ["q2"], "where": ["q3"], "who": ["q4"]},
    "answerable": {"yes": ["q1", "q2", "q3"], "no": ["q4"]},
}


def labelled(table: pa.Table) -> pa.Table:
    """The table with its column `error`: the one wrong answer, q3, was not found."""
    if "error" in table.schema.names:
        table = table.drop_columns("error")
    labels = ["retrieval" if place == 2 else None for place in range(table.num_rows)]
    return table.append_column("error", pa.array(labels, pa.string()))


def champion_of(table: pa.Table) -> pa.Table:
    """A champion that answers q3 rightly and q1 wrongly; otherwise it is the tuned system."""
    rows = table.to_pylist()[:4]
    for row in rows:
        row["system"] = "champion"
    rows[0].update(prediction="a boat", exact_match=0.0, f1=0.0, rougeL=0.0)
    rows[2].update(prediction="北京", exact_match=1.0, f1=1.0, rougeL=1.0)
    return pa.Table.from_pylist(rows, schema=table.schema)


def reviewed_metrics(table: pa.Table) -> dict[str, Any]:
    """metrics.json of both tables with every block that it may have."""
    together = pa.concat_tables([table, champion_of(table)])
    metrics = summarize(together, resamples=200, confidence=0.9, seed=1)
    return metrics | {
        "metrics_version": "v1-abc",
        "signatures": {"bleu": "tok:13a"},
        "minimum_detectable_effect": {"f1": 4.25, "mrr": 1.0},
        "tests": {"champion": {"f1": {"permutation_p": 0.5}, "exact_match": {"permutation_p": 0}}},
        "slices": {
            "type": {
                "which": a_slice(50, small=False, tuned=60.0, champion=50.0),
                "when": a_slice(40, small=False, tuned=20.0, champion=50.0),
                "where": a_slice(3, small=True, tuned=0.0, champion=100.0),
            },
        },
        "errors": {
            "tuned": {"right": 3, "retrieval": 1, "reading": 0},
            "zero_shot": {"right": 1, "retrieval": 1, "reading": 2},
        },
        "abstention": {
            "tuned": {"aurc": 12.5, "curve": [[25.0, 0.0], [100.0, 25.0]]},
            "champion": {"aurc": 20.0, "curve": [[25.0, 0.0], [100.0, 50.0]]},
        },
    }


def a_slice(n: int, *, small: bool, **f1: float) -> dict[str, Any]:
    """One value of a dimension; an interval is 10 points to each side, of a change 9 downwards."""
    systems = {
        name: {
            metric: {"value": value, "low": value - 10.0, "high": value + 10.0}
            for metric in ("f1", "exact_match")
        }
        for name, value in f1.items()
    }
    gain = f1["tuned"] - f1["champion"]
    paired = {"f1": {"value": gain, "low": gain - 9.0, "high": gain + 10.0}}
    return {
        "n": n,
        "small": small,
        "systems": systems,
        "differences": {"champion": paired},
        "errors": {"right": n - 1, "reading": 1},
    }
