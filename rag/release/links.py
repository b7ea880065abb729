"""Addresses of MLflow's pages below that of its server, and the list of them in a run's note.

They begin with `#`, so a link in a description leads to the same server that shows it.
"""

from __future__ import annotations

import json
from urllib.parse import quote

#: The menus of training, not of agents.
_TRAINING = "workflowType=machine_learning"


def run_page(experiment_id: str, run_id: str, place: str = "") -> str:
    """A run, or a place of it: `model-metrics`, `traces`, `artifacts/report.html`."""
    tail = f"/{place}" if place else ""
    return f"#/experiments/{experiment_id}/runs/{run_id}{tail}?{_TRAINING}"


def compare_page(experiment_id: str, run_ids: tuple[str, ...]) -> str:
    """Runs side by side: params, metrics, and their curves."""
    runs, experiments = (quote(json.dumps(names)) for names in (list(run_ids), [experiment_id]))
    return f"#/compare-runs?runs={runs}&experiments={experiments}&{_TRAINING}"


def curves_page(experiment_id: str, run_ids: tuple[str, ...]) -> str:
    """The charts of these runs alone, drawn together."""
    listed = ", ".join(f"'{run_id}'" for run_id in run_ids)
    chosen = quote(f"attributes.run_id IN ({listed})")
    charts = f"searchFilter={chosen}&compareRunsMode=CHART"
    return f"#/experiments/{experiment_id}/runs?{charts}&{_TRAINING}"


def run_links(experiment_id: str, run_id: str, champion_run: str | None) -> str:
    """A line of Markdown: where a reviewer goes from a run, the champion's run beside it too."""
    places = {
        "report": "artifacts/report.html",
        "checks of the gate": "artifacts/checks.json",
        "every answer": "artifacts/answers.json",
        "slices": "artifacts/slices.json",
        "curves": "model-metrics",
        "traces": "traces",
    }
    links = {name: run_page(experiment_id, run_id, place) for name, place in places.items()}
    if champion_run not in (None, run_id):
        both = (run_id, str(champion_run))
        links["**compare with the champion**"] = compare_page(experiment_id, both)
        links["**curves of both**"] = curves_page(experiment_id, both)
    return "Open: " + " · ".join(f"[{name}]({address})" for name, address in links.items())
