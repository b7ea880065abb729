"""What a reviewer reads first: the verdict and the numbers as Markdown, for runs and releases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.errors import ReleaseError

Metrics = Mapping[str, Any]

#: In the order of the report; a metric that no system has is left out.
METRICS = ("f1", "exact_match", "bleu", "rougeL", "recall@1", "recall@5", "mrr")
#: Shown in lists of releases, where there is room for few.
HEADLINE_METRICS = ("f1", "exact_match", "recall@5")
#: The same as names of tags.
METRIC_TAGS = tuple(name.replace("@", "_at_") for name in HEADLINE_METRICS)

#: Of a reason in a tag: MLflow cuts longer ones itself, in the middle of a word.
_WHY_LENGTH = 250
#: MLflow draws tables without any space between columns.
GAP = "&emsp;"
_TITLES = {
    "tuned": "tuned",
    "zero_shot": "untuned",
    "one_shot": "one-shot",
    "closed_book": "closed book",
    "oracle": "oracle (upper bound)",
    "champion": "champion",
}


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of metrics.json."""
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReleaseError(f"{path} is missing; run `ragloop run`") from None
    except ValueError as error:
        raise ReleaseError(f"{path} is not JSON: {error}") from None
    return dict(metrics)


def summarise_metrics(metrics: Metrics) -> dict[str, str]:
    """`{"f1": "61.2 (57.9 to 64.4)"}` for the tuned system."""
    tuned = metrics["systems"]["tuned"]
    return {
        name.replace("@", "_at_"): interval_text(tuned[name])
        for name in HEADLINE_METRICS
        if name in tuned
    }


def metrics_table(metrics: Metrics) -> str:
    """A Markdown table: a row for each metric, a column for each system."""
    systems = [name for name in metrics["systems"] if metrics["systems"][name]]
    rows = [
        [name, *(interval_text(metrics["systems"][system].get(name)) for system in systems)]
        for name in METRICS
        if any(name in metrics["systems"][system] for system in systems)
    ]
    header = ["percent", *(_TITLES.get(system, system) for system in systems)]
    return markdown_table(header, rows, numeric=True)


def decision_text(decision: Mapping[str, Any], links: str = "") -> str:
    """The outcome with its first reason as plain text, then a Markdown table of every check.

    MLflow shows the first line alone in lists, as it is, and folds long descriptions after a few.
    """
    first, *others = decision["reasons"] or ["no reason was given"]
    compared = decision["compared_with"] or "nothing"
    lines = [
        f"{decision['outcome']}: {first}",
        "",
        *([links, ""] if links else []),
        *(f"- {reason}" for reason in others),
        *([""] if others else []),
        f"Compared with {compared} on {decision['n_questions']} test questions.",
    ]
    rows = [
        [
            check_result(check) if check["passed"] else f"**{check_result(check)}**",
            check["name"],
            check["metric"],
            f"{check['value']:.1f}",
            f"{check['low']:.1f} to {check['high']:.1f}",
            f"{check['threshold']:.1f}",
        ]
        for check in decision["checks"]
    ]
    if rows:
        header = ["check", "what", "metric", "value", "interval", "threshold"]
        lines += ["", markdown_table(header, rows)]
    return "\n".join(lines)


def decision_tags(decision: Mapping[str, Any]) -> dict[str, str]:
    """What lists are filtered by: outcome, first reason, opponent, version of the test set.

    The first tags that a page lists are the first that are set.
    """
    reasons = decision["reasons"] or ["no reason was given"]
    return {
        "decision": str(decision["outcome"]),
        "why": str(reasons[0])[:_WHY_LENGTH],
        "compared_with": str(decision["compared_with"] or "nothing"),
        "test_set": str(decision.get("test_set") or "not recorded"),
    }


def run_note(metrics: Metrics | None, decision: Mapping[str, Any] | None, links: str = "") -> str:
    """The description of a run: the verdict first, where to go from here, then the numbers."""
    parts = [decision_text(decision, links)] if decision else [links] if links else []
    if metrics:
        title = f"### Scores on {metrics['n_questions']} test questions of unseen documents"
        parts += [title, metrics_table(metrics)]
    return "\n\n".join(parts)


def check_result(check: Mapping[str, Any]) -> str:
    """What a check says, in a word or three."""
    if not check.get("decides", True):
        return "passed (to be read)" if check["passed"] else "failed (to be read)"
    if check["passed"]:
        return "passed"
    return "failed" if check.get("conclusive", True) else "cannot tell"


def interval_text(metric: Mapping[str, float] | None) -> str:
    """`61.2 (57.9 to 64.4)`; empty where a system does not have the metric."""
    if metric is None:
        return ""
    return f"{metric['value']:.1f} ({metric['low']:.1f} to {metric['high']:.1f})"


def markdown_table(header: list[str], rows: list[list[str]], *, numeric: bool = False) -> str:
    """Markdown whose columns MLflow draws apart; `numeric` aligns all but the first right."""
    rule = ["---", *(["--:" if numeric else "---"] * (len(header) - 1))]
    spaced = [[f"{cell}{GAP}" for cell in row] for row in [header, *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [spaced[0], rule, *spaced[1:]])
