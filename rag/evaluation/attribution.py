"""Why an answer is wrong: what retrieval, the reader, the decision to abstain or the data did.

Every wrong answer (exact match below 1) of the tuned system gets one label, by the first rule that
holds:

1. `abstention`: the system declined a question that has an answer, or answered one that has none.
2. `annotation_suspect`: the answer and an accepted one are nearly the same, with the same numbers
   (`nearly_equal`); or no chunk of the question's document holds an accepted answer; or the oracle
   and every other system that read passages, of which there is at least one, say the same other
   answer, and it stands in the gold passage. Someone should look at the question.
3. `reading`: a passage with an accepted answer was among those read.
4. `retrieval`: no such passage was read, and given the gold passage the reader is right, or nearly.
   Also where the document is not named and no passage within `retrieve.top_k` holds an answer.
5. `reading`: no such passage was read, and even given the gold passage the reader is wrong.

The oracle is the tuned system with the gold passage in place of what it retrieved. It and the other
*probes* are asked only what was answered wrongly: `oracle_rerank` has the gold passage moved to the
first rank where it was retrieved at all, `no_passage` reads nothing. They decide no mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from rag.errors import MetricError
from rag.evaluation.metric_groups import Row, refuse
from rag.evaluation.normalize import answer_tokens, normalize_answer
from rag.records import Passage
from rag.retrieval.relevance import contains

RIGHT = "right"
RETRIEVAL = "retrieval"
READING = "reading"
ABSTENTION = "abstention"
ANNOTATION = "annotation_suspect"
LABELS = (RIGHT, RETRIEVAL, READING, ABSTENTION, ANNOTATION)

ORACLE: Final = "oracle"
ORACLE_RERANK = "oracle_rerank"
NO_PASSAGE = "no_passage"
PROBES = (ORACLE, ORACLE_RERANK, NO_PASSAGE)

#: F1 from which two answers are nearly the same, and from which one that holds the other is.
_NEARLY_EQUAL = 0.8
_HOLDS = 0.5


def error_label(row: Row, oracle: Row | None, others: Sequence[Row]) -> str | None:
    """The label of one answer of the tuned system; None where it is right.

    `oracle` is the row of the same question by the system that was given the gold passage, None
    where no passage is known to hold an answer; `others` are its rows by the baselines.
    """
    if row["exact_match"] == 1.0:
        return None
    if row["abstained"] == row["answerable"]:
        return ABSTENTION
    if _is_suspect(row, oracle, others):
        return ANNOTATION
    if row["gold_read"]:
        return READING
    if oracle is None or _is_right(oracle):
        return RETRIEVAL
    return READING


def label_errors(
    rows: Sequence[Row], oracle: Mapping[str, Row], others: Mapping[str, Mapping[str, Row]]
) -> list[dict[str, Any]]:
    """The rows of the tuned system with their column `error`, in their order.

    `oracle` has by question id the oracle's rows, `others` by system and question id those of the
    baselines, which must have every question.
    """
    ids = [row["question_id"] for row in rows]
    for name, of in others.items():
        refuse(f"{name}: missing for questions", [item for item in ids if item not in of])
    return [
        {
            **row,
            "error": error_label(
                row,
                oracle.get(row["question_id"]),
                [of[row["question_id"]] for of in others.values()],
            ),
        }
        for row in rows
    ]


def nearly_equal(prediction: str, answers: Sequence[str]) -> bool:
    """Whether a prediction differs from an accepted answer as two annotators might.

    Their F1 is at least 0.8, or the prediction holds the answer word for word and is at most three
    times as long (F1 of 0.5); and both have the same numbers, since "12 May" is not "13 May".
    """
    predicted = answer_tokens(prediction)
    return any(_nearly_equal(predicted, answer_tokens(answer)) for answer in answers)


def is_attributed(rows: Sequence[Row]) -> bool:
    """Whether the errors among these rows of one system were looked into."""
    labelled = any(row["error"] is not None for row in rows)
    return labelled or all(row["exact_match"] == 1.0 for row in rows)


def error_counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows have each of LABELS; they sum to the number of rows.

    Raises MetricError with the questions whose label is unknown, or missing for a wrong answer, or
    given to a right one.
    """
    for what, bad in (
        ("wrong answers without a label", [_is_wrong(row) and not row["error"] for row in rows]),
        ("right answers with a label", [not _is_wrong(row) and row["error"] for row in rows]),
        ("unknown labels", [row["error"] not in (None, *LABELS[1:]) for row in rows]),
    ):
        found = [row["question_id"] for row, is_bad in zip(rows, bad, strict=True) if is_bad]
        refuse(f"errors: {what} at questions", found)
    counts = Counter(row["error"] or RIGHT for row in rows)
    return {label: counts[label] for label in LABELS}


def repaired(rows: Sequence[Row], probes: Mapping[str, Mapping[str, Row]]) -> dict[str, int]:
    """How many of the wrong answers each probe gets right, by its name.

    Raises MetricError where a probe answered a question that was not answered wrongly.
    """
    wrong = {row["question_id"] for row in rows if _is_wrong(row)}
    for name, of in probes.items():
        refuse(f"{name}: asked although it was answered rightly", sorted(set(of) - wrong))
    return {name: sum(not _is_wrong(row) for row in of.values()) for name, of in probes.items()}


def gold_first(passages: Sequence[Passage], rank: int) -> list[Passage]:
    """The passages with that of `rank` in front; each place keeps the scores that it had.

    A reader that weighs passages by their scores so believes most in the first, as it did before.
    """
    if not 1 <= rank <= len(passages):
        raise MetricError(f"rank must be 1 to {len(passages)}, got {rank}")
    ordered = [passages[rank - 1], *passages[: rank - 1], *passages[rank:]]
    return [
        replace(
            place,
            chunk_id=passage.chunk_id,
            document_id=passage.document_id,
            text=passage.text,
        )
        for place, passage in zip(passages, ordered, strict=True)
    ]


def _is_wrong(row: Row) -> bool:
    return bool(row["exact_match"] != 1.0)


def _is_right(row: Row) -> bool:
    return not _is_wrong(row) or nearly_equal(row["prediction"], row["answers"])


def _is_suspect(row: Row, oracle: Row | None, others: Sequence[Row]) -> bool:
    if nearly_equal(row["prediction"], row["answers"]):
        return True
    if oracle is None:  # the document is named, and no chunk of it holds an answer
        return row["document_id"] is not None
    reading = [other for other in others if other["evidence"] and not other["abstained"]]
    same = normalize_answer(row["prediction"])
    agreeing = [normalize_answer(other["prediction"]) == same for other in (oracle, *reading)]
    return bool(reading) and all(agreeing) and _stands_in_gold(row["prediction"], oracle)


def _stands_in_gold(text: str, oracle: Row) -> bool:
    return any(contains(passage["text"], text) for passage in oracle["evidence"])


def _nearly_equal(predicted: list[str], gold: list[str]) -> bool:
    if not predicted or not gold or _numbers(predicted) != _numbers(gold):
        return False
    common = (Counter(predicted) & Counter(gold)).total()
    f1 = 2.0 * common / (len(predicted) + len(gold))
    width = len(gold)
    holds = any(
        predicted[start : start + width] == gold for start in range(len(predicted) - width + 1)
    )
    return f1 >= _NEARLY_EQUAL or (holds and f1 >= _HOLDS)


def _numbers(tokens: list[str]) -> Counter[str]:
    return Counter(token for token in tokens if any(map(str.isdigit, token)))
