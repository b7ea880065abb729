"""The report's blocks above its questions, as HTML; each needs no more than its own data.

A block whose data is not there is an empty text, and the page leaves its section out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any

from rag.evaluation.charts import (
    curves_panel,
    dots_panel,
    interval_bars,
    line_panel,
    stacked_bar,
)
from rag.evaluation.plots import curve
from rag.evaluation.report_data import (
    CHAMPION,
    ORACLE,
    Row,
    confidence,
    outcome,
    reference_of,
)
from rag.evaluation.report_words import (
    ERRORS,
    NOT_A_SCORE,
    OUTCOMES,
    cell,
    error_name,
    metric_name,
    metric_order,
    number,
    p_value,
    pairs,
    plain,
    signed,
    span,
    system_name,
    table,
    tone,
)

Metrics = Mapping[str, Any]
_BOUND = " (upper bound)"
_DECIDED = {
    "PROMOTE": ("up", "Promoted"),
    "REJECT": ("down", "Rejected"),
    "INCONCLUSIVE": ("same", "Inconclusive"),
    "ERROR": ("down", "Not decided"),
}
#: Beyond these an interval stands below its value, no longer beside it.
_COLUMNS_WITH_ROOM = 4
#: In the table alone: they say what others say.
_WITHOUT_BARS = ("chrf", "rouge1", "rouge2")
#: Answers in one dot of the calibration plot, at least; fewer say nothing about a share.
_ANSWERS_A_DOT = 10
_DOTS = 10


def headline(
    metrics: Metrics, systems: Sequence[str], decision: Mapping[str, Any] | None = None
) -> str:
    """The verdict: the gate's where it has decided, else that of the numbers; then the figures."""
    judged, reference = systems[0], reference_of(systems)
    own = metrics["systems"][judged]
    level = f"{100 * metrics['confidence']:g} % interval"
    sentence = f"{level} {span(own['f1'])}."
    style, verdict = "same", f"{system_name(judged)} system"
    if reference:
        change = metrics["differences"][reference]["f1"]
        style = tone(change)
        than = f"the {_in_a_sentence(reference)}"
        verdict = {
            "up": f"Better than {than}",
            "down": f"Worse than {than}",
            "same": f"No clear difference from {than}",
        }[style]
        before = metrics["systems"][reference]["f1"]["value"]
        sentence = (
            f"F1 went from {before:.1f} to {own['f1']['value']:.1f}: "
            f"<b>{signed(change['value'])} points</b>, {level} {span(change, sign=True)}."
        )
    if decision:
        style, decided = _DECIDED[decision["outcome"]]
        verdict = f"{decided}: {verdict[0].lower()}{verdict[1:]}"
    tiles = [("Test questions", f"{metrics['n_questions']:,}"), ("F1", number(own["f1"]))]
    tiles.append(("Exact match", number(own["exact_match"])))
    if "recall@5" in own:
        tiles.append(("Found in top 5", number(own["recall@5"]) + "&thinsp;%"))
    tiles.append(("Abstained", number(own[NOT_A_SCORE]) + "&thinsp;%"))
    return (
        f'<h1 class="verdict {style}">{escape(verdict)}</h1><p class="lead">{sentence}</p>'
        f"{pairs(tiles, 'tiles')}"
    )


def gate(decision: Mapping[str, Any] | None) -> str:
    """What the gate decided, why, and every threshold with what was measured against it."""
    if decision is None:
        return ""
    reasons = "".join(f"<li>{plain(reason)}</li>" for reason in decision["reasons"])
    rows = [_check(check) for check in decision["checks"]]
    shown = table(
        ("Check", "Measured", "Must exceed", "Result"),
        rows,
        style="numbers checks",
        caption="Checks of the gate",
    )
    return f'<ul class="reasons">{reasons}</ul>{shown if rows else ""}'


def comparison(metrics: Metrics, systems: Sequence[str]) -> str:
    """Every metric of every system, and the paired change on what it is compared with."""
    judged, reference = systems[0], reference_of(systems)
    heads = [f"{system_name(name)}{_BOUND if name == ORACLE else ''}" for name in systems]
    if reference:
        heads.insert(2, f"Change on {system_name(reference).lower()}")
    rows = []
    for metric in metric_order(metrics["systems"][judged]):
        cells = [
            cell(metrics["systems"][name].get(metric), style="bound" if name == ORACLE else "")
            for name in systems
        ]
        if reference:
            change = metrics["differences"][reference].get(metric)
            style = "same" if change is None or metric == NOT_A_SCORE else tone(change)
            chance = _chance(metrics, reference, metric)
            cells.insert(2, cell(change, sign=True, style=f"change {style}", more=chance))
        label = f'<th scope="row">{escape(metric_name(metric))}</th>'
        rows.append(f"<tr>{label}{''.join(cells)}</tr>")
    style = f"numbers systems{' many' if len(heads) > _COLUMNS_WITH_ROOM else ''}"
    return table(["Percent", *heads], rows, style=style, caption="Metrics of every system")


def detectable(metrics: Metrics) -> str:
    """How small a difference these questions can show."""
    effect = metrics.get("minimum_detectable_effect") or {}
    shown = [
        f"{value:.1f} points of {metric_name(name)}"
        for name, value in effect.items()
        if name in ("f1", "exact_match")
    ]
    if not shown:
        return ""
    return (
        '<p class="note below">With this many questions a true difference below '
        f"{plain(' or '.join(shown))} will often go unseen.</p>"
    )


