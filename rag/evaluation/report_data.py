"""What the report's table of questions shows, as plain data for its script.

`{"systems": [names], "has_baseline": bool, "passages": [[document id, text], ...], "questions":
[{...}, ...]}`. A passage that was found for several questions is stored once. Places of answers are
found here, by the same rules that score them, and counted in UTF-16 units as the browser does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from rag.errors import MetricError
from rag.evaluation.normalize import answer_spans
from rag.records import Question
from rag.retrieval.relevance import is_relevant

Row = Mapping[str, Any]

#: The system that was given the gold passages: a bound, and no baseline. It comes last.
ORACLE: Final = "oracle"
_PASSAGES_SHOWN = 5


def rows_by_system(predictions: pa.Table) -> dict[str, list[Row]]:
    """The table's rows by system, each in the first system's order of questions."""
    systems: dict[str, dict[str, Row]] = {}
    for row in predictions.to_pylist():
        systems.setdefault(row["system"], {})[row["question_id"]] = row
    if not systems:
        raise MetricError("report: the predictions table is empty")
    first, *others = systems
    for other in others:
        if set(systems[other]) != set(systems[first]):
            raise MetricError(f"report: {first} and {other} were not asked the same questions")
    return {name: [rows[key] for key in systems[first]] for name, rows in systems.items()}


def outcome(row: Row) -> str:
    """`right`, `partly` (some tokens are), `abstained` (and should have answered) or `wrong`."""
    if row["exact_match"] == 1.0:
        return "right"
    if row["abstained"]:
        return "abstained"
    return "partly" if row["f1"] > 0.0 else "wrong"


def question_data(systems: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """The data of every question; `systems` as from `rows_by_system`."""
    passages: dict[str, int] = {}
    texts: list[list[str]] = []
    questions = []
    for rows in zip(*systems.values(), strict=True):
        main = next((row for row in rows if row["evidence"]), rows[0])
        evidence = []
        for passage in main["evidence"][:_PASSAGES_SHOWN]:
            index = passages.setdefault(passage["chunk_id"], len(texts))
            if index == len(texts):
                texts.append([passage["document_id"], passage["text"]])
            # What was said instead of an answer has no source.
            share = None if main["abstained"] else passage["posterior"]
            evidence.append({**_evidence(index, passage, rows[0]), "share": share})
        questions.append(
            {
                "id": rows[0]["question_id"],
                "question": rows[0]["question"],
                "gold": rows[0]["answers"],
                "document": rows[0]["document_id"],
                "slices": json.loads(rows[0]["slices"] or "{}"),
                "answers": [
                    {
                        "text": row["prediction"],
                        "outcome": outcome(row),
                        "abstained": row["abstained"],
                        "f1": round(100.0 * row["f1"], 1),
                    }
                    for row in rows
                ],
                "evidence": evidence,
            }
        )
    return {
        "systems": list(systems),
        "has_baseline": bool(baselines(list(systems))),
        "passages": texts,
        "questions": questions,
    }


def baselines(systems: Sequence[str]) -> list[str]:
    """What the first of these systems is compared with, in order."""
    return [name for name in systems[1:] if name != ORACLE]


def _evidence(index: int, passage: Row, row: Row) -> dict[str, Any]:
    question = Question(
        question_id=row["question_id"],
        text=row["question"],
        answers=tuple(row["answers"]),
        document_id=row["document_id"],
        answerable=row["answerable"],
        split="test",
        language=row["language"],
    )
    text = passage["text"]
    marks = {
        "gold": answer_spans(text, row["answers"]),
        "answer": answer_spans(text, [row["prediction"]]) if row["prediction"] else [],
    }
    return {
        "passage": index,
        "score": round(passage["score"], 4),
        "relevant": is_relevant(text, passage["document_id"], question),
        **{
            kind: [[_utf16(text[:start]), _utf16(text[:end])] for start, end in spans]
            for kind, spans in marks.items()
        },
    }


def _utf16(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
