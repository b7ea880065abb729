"""report.html: one file that opens anywhere, offline, and says whether the training helped.

At the top the answer: the verdict, the change of F1 with its interval, the table of all systems,
bars, curves, slices. Below, every test question with its answers and evidence. Text, style and
script live in `report_template/` and are put into the page; a content security policy forbids the
page to load anything or to run any other script. Equal inputs give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from rag.errors import MetricError
from rag.evaluation import report_sections as sections
from rag.evaluation.page import fill_template, json_for_html, template_text
from rag.evaluation.report_data import Slices, question_data, rows_by_system
from rag.evaluation.report_slices import slices_table
from rag.evaluation.report_words import ERRORS, system_name

_TEMPLATE = "report_template"
#: Class, title and explanation of each section; one without content is left out.
_SECTIONS = {
    "gate": (
        "",
        "The gate's decision",
        "The lower end of an interval must exceed its threshold, so that luck is not promoted.",
    ),
    "comparison": (
        "",
        "Before and after",
        "Each value is followed by its confidence interval, resampled by document. The change is "
        "paired: the same questions, answered by both systems.",
    ),
    "bars": ("grid", "Side by side", ""),
    "slices": (
        "",
        "Slices",
        "What gained or lost most comes first, coloured where it is no chance; slices too small to "
        "judge come last. A slice's name shows its questions.",
    ),
}


def render_report(
    predictions: pa.Table,
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    *,
    champion: pa.Table | None = None,
    decision: Mapping[str, Any] | None = None,
    slices: Slices | None = None,
) -> str:
    """The page as text.

    `predictions` is the table of `records.PREDICTIONS`, its first system the one that is judged and
    the second its baseline, an oracle the last; `metrics` is from `scoring.summarize`, `history`
    from history.jsonl; `facts` are shown as they are. `champion` has the answers of what is live,
    under the system `champion`, which `metrics` then has too; `decision` is the gate's, as JSON.
    `slices` are those that the questions can be filtered by. Raises MetricError when metrics and
    predictions do not agree.
    """
    if champion is not None:
        predictions = pa.concat_tables([predictions, champion])
    systems = rows_by_system(predictions)
    if set(systems) != set(metrics["systems"]):
        raise MetricError(
            f"report: metrics of {', '.join(metrics['systems'])} "
            f"but predictions of {', '.join(systems)}"
        )
    names = list(systems)
    data = question_data(systems, slices)
    data["names"] = [system_name(name) for name in names]
    data["errors"] = ERRORS
    script, style = (
        template_text("report_template", "report.js"),
        template_text("report_template", "report.css"),
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    blocks = {
        "gate": sections.gate(decision),
        "comparison": sections.comparison(metrics, names) + sections.detectable(metrics),
        "bars": sections.bars(metrics, names),
        "slices": slices_table(metrics, names),
    }
    return fill_template(
        template_text(_TEMPLATE, "report.html"),
        {
            "script_hash": digest,
            "style": style,
            "script": script,
            "data": json_for_html(data),
            "headline": sections.headline(metrics, names, decision),
            "sections": "".join(_section(name, body) for name, body in blocks.items()),
            "plots": _plots(metrics, systems, history),
            "facts": sections.facts(facts, metrics),
        },
    )


def _section(name: str, body: str) -> str:
    if not body:
        return ""
    style, title, note = _SECTIONS[name]
    inner = f'<div class="{style}">{body}</div>' if style else body
    shown = f'<p class="note">{note}</p>' if note else ""
    return (
        f'<section aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>'
        f"{shown}{inner}</section>"
    )


def _plots(
    metrics: Mapping[str, Any],
    systems: Mapping[str, Sequence[Mapping[str, Any]]],
    history: Sequence[Mapping[str, Any]],
) -> str:
    """Cards in a grid: outcomes, errors, training, certainty."""
    curves = sections.certainty(metrics, systems)
    cards = {
        "Outcomes": sections.outcomes(systems),
        "Training": f'<div class="panels">{sections.training(history)}</div>',
        "Where answers went wrong": sections.errors(metrics, list(systems)),
        "How sure it is": f'<div class="panels">{curves}</div>' if curves else "",
    }
    return "".join(
        f'<div class="card"><h2>{title}</h2>{body}</div>' for title, body in cards.items() if body
    )
