"""How the report names things and writes numbers: one place for its words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from rag.evaluation.report_data import CHAMPION, ORACLE

SYSTEMS: Final = {
    "tuned": "Tuned",
    CHAMPION: "Champion",
    "zero_shot": "Untuned",
    "one_shot": "One-shot",
    "closed_book": "Closed book",
    ORACLE: "Oracle",
}
METRICS: Final = {
    "f1": "F1",
    "exact_match": "Exact match",
    "evidence_em": "Exact, with evidence",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "recall@1": "Recall@1",
    "recall@5": "Recall@5",
    "precision@5": "Precision@5",
    "mrr": "MRR",
    "ndcg@5": "nDCG@5",
    "abstention_rate": "Abstained",
}
OUTCOMES: Final = {
    "right": "Right",
    "partly": "Partly right",
    "wrong": "Wrong",
    "abstained": "Abstained, though answerable",
}
#: In the order of a bar: right first, then from the system's start to its end.
ERRORS: Final = {
    "right": "Right",
    "retrieval": "Passage not found",
    "reading": "Misread",
    "abstention": "Abstention",
    "annotation_suspect": "Gold answer doubtful",
}
#: More of it is neither better nor worse.
NOT_A_SCORE: Final = "abstention_rate"


def system_name(name: str) -> str:
    """`Untuned` for `zero_shot`; an unknown name is made readable."""
    return SYSTEMS.get(name, name.replace("_", " ").capitalize())


def metric_name(name: str) -> str:
    """`Exact match` for `exact_match`."""
    return METRICS.get(name, name)


def error_name(label: str) -> str:
    """`Misread` for `reading`."""
    return ERRORS.get(label, label.replace("_", " ").capitalize())


def metric_order(found: Iterable[str]) -> list[str]:
    """Known metrics in the report's order, then any other by name."""
    names = set(found)
    return [name for name in METRICS if name in names] + sorted(names - set(METRICS))


def tone(change: Mapping[str, float]) -> str:
    """`up` or `down` where the whole interval is, else `same`."""
    if change["low"] > 0.0:
        return "up"
    return "down" if change["high"] < 0.0 else "same"


def number(interval: Mapping[str, float]) -> str:
    """The value of an interval with one decimal."""
    return f"{interval['value']:.1f}"


def signed(value: float) -> str:
    """`+3.4`, `−1.2` or `0.0`, with a true minus sign."""
    text = f"{value:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")


def span(interval: Mapping[str, float], *, sign: bool = False) -> str:
    """`57.9 to 64.4`."""
    ends = (interval["low"], interval["high"])
    low, high = (signed(end) if sign else f"{end:.1f}" for end in ends)
    return f"{low} to {high}"


def p_value(value: float) -> str:
    """`p = 0.013`, or `p < 0.001`: fewer digits say as much."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def pairs(items: Iterable[tuple[str, str]], style: str) -> str:
    """A list of terms; a value is HTML, a name is text."""
    shown = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in items)
    return f'<dl class="{style}">{shown}</dl>'


def table(head: Iterable[str], rows: Iterable[str], *, style: str, caption: str) -> str:
    """A table in a box that scrolls by itself; `head` is text, `rows` are HTML.

    The box takes the focus, so that the keyboard scrolls it too.
    """
    heads = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    name = escape(caption, quote=True)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        f'<table class="{style}"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def cell(
    interval: Mapping[str, float] | None,
    *,
    sign: bool = False,
    style: str = "",
    more: str = "",
    label: str = "",
) -> str:
    """A table cell: value and interval, `more` below them; a dash where there is none.

    `label` names the column where a phone shows no head.
    """
    named = f' data-label="{escape(label, quote=True)}"' if label else ""
    if interval is None:
        return f'<td class="none" title="does not apply"{named}>–</td>'
    value = signed(interval["value"]) if sign else number(interval)
    ends = span(interval, sign=sign) if "low" in interval else ""
    small = f"<small>{ends}</small>" if ends else ""
    below = f"<small>{escape(more)}</small>" if more else ""
    return f'<td class="{style}"{named}><b>{value}</b>{small}{below}</td>'


def plain(value: Any) -> str:
    """Any value as text that is safe in HTML."""
    return escape(str(value))
