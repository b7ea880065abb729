"""What the report's table of questions shows, as plain data for its script.

`{"systems": [names], "reference": 1 | null, "passages": [[document id, text], ...], "questions":
[{...}, ...], "without_evidence": n}`. A passage that was found for several questions is stored
once. Places of answers are found here, by the same rules that score them, and counted in UTF-16
units as the browser does. Beyond `EVIDENCE_QUESTIONS` questions the evidence is left out, of those
that a reviewer needs least.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from rag.errors import MetricError
from rag.evaluation.normalize import answer_spans
from rag.records import Question
from rag.retrieval.relevance import is_relevant

Row = Mapping[str, Any]
#: Ids of the questions of each value of each dimension; every dimension has every question.
Slices = Mapping[str, Mapping[str, Sequence[str]]]

#: The system that was given the gold passages: a bound, and no baseline. It comes last.
ORACLE: Final = "oracle"
#: What is live: it comes right after the judged system, and that one is compared with it.
CHAMPION: Final = "champion"
#: Questions that keep their evidence; with all of 10,000 a page would have tens of megabytes.
EVIDENCE_QUESTIONS: Final = 2000
_PASSAGES_SHOWN = 5


def rows_by_system(predictions: pa.Table) -> dict[str, list[Row]]:
    """The table's rows by system, each in the first system's order of questions.

    The champion, wherever it stands in the table, comes second.
    """
    systems: dict[str, dict[str, Row]] = {}
    for row in predictions.to_pylist():
        systems.setdefault(row["system"], {})[row["question_id"]] = row
    if not systems:
        raise MetricError("report: the predictions table is empty")
    first, *others = systems
    for other in others:
        if set(systems[other]) != set(systems[first]):
            raise MetricError(f"report: {first} and {other} were not asked the same questions")
    others.sort(key=lambda name: name != CHAMPION)
    return {name: [systems[name][key] for key in systems[first]] for name in (first, *others)}


def outcome(row: Row) -> str:
    """`right`, `partly` (some tokens are), `abstained` (and should have answered) or `wrong`."""
    if row["exact_match"] == 1.0:
        return "right"
    if row["abstained"]:
        return "abstained"
    return "partly" if row["f1"] > 0.0 else "wrong"


def change(row: Row, reference: Row | None) -> str:
    """What became of an answer: `lost`, `gained`, `changed` (the text alone) or `same`.

    >>> change({"exact_match": 0.0, "prediction": "b"}, {"exact_match": 1.0, "prediction": "a"})
    'lost'
    """
    if reference is None:
        return "same"
    if row["exact_match"] != reference["exact_match"]:
        return "gained" if row["exact_match"] > reference["exact_match"] else "lost"
    return "same" if row["prediction"] == reference["prediction"] else "changed"


def review_order(rows: Sequence[Row], reference: Sequence[Row] | None) -> list[int]:
    """Places of the questions, those that a reviewer looks at first in front.

    Lost, then gained, then otherwise changed answers, each group and the rest by rising F1.
    """
    groups = ("lost", "gained", "changed", "same")

    def key(place: int) -> tuple[int, float, int]:
        row = rows[place]
        other = None if reference is None else reference[place]
        return groups.index(change(row, other)), row["f1"], place

    return sorted(range(len(rows)), key=key)


def question_data(
    systems: Mapping[str, Sequence[Row]],
    slices: Slices | None = None,
) -> dict[str, Any]:
    """The data of every question; `systems` as from `rows_by_system`.

    Without `slices` a question has its language and the columns it came with. Why an answer is
    wrong is the row's `error`, where the table has that column.
    """
    own_slices = None if slices is None else _by_question(slices)
    rival = reference_of(list(systems))
    judged = next(iter(systems.values()))
    order = review_order(judged, systems[rival] if rival else None)
    kept = set(order[:EVIDENCE_QUESTIONS])
    passages: dict[str, int] = {}
    texts: list[list[str]] = []
    questions = []
    for place, rows in enumerate(zip(*systems.values(), strict=True)):
        main = next((row for row in rows if row["evidence"]), rows[0])
        evidence = []
        for passage in (main["evidence"] or ())[:_PASSAGES_SHOWN] if place in kept else ():
            index = passages.setdefault(passage["chunk_id"], len(texts))
            if index == len(texts):
                texts.append([passage["document_id"], passage["text"]])
            # What was said instead of an answer has no source.
            share = None if main["abstained"] else passage["posterior"]
            evidence.append({**_evidence(index, passage, rows[0]), "share": share})
        question_id = rows[0]["question_id"]
        questions.append(
            {
                "id": question_id,
                "question": rows[0]["question"],
                "gold": rows[0]["answers"],
                "document": rows[0]["document_id"],
                "slices": _slices(rows[0]) if own_slices is None else own_slices[question_id],
                "error": rows[0].get("error"),
                "change": change(rows[0], rows[1] if rival else None),
                "confidence": confidence(rows[0]),
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
        "reference": 1 if rival else None,
        "passages": texts,
        "questions": questions,
        "without_evidence": len(order) - len(kept),
    }


def baselines(systems: Sequence[str]) -> list[str]:
    """What the first of these systems is compared with, in order."""
    return [name for name in systems[1:] if name != ORACLE]


def reference_of(systems: Sequence[str]) -> str | None:
    """The system that answers are compared with: the champion, else the first baseline."""
    return next(iter(baselines(systems)), None)


def confidence(row: Row) -> float | None:
    """The reader's probability of its answer (per token, for a generative one), 0 to 1.

    None where the score is no log probability.
    """
    score = row["score"]
    return round(math.exp(score), 4) if score is not None and score <= 0.0 else None


def _by_question(slices: Slices) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for dimension, values in slices.items():
        for value, ids in values.items():
            for question_id in ids:
                found.setdefault(question_id, {})[dimension] = value
    return found


def _slices(row: Row) -> dict[str, str]:
    found = {name: str(value) for name, value in json.loads(row["slices"] or "{}").items()}
    return {"language": row["language"], **found}


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
