"""The table that a reviewer reads: one row a question, every system's answer, and the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

#: The system that is released; the first columns are its own.
RELEASED = "tuned"
_PASSAGES_SHOWN = 3


def answers_table(predictions: pa.Table) -> dict[str, Any]:
    """`{"columns": [...], "data": [[...], ...]}` as MLflow tables are; the worst answers first."""
    by_system: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in predictions.to_pylist():
        by_system.setdefault(row["system"], {})[row["question_id"]] = row
    baselines = [system for system in by_system if system != RELEASED]
    columns = ["question", "gold", "answer", "f1", "exact_match", "abstained", "confidence"]
    columns += [*baselines, "evidence", "gold_document", "question_id"]
    ordered = sorted(by_system[RELEASED].values(), key=lambda row: (row["f1"], row["question_id"]))
    data = [
        [
            row["question"],
            " | ".join(row["answers"]) or "(not answerable)",
            row["prediction"] or "(abstained)",
            round(row["f1"], 3),
            row["exact_match"],
            row["abstained"],
            round(row["score"], 3),
            *(_answer_of(by_system[system].get(row["question_id"])) for system in baselines),
            _evidence(row),
            row["document_id"] or "",
            row["question_id"],
        ]
        for row in ordered
    ]
    return {"columns": columns, "data": data}


def _answer_of(row: Mapping[str, Any] | None) -> str:
    return (row["prediction"] or "(abstained)") if row else ""


def _evidence(row: Mapping[str, Any]) -> str:
    passages = (row["evidence"] or [])[:_PASSAGES_SHOWN]
    return "\n\n".join(f"[{item['document_id']}] {item['text']}" for item in passages)
