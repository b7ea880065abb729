"""The verdict of a run: before and after, what was decided and why, where to look.

One record, shown as a table on the terminal, as Markdown in Prefect, and as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.key import SAME
from flows.server import HOST, up_addresses
from flows.workspace import RESULTS, is_apart
from rag.artifacts import STATE_FOLDER, Artifacts
from rag.params import Params
from rag.release.card import METRICS, decision_text, read_metrics
from rag.release.card import metrics_table as markdown_table
from rag.release.history import DRY_RUN, PENDING
from rag.release.redaction import without_credentials

if TYPE_CHECKING:
    from pyarrow import Table as PredictionTable
    from rich.console import Console
    from rich.table import Table

#: Nothing was done.
SKIPPED = "SKIPPED"
_STYLES = {
    "PROMOTE": "green",
    "REJECT": "red",
    "INCONCLUSIVE": "yellow",
    PENDING: "yellow",
    DRY_RUN: "cyan",
    SKIPPED: "cyan",
    SAME: "cyan",
}
_TITLES = {
    "closed_book": "closed book",
    "zero_shot": "untuned",
    "one_shot": "untuned, one example",
    "champion": "champion",
    "tuned": "tuned",
    "oracle": "gold passage given",
}


@dataclass(frozen=True)
class Verdict:
    """How a run ended. `metrics` is metrics.json with the champion as one more system."""

    outcome: str
    reasons: tuple[str, ...]
    key: str
    version: str | None = None
    champion: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    decision: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, for `--json`."""
        return asdict(self)


def of_run(
    artifacts: Artifacts,
    params: Params,
    row: Mapping[str, Any],
    champion: PredictionTable | None,
    *,
    page: str,
) -> Verdict:
    """The verdict of a run that was decided; `row` is its ledger row, `page` its page in MLflow."""
    metrics = read_metrics(artifacts.metrics)
    if champion is not None:
        from rag.evaluation.scoring import summarize

        settings = params.evaluate
        scored = summarize(
            champion, resamples=settings.resamples, confidence=settings.confidence, seed=params.seed
        )
        metrics["systems"] |= scored["systems"]
    return Verdict(
        outcome=str(row["outcome"]),
        reasons=tuple(row["decision"]["reasons"]),
        key=str(row["key"]),
        version=row["version"],
        champion=row["champion"],
        metrics=metrics,
        run_id=row["run_id"],
        links={
            "report": str(_report(artifacts)),
            "run": f"{_mlflow_address(artifacts, params)}/{page}",
        },
        decision=row["decision"],
    )


def nothing_changed(artifacts: Artifacts, row: Mapping[str, Any], champion: str | None) -> Verdict:
    """The verdict of a run whose key has been concluded before, as in that ledger row.

    `champion` is the live version: since that row it may have been rolled back.
    """
    return Verdict(
        outcome=SKIPPED,
        reasons=(
            f"nothing changed since {row['time']}: same data, code, params and models; "
            f"the verdict was {row['outcome']}",
            "to run every stage again: ragloop run --force",
        ),
        key=str(row["key"]),
        champion=champion,
        metrics=read_metrics(artifacts.metrics) if artifacts.metrics.exists() else {},
    )


def same_as_champion(artifacts: Artifacts, key: str, version: str) -> Verdict:
    """The verdict of a run that was made from what the champion was made from."""
    reason = "same data, code, params and models as the champion: there is nothing to compare"
    return Verdict(
        outcome=SAME,
        reasons=(reason,),
        key=key,
        version=version,
        champion=version,
        metrics=read_metrics(artifacts.metrics),
    )


def print_verdict(console: Console, verdict: Verdict) -> None:
    """The before/after table and the decision, on a terminal."""
    from rich.markup import escape

    console.print()
    if verdict.metrics:
        console.print(metrics_table(verdict.metrics))
        console.print()
    style = _STYLES.get(verdict.outcome, "red")
    console.print(f"[bold {style}]Verdict: {verdict.outcome}[/]")
    console.print(f"  {escape(headline(verdict))}")
    for reason in verdict.reasons:
        console.print(f"    [dim]·[/] {escape(reason)}", soft_wrap=True)
    for name, link in verdict.links.items():
        console.print(f"    [dim]{name:8}[/] {escape(link)}", soft_wrap=True)
    console.print()


def metrics_table(metrics: Mapping[str, Any]) -> Table:
    """A row for each metric, a column for each system from the weakest to ours."""
    from rich import box
    from rich.table import Table

    systems = [name for name in _TITLES if name in metrics["systems"]]
    table = Table(
        title=f"{metrics['n_questions']} test questions of unseen documents, "
        f"percent ({metrics.get('confidence', 0.95):.0%} interval)",
        title_style="dim",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
    )
    table.add_column("", no_wrap=True)
    for system in systems:
        style = "bold" if system == "tuned" else ""
        table.add_column(_TITLES[system], justify="right", style=style, no_wrap=True)
    found = {name for system in systems for name in metrics["systems"][system]}
    names = [name for name in METRICS if name in found] + sorted(found - set(METRICS))
    for name in names:
        table.add_row(name, *(_cell(metrics["systems"][system].get(name)) for system in systems))
    return table


def headline(verdict: Verdict) -> str:
    """The outcome in one sentence."""
    live = f"champion is version {verdict.champion}" if verdict.champion else "no champion yet"
    if verdict.outcome == "PROMOTE":
        return f"version {verdict.version} is the champion now"
    if verdict.outcome == SKIPPED:
        # A run that had no turn has not looked who is champion, and has no key.
        return f"nothing was trained or registered{f'; {live}' if verdict.key else ''}"
    if verdict.outcome == SAME:
        return f"the run gives the champion, version {verdict.champion}, again"
    if verdict.outcome == PENDING:
        waits = f"ragloop promote {verdict.version} --why REASON"
        return f"version {verdict.version} has passed and waits for: {waits}; {live}"
    if verdict.outcome == DRY_RUN:
        return f"a dry run: the decision is recorded and nothing was registered; {live}"
    return f"version {verdict.version} is kept as challenger; {live}"


def verdict_markdown(verdict: Verdict) -> str:
    """The same for a page of Prefect."""
    parts = [f"## {verdict.outcome}: {headline(verdict)}"]
    if verdict.decision:
        parts.append(decision_text(verdict.decision))
    else:
        parts += [f"- {reason}" for reason in verdict.reasons]
    if verdict.metrics:
        parts.append(markdown_table(verdict.metrics))
    parts += [f"- {name}: {link}" for name, link in verdict.links.items()]
    return "\n\n".join(parts)


def _cell(metric: Mapping[str, float] | None) -> str:
    if metric is None:
        return "[dim]-[/]"
    return f"{metric['value']:.1f} [dim]({metric['low']:.1f}–{metric['high']:.1f})[/]"


def _report(artifacts: Artifacts) -> Path:
    """Where the report lies, seen from the project's folder, when the run has ended."""
    if is_apart(artifacts):
        return Path(STATE_FOLDER) / RESULTS / artifacts.report.name
    return artifacts.report.relative_to(artifacts.root)


def _mlflow_address(artifacts: Artifacts, params: Params) -> str:
    """Where MLflow's pages are, or will be as soon as `ragloop up` runs."""
    if params.tracking.uri and params.tracking.uri.startswith("http"):
        return str(without_credentials(params.tracking.uri)).rstrip("/")
    served = up_addresses(artifacts).get("mlflow")
    return served or f"http://{HOST}:{params.schedule.mlflow_port}"