def bars(metrics: Metrics, systems: Sequence[str]) -> str:
    """A block of bars with whiskers for each metric."""
    blocks = []
    for metric in metric_order(set(metrics["systems"][systems[0]]) - set(_WITHOUT_BARS)):
        shown = [
            (system_name(name), _bar_style(name, place), metrics["systems"][name][metric])
            for place, name in enumerate(systems)
            if metric in metrics["systems"][name]
        ]
        title = escape(metric_name(metric))
        blocks.append(f'<div class="bars"><h3>{title}</h3>{interval_bars(shown)}</div>')
    return "".join(blocks)


def outcomes(systems: Mapping[str, Sequence[Row]]) -> str:
    """Right, partly right, wrong and abstained answers of each system."""
    counted = {name: Counter(outcome(row) for row in rows) for name, rows in systems.items()}
    return _stacks(counted, OUTCOMES)


def errors(metrics: Metrics, systems: Sequence[str]) -> str:
    """Where answers went wrong: the passage not found, misread, or declined."""
    found = metrics.get("errors") or {}
    counted = {name: Counter(dict(found[name])) for name in systems if name in found}
    if not counted:
        return ""
    labels = {label for counts in counted.values() for label in counts}
    names = {label: name for label, name in ERRORS.items() if label in labels}
    return _stacks(counted, names | {label: error_name(label) for label in labels - set(names)})


def training(history: Sequence[Mapping[str, Any]]) -> str:
    """Loss and dev scores over the steps."""
    panels = []
    for name, title, decimals in (("loss", "Training loss", 2), ("dev_f1", "F1 on dev", 1)):
        points = [(float(record["step"]), float(record[name])) for record in curve(history, name)]
        if points:
            smooth = name == "loss"
            panels.append(
                line_panel(title, points, decimals=decimals, smooth=smooth, from_zero=True)
            )
    return "".join(panels) or '<p class="empty">Nothing was trained in this run.</p>'


def certainty(metrics: Metrics, systems: Mapping[str, Sequence[Row]]) -> str:
    """Two plots: risk against coverage, and whether confidence is what it says."""
    panels = []
    abstention = metrics.get("abstention") or {}
    curves = [
        (system_name(name), f"line-{min(place, 2)}", abstention[name]["curve"])
        for place, name in enumerate(systems)
        if name != ORACLE and len((abstention.get(name) or {}).get("curve", ())) > 1
    ]
    if curves:
        judged = abstention.get(next(iter(systems)))
        panels.append(
            curves_panel(
                "Risk by coverage",
                curves,
                summary=f"AURC {judged['aurc']:.1f}" if judged else "",
                ends=("0 %", "100 % answered"),
            )
        )
    dots = _calibration(next(iter(systems.values())))
    if dots:
        panels.append(
            dots_panel(
                "Right by confidence",
                dots,
                summary=f"{len(dots)} groups",
                ends=("0 %", "100 % confident"),
            )
        )
    return "".join(panels)


def _calibration(rows: Sequence[Row]) -> list[tuple[float, float, str]]:
    """(mean confidence, share right, words) of groups of answers of equal size."""
    said = [(confidence(row), row["exact_match"]) for row in rows if not row["abstained"]]
    known = sorted((sure, right) for sure, right in said if sure is not None)
    groups = min(_DOTS, len(known) // _ANSWERS_A_DOT)
    if groups < 2:
        return []
    edges = [round(place * len(known) / groups) for place in range(groups + 1)]
    dots = []
    for start, end in pairwise(edges):
        part = known[start:end]
        sure, right = (100.0 * sum(values) / len(part) for values in zip(*part, strict=True))
        text = f"{len(part)} answers: confidence {sure:.0f} %, right {right:.0f} %"
        dots.append((sure, right, text))
    return dots


def facts(given: Mapping[str, Any], metrics: Metrics) -> str:
    """What the run was made with, as it is, and how its scores were made."""
    scored = {
        "Scoring rules": metrics.get("metrics_version"),
        **{f"{name} signature": text for name, text in (metrics.get("signatures") or {}).items()},
    }
    shown = {**given, **{name: value for name, value in scored.items() if value}}
    return pairs([(str(name), plain(value)) for name, value in shown.items()], "facts")


def _check(check: Mapping[str, Any]) -> str:
    name = f"{plain(metric_name(check['metric']))}<small>{plain(check['name'])}</small>"
    threshold = f"{check['threshold']:.1f}".replace("-", "−")
    style, word = ("up", "passed") if check["passed"] else ("down", "failed")
    return (
        f'<tr><th scope="row">{name}</th>{cell(check, sign=check["name"] != "floor")}'
        f'<td>{threshold}</td><td class="change {style}"><b>{word}</b></td></tr>'
    )


def _chance(metrics: Metrics, reference: str, metric: str) -> str:
    """The p value of a change, where it was tested."""
    found = ((metrics.get("tests") or {}).get(reference) or {}).get(metric) or {}
    value = found.get("permutation_p")
    return "" if value is None else p_value(value)


def _stacks(counted: Mapping[str, Mapping[str, int]], names: Mapping[str, str]) -> str:
    blocks = []
    for system, counts in counted.items():
        parts = [(label, kind, counts.get(kind, 0)) for kind, label in names.items()]
        name = escape(system_name(system))
        blocks.append(f'<div class="outcome"><span>{name}</span>{stacked_bar(parts)}</div>')
    items = [f'<li class="{plain(kind)}">{escape(name)}</li>' for kind, name in names.items()]
    return f'{"".join(blocks)}<ul class="legend">{"".join(items)}</ul>'


def _bar_style(system: str, place: int) -> str:
    return "system-bound" if system == ORACLE else f"system-{min(place, 2)}"


def _in_a_sentence(system: str) -> str:
    name = system_name(system).lower()
    return name if system == CHAMPION else f"{name} system"
