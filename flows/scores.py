"""What `ragloop score` shows in a terminal: a table of metrics with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flows import terminal

if TYPE_CHECKING:
    from rich.table import Table

_TITLES = {"exact_match": "exact match", "f1": "F1", "bleu": "BLEU"}
_SPLITS = {"has_answer": "with an answer", "no_answer": "without an answer"}
_MISSING_SHOWN = 5


def print_scores(found: Mapping[str, Any]) -> None:
    """The table, then the questions without a prediction and the best thresholds, if there are."""
    from rich.markup import escape

    console = terminal.result_console()
    console.print(scores_table(found))
    for key, slices in found.get("slices", {}).items():
        console.print(slices_table(key, slices, list(found["metrics"])))
    missing = found["missing"]
    if missing:
        shown = ", ".join(missing[:_MISSING_SHOWN])
        more = f" and {len(missing) - _MISSING_SHOWN} more" if len(missing) > _MISSING_SHOWN else ""
        count = f"{len(missing)} of {found['n_questions']} questions have no prediction"
        console.print(f"[yellow]{count}[/] and count as wrong: {escape(shown)}{more}")
    if "no_answer" in found:
        best = found["no_answer"]
        for key, title in (("exact", "exact match"), ("f1", "F1")):
            console.print(
                f"best threshold for no answer by {title}: {best[f'best_{key}_thresh']:.4g} "
                f"gives {best[f'best_{key}']:.1f}"
            )
    console.print(f"[dim]BLEU: {escape(found['bleu_signature'])}[/]", soft_wrap=True)


def scores_table(found: Mapping[str, Any]) -> Table:
    """A row for each metric; a column for all questions and for those with and without answers."""
    columns = {"all": {"n": found["n_questions"], "metrics": found["metrics"]}}
    columns |= {_SPLITS[name]: part for name, part in found.get("splits", {}).items()}
    resampling = found["resampling"]
    table = _table(
        f"{found['n_questions']} questions, {found['n_answerable']} with an answer; percent "
        f"({resampling['confidence']:.4g} intervals of {resampling['resamples']} resamples)"
    )
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right", style="bold" if name == "all" else "")
    for metric in found["metrics"]:
        cells = (_cell(part["metrics"].get(metric)) for part in columns.values())
        table.add_row(_title(metric), *cells)
    return table


def slices_table(key: str, slices: Mapping[str, Any], metrics: Sequence[str]) -> Table:
    """A row for each value of a key, a column for each metric; small slices are marked."""
    from rich.markup import escape

    table = _table(f"by {escape(key)}")
    table.add_column("", no_wrap=True)
    table.add_column("questions", justify="right", no_wrap=True)
    for metric in metrics:
        table.add_column(_title(metric), justify="right")
    for value, part in slices.items():
        count = f"[yellow]{part['n']}, few[/]" if part["small"] else str(part["n"])
        cells = (_cell(part["metrics"].get(metric)) for metric in metrics)
        table.add_row(escape(value), count, *cells)
    return table


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(
        title=title,
        title_style="dim",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
    )


def _title(metric: str) -> str:
    return _TITLES.get(metric, metric.replace("rouge", "ROUGE-"))


def _cell(metric: Mapping[str, float] | None) -> str:
    if metric is None:
        return "[dim]-[/]"
    return f"{metric['value']:.1f} [dim]({metric['low']:.1f}–{metric['high']:.1f})[/]"
