"""The report's table of slices: what gained and what lost, the largest change first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rag.evaluation.charts import stacked_bar
from rag.evaluation.report_data import reference_of
from rag.evaluation.report_words import (
    ERRORS,
    cell,
    error_name,
    plain,
    system_name,
    table,
    tone,
)

_METRIC = "f1"


def slices_table(metrics: Mapping[str, Any], systems: Sequence[str]) -> str:
    """A row for each value of each dimension; empty where there are no slices.

    Slices too small to judge come last and are marked. A slice's name is a button that shows its
    questions.
    """
    found: list[tuple[Any, str]] = []
    reference = reference_of(systems)
    for dimension, values in (metrics.get("slices") or {}).items():
        for value, data in values.items():
            gain = slice_change(data, systems[0], reference)
            order = (bool(data["small"]), -abs(gain["value"] if gain else 0.0), dimension, value)
            name = _name(dimension, value, small=bool(data["small"]))
            found.append((order, f"{name}{_row(data, systems[0], reference, gain)}"))
    if not found:
        return ""
    heads = ["Slice", "Questions", f"F1, {system_name(systems[0]).lower()}"]
    if reference:
        heads += [f"F1, {system_name(reference).lower()}", "Change"]
    heads += ["Exact match", "Where answers went wrong"]
    rows = [f"<tr>{row}</tr>" for _, row in sorted(found, key=lambda item: item[0])]
    shown = table(heads, rows, style="numbers slices", caption="Table of slices")
    return shown + _legend(metrics)


def slice_change(
    data: Mapping[str, Any], judged: str, reference: str | None
) -> Mapping[str, float] | None:
    """The judged system's F1 minus that of the other one, in points; None without another.

    Paired with its interval where the slice has it, else the difference of the two values alone.
    """
    if reference is None:
        return None
    differences: Mapping[str, Any] = data.get("differences") or {}
    paired: Mapping[str, float] | None = differences.get(reference, {}).get(_METRIC)
    ends = [data["systems"].get(name, {}).get(_METRIC) for name in (judged, reference)]
    if paired or None in ends:
        return paired
    return {"value": ends[0]["value"] - ends[1]["value"]}


def _name(dimension: str, value: str, *, small: bool) -> str:
    tag = '<span class="tag">too few to judge</span>' if small else ""
    return (
        f'<th scope="row"><button type="button" class="slice" data-dimension="{plain(dimension)}" '
        f'data-value="{plain(value)}"><small>{plain(dimension.replace("_", " "))}</small> '
        f"{plain(value)}</button>{tag}</th>"
    )


def _row(data: Mapping[str, Any], judged: str, reference: str | None, gain: Any) -> str:
    own = data["systems"][judged]
    cells = [
        f'<td data-label="Questions">{data["n"]:,}</td>',
        cell(own.get(_METRIC), label=f"F1, {system_name(judged).lower()}"),
    ]
    if reference:
        before = data["systems"].get(reference, {}).get(_METRIC)
        cells.append(cell(before, label=f"F1, {system_name(reference).lower()}"))
        known = gain is not None and "low" in gain and not data["small"]
        style = f"change {tone(gain) if known else 'same'}"
        cells.append(cell(gain, sign=True, style=style, label="Change"))
    cells.append(cell(own.get("exact_match"), label="Exact match"))
    counts = data.get("errors") or {}
    labels = [*(label for label in ERRORS if label in counts), *sorted(set(counts) - set(ERRORS))]
    parts = [(error_name(label), label, int(counts[label])) for label in labels]
    cells.append(f'<td class="shares">{stacked_bar(parts) if parts else "–"}</td>')
    return "".join(cells)


def _legend(metrics: Mapping[str, Any]) -> str:
    labels = {
        label
        for values in metrics["slices"].values()
        for data in values.values()
        for label in data.get("errors") or {}
    }
    if not labels:
        return ""
    names = [*(label for label in ERRORS if label in labels), *sorted(labels - set(ERRORS))]
    items = "".join(f'<li class="{plain(it)}">{escape(error_name(it))}</li>' for it in names)
    return f'<ul class="legend">{items}</ul>'
