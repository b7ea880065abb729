"""What a reviewer reads first: the verdict and the numbers as Markdown, for run and model pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.errors import ReleaseError
from rag.params import Params

Metrics = Mapping[str, Any]

#: In the order of the report; a metric that no system has is left out.
METRICS = ("f1", "exact_match", "bleu", "rougeL", "recall@1", "recall@5", "mrr")
#: Shown in lists of releases, where there is room for few.
HEADLINE_METRICS = ("f1", "exact_match", "recall@5")
#: The same as names of tags.
METRIC_TAGS = tuple(name.replace("@", "_at_") for name in HEADLINE_METRICS)

#: MLflow draws tables without any space between columns.
_GAP = "&emsp;"
_TITLES = {
    "tuned": "tuned",
    "zero_shot": "untuned",
    "one_shot": "one-shot",
    "closed_book": "closed book",
    "oracle": "oracle (upper bound)",
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
        name.replace("@", "_at_"): _cell(tuned[name]) for name in HEADLINE_METRICS if name in tuned
    }


def metrics_table(metrics: Metrics) -> str:
    """A Markdown table: a row for each metric, a column for each system."""
    systems = [name for name in metrics["systems"] if metrics["systems"][name]]
    rows = [
        [name, *(_cell(metrics["systems"][system].get(name)) for system in systems)]
        for name in METRICS
        if any(name in metrics["systems"][system] for system in systems)
    ]
    header = ["percent", *(_TITLES.get(system, system) for system in systems)]
    return _table(header, rows, numeric=True)


def decision_text(decision: Mapping[str, Any]) -> str:
    """The outcome with its first reason as plain text, then a Markdown table of every check.

    MLflow shows the first line alone in lists, as it is, and folds long descriptions after a few.
    """
    first, *others = decision["reasons"] or ["no reason was given"]
    compared = decision["compared_with"] or "nothing"
    lines = [
        f"{decision['outcome']}: {first}",
        "",
        *(f"- {reason}" for reason in others),
        *([""] if others else []),
        f"Compared with {compared} on {decision['n_questions']} test questions.",
    ]
    rows = [
        [
            "passed" if check["passed"] else "**failed**",
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
        lines += ["", _table(header, rows)]
    return "\n".join(lines)


def run_note(metrics: Metrics | None, decision: Mapping[str, Any] | None) -> str:
    """The description of a run: the verdict first, then the numbers."""
    parts = [decision_text(decision)] if decision else []
    if metrics:
        title = f"### Scores on {metrics['n_questions']} test questions of unseen documents"
        parts += [title, metrics_table(metrics)]
        parts.append("Every answer with its evidence: artifacts `report.html`, `answers.json`.")
    return "\n\n".join(parts)


def model_card(
    params: Params,
    metrics: Metrics,
    decision: Mapping[str, Any] | None,
    lineage: Mapping[str, str],
    reading: Mapping[str, str],
) -> str:
    """The description of a model version; `reading` has facts about how it reads, by name."""
    reader, retriever = params.reader, params.retriever
    made_from = [
        [name.replace("_", " "), f"`{lineage[name]}`"]
        for name in ("git_commit", "data_hash", "dvc_lock", "fingerprint", "run_key", "bundle")
        if lineage.get(name)
    ]
    parts = [
        run_note(metrics, decision),
        "### What it is",
        f"Retriever `{retriever.model}` (tuned: {retriever.mode}), "
        f"reader `{reader.model}` ({reader.kind}). Answers with evidence, or abstains.",
        f'`mlflow.pyfunc.load_model("models:/{params.release.name}@champion").predict(["..."])`',
        _table(["how it reads", ""], [[name, value] for name, value in reading.items()]),
        "### Limits",
        "It answers from the documents it was released with and knows nothing newer. The scores "
        "are for questions like the test questions; an answer is only as good as its passages.",
    ]
    if made_from:
        parts += ["### Made from", _table(["what", "identity"], made_from)]
    return "\n\n".join(parts)


def _cell(metric: Mapping[str, float] | None) -> str:
    if metric is None:
        return ""
    return f"{metric['value']:.1f} ({metric['low']:.1f} to {metric['high']:.1f})"


def _table(header: list[str], rows: list[list[str]], *, numeric: bool = False) -> str:
    rule = ["---", *(["--:" if numeric else "---"] * (len(header) - 1))]
    spaced = [[f"{cell}{_GAP}" for cell in row] for row in [header, *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [spaced[0], rule, *spaced[1:]])
