"""The table that a reviewer reads: one row a question, every system's answer, and the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from rag.evaluation.report_data import CHAMPION, change, review_order

#: The system that is released; the first columns are its own.
RELEASED = "tuned"
_PASSAGES_SHOWN = 3
_LEAST_SHOWN = 0.01


def answers_table(predictions: pa.Table) -> dict[str, Any]:
    """`{"columns": [...], "data": [[...], ...]}` as MLflow tables are; the worst answers first.

    `source_share` is the highest p(passage | question, answer) of a row, null where the reader
    weighs no passages or abstained. With a champion, `change` says what became of its answer, and
    lost, gained and changed answers come first, in this order.
    """
    by_system: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in predictions.to_pylist():
        by_system.setdefault(row["system"], {})[row["question_id"]] = row
    others = [system for system in by_system if system != RELEASED]
    columns = ["question", "gold", "answer", "f1", "exact_match", "abstained", "confidence"]
    columns += [*others, "evidence", "source_share", "gold_document", "question_id"]
    rows = sorted(by_system[RELEASED].values(), key=lambda row: str(row["question_id"]))
    before = None
    if CHAMPION in by_system:
        columns.append("change")
        before = [by_system[CHAMPION][row["question_id"]] for row in rows]
    ordered = review_order(rows, before)
    data = [
        [
            row["question"],
            " | ".join(row["answers"]) or "(not answerable)",
            row["prediction"] or "(abstained)",
            round(row["f1"], 3),
            row["exact_match"],
            row["abstained"],
            round(row["score"], 3),
            *(_answer_of(by_system[system].get(row["question_id"])) for system in others),
            _evidence(row),
            _source_share(row),
            row["document_id"] or "",
            row["question_id"],
            *([change(row, before[place])] if before else []),
        ]
        for place, row in ((place, rows[place]) for place in ordered)
    ]
    return {"columns": columns, "data": data}


def _answer_of(row: Mapping[str, Any] | None) -> str:
    return (row["prediction"] or "(abstained)") if row else ""


def _evidence(row: Mapping[str, Any]) -> str:
    return "\n\n".join(
        f"[{item['document_id']}{_share_in(row, item)}] {item['text']}"
        for item in (row["evidence"] or [])[:_PASSAGES_SHOWN]
    )


def _share_in(row: Mapping[str, Any], item: Mapping[str, Any]) -> str:
    if row["abstained"] or item["posterior"] is None:
        return ""
    return f", {share_of_answer(item['posterior'])}"


def _source_share(row: Mapping[str, Any]) -> float | None:
    shares = [item["posterior"] for item in row["evidence"] or () if item["posterior"] is not None]
    return round(max(shares), 3) if shares and not row["abstained"] else None


def share_of_answer(posterior: float) -> str:
    """How likely an answer came from a passage, p(z|x,y), in words.

    >>> share_of_answer(0.82)
    '82 % of the answer'
    """
    percent = "under 1" if posterior < _LEAST_SHOWN else f"{100 * posterior:.0f}"
    return f"{percent} % of the answer"
