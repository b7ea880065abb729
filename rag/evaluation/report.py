"""report.html: one file that opens anywhere, offline, and says whether the training helped.

At the top the answer: the change of F1 with its interval, the table of all systems, bars, the
training curve. Below, every test question with its answers and evidence. Text, style and script
live in `report_template/` and are put into the page; a content security policy forbids the page to
load anything or to run any other script. Equal inputs give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

import pyarrow as pa

from rag.errors import MetricError
from rag.evaluation.charts import interval_bars, line_panel, stacked_bar
from rag.evaluation.plots import curve
from rag.evaluation.report_data import (
    ORACLE,
    Row,
    baselines,
    outcome,
    question_data,
    rows_by_system,
)

SYSTEMS = {
    "tuned": "Tuned",
    "zero_shot": "Untuned",
    "one_shot": "One-shot",
    "closed_book": "Closed book",
    ORACLE: "Oracle",
}
METRICS = {
    "f1": "F1",
    "exact_match": "Exact match",
    "bleu": "BLEU",
    "rougeL": "ROUGE-L",
    "recall@1": "Recall@1",
    "recall@5": "Recall@5",
    "mrr": "MRR",
    "abstention_rate": "Abstained",
}
_OUTCOMES = {
    "right": "Right",
    "partly": "Partly right",
    "wrong": "Wrong",
    "abstained": "Abstained, though answerable",
}
_NOT_A_SCORE = "abstention_rate"
_BOUND = " (upper bound)"


def render_report(
    predictions: pa.Table,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> str:
    """The page as text.

    `predictions` is the table of `records.PREDICTIONS`, its first system the one that is judged and
    the second its baseline, an oracle the last; `metrics` is from `scoring.summarize`, `history`
    from history.jsonl; `facts` are shown as they are. Raises MetricError when metrics and
    predictions do not agree.
    """
    systems = rows_by_system(predictions)
    if set(systems) != set(metrics["systems"]):
        raise MetricError(
            f"report: metrics of {', '.join(metrics['systems'])} "
            f"but predictions of {', '.join(systems)}"
        )
    data = question_data(systems)
    data["names"] = [_system(name) for name in systems]
    script, style = _template("report.js"), _template("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _fill(
        _template("report.html"),
        {
            "script_hash": digest,
            "style": style,
            "script": script,
            "data": _json_for_html(data),
            "headline": _headline(metrics, systems),
            "comparison": _comparison(metrics, list(systems)),
            "bars": _bars(metrics, list(systems)),
            "outcomes": _outcomes(systems),
            "training": _training(history),
            "facts": _facts(facts),
        },
    )


def _headline(metrics: Mapping[str, Any], systems: Mapping[str, Sequence[Row]]) -> str:
    judged, others = next(iter(systems)), baselines(list(systems))
    own = metrics["systems"][judged]
    level = f"{100 * metrics['confidence']:g} % interval"
    sentence = f"{level} {_range(own['f1'])}."
    tone, verdict = "same", f"{_system(judged)} system"
    if others:
        baseline = others[0]
        change = metrics["differences"][baseline]["f1"]
        than = f"the {_system(baseline).lower()} system"
        tone = _tone(change)
        verdict = {
            "up": f"Better than {than}",
            "down": f"Worse than {than}",
            "same": f"No clear difference from {than}",
        }[tone]
        before = metrics["systems"][baseline]["f1"]["value"]
        sentence = (
            f"F1 went from {before:.1f} to {own['f1']['value']:.1f}: "
            f"<b>{_signed(change['value'])} points</b>, {level} {_range(change, signed=True)}."
        )
    tiles = [("Test questions", f"{metrics['n_questions']:,}"), ("F1", _value(own["f1"]))]
    tiles += [("Exact match", _value(own["exact_match"]))]
    if "recall@5" in own:
        tiles.append(("Found in top 5", _value(own["recall@5"]) + "&thinsp;%"))
    tiles.append(("Abstained", _value(own[_NOT_A_SCORE]) + "&thinsp;%"))
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in tiles)
    return (
        f'<p class="verdict {tone}">{escape(verdict)}</p><p class="lead">{sentence}</p>'
        f'<dl class="tiles">{shown}</dl>'
    )


def _comparison(metrics: Mapping[str, Any], systems: Sequence[str]) -> str:
    judged, others = systems[0], baselines(systems)
    heads = [f"{_system(name)}{_BOUND if name == ORACLE else ''}" for name in systems]
    if others:
        heads.insert(2, f"Change on {_system(others[0]).lower()}")
    rows = []
    for metric in _metric_order(metrics["systems"][judged]):
        cells = [
            _cell(metrics["systems"][name].get(metric), style="bound" if name == ORACLE else "")
            for name in systems
        ]
        if others:
            change = metrics["differences"][others[0]].get(metric)
            tone = "same" if change is None or metric == _NOT_A_SCORE else _tone(change)
            cells.insert(2, _cell(change, signed=True, style=f"change {tone}"))
        label = f'<th scope="row">{escape(METRICS.get(metric, metric))}</th>'
        rows.append(f"<tr>{label}{''.join(cells)}</tr>")
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in ["Percent", *heads])
    return (
        f'<table class="numbers"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _cell(interval: Mapping[str, float] | None, *, signed: bool = False, style: str = "") -> str:
    if interval is None:
        return '<td class="none" title="does not apply">–</td>'
    value = _signed(interval["value"]) if signed else _value(interval)
    ends = _range(interval, signed=signed)
    return f'<td class="{style}"><b>{value}</b><small>{ends}</small></td>'


def _bars(metrics: Mapping[str, Any], systems: Sequence[str]) -> str:
    blocks = []
    for metric in _metric_order(metrics["systems"][systems[0]]):
        bars = [
            (_system(name), _bar_style(name, place), metrics["systems"][name][metric])
            for place, name in enumerate(systems)
            if metric in metrics["systems"][name]
        ]
        title = escape(METRICS.get(metric, metric))
        blocks.append(f'<div class="bars"><h3>{title}</h3>{interval_bars(bars)}</div>')
    return "".join(blocks)


def _bar_style(system: str, place: int) -> str:
    return "system-bound" if system == ORACLE else f"system-{min(place, 2)}"


def _outcomes(systems: Mapping[str, Sequence[Row]]) -> str:
    blocks = []
    for name, rows in systems.items():
        counts = Counter(outcome(row) for row in rows)
        parts = [(label, kind, counts[kind]) for kind, label in _OUTCOMES.items()]
        blocks.append(
            f'<div class="outcome"><span>{escape(_system(name))}</span>{stacked_bar(parts)}</div>'
        )
    legend = "".join(
        f'<li class="{kind}">{escape(label)}</li>' for kind, label in _OUTCOMES.items()
    )
    return f'{"".join(blocks)}<ul class="legend">{legend}</ul>'


def _training(history: Sequence[Mapping[str, Any]]) -> str:
    panels = []
    for name, title, decimals in (("loss", "Training loss", 2), ("dev_f1", "F1 on dev", 1)):
        points = [(float(record["step"]), float(record[name])) for record in curve(history, name)]
        if points:
            smooth = name == "loss"
            panels.append(
                line_panel(title, points, decimals=decimals, smooth=smooth, from_zero=True)
            )
    return "".join(panels) or '<p class="empty">Nothing was trained in this run.</p>'


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">{rows}</dl>'


def _metric_order(found: Mapping[str, Any]) -> list[str]:
    return [name for name in METRICS if name in found] + sorted(set(found) - set(METRICS))


def _system(name: str) -> str:
    return SYSTEMS.get(name, name.replace("_", " ").capitalize())


def _tone(change: Mapping[str, float]) -> str:
    if change["low"] > 0.0:
        return "up"
    return "down" if change["high"] < 0.0 else "same"


def _value(interval: Mapping[str, float]) -> str:
    return f"{interval['value']:.1f}"


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def _range(interval: Mapping[str, float], *, signed: bool = False) -> str:
    ends = (interval["low"], interval["high"])
    low, high = (_signed(end) if signed else f"{end:.1f}" for end in ends)
    return f"{low} to {high}"


def _json_for_html(data: Any) -> str:
    """JSON that cannot end its script element or start a comment in it, whatever the data says."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _template(name: str) -> str:
    folder = resources.files("rag.evaluation") / "report_template"
    return (folder / name).read_text(encoding="utf-8")


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Each `{{name}}` of the template once replaced; what is put in is not looked at again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], template)
