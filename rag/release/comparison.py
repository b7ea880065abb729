"""Whether prediction tables can be compared at all: the same questions, complete, of one version.

What is refused here would give a number without meaning: other questions under the same ids, scores
that are missing where there was something to score, metrics of other rules. All raise ReleaseError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from rag.errors import ReleaseError
from rag.evaluation.metric_groups import RETRIEVAL_METRICS
from rag.records import PREDICTIONS, sorted_json

#: What makes a question the same question, beside its id.
_FROZEN = ("question", "answers", "document_id", "answerable")
_COMPLETE = ("question_id", "question", "answers", "answerable", "slices", "prediction")
_SCORED = ("exact_match", "f1", "rouge1", "rouge2", "rougeL", "abstained")
_NAMED_IN_A_MESSAGE = 3


def check_predictions(label: str, table: pa.Table) -> None:
    """Refuses a table that is empty, of several systems, or with gaps or repeated questions."""
    missing = [name for name in PREDICTIONS.names if name not in table.schema.names]
    if missing:
        raise ReleaseError(f"{label}: the predictions have no column {', '.join(missing)}")
    if not table.num_rows:
        raise ReleaseError(f"{label}: the predictions are empty")
    for name in (*_COMPLETE, *_SCORED):
        if table[name].null_count:
            raise ReleaseError(
                f"{label}: {name} is missing in {table[name].null_count} of {table.num_rows} rows"
            )
    systems = pc.unique(table["system"]).to_pylist()
    if len(systems) != 1:
        raise ReleaseError(f"{label}: expected one system, got {', '.join(map(str, systems))}")
    ids = table["question_id"].to_pylist()
    if len(set(ids)) < len(ids):
        _refuse(f"{label}: questions that occur twice", {i for i in ids if ids.count(i) > 1})
    for metric in RETRIEVAL_METRICS:
        gaps = pc.and_(table["answerable"], pc.is_null(table[metric]))
        absent = table.filter(gaps)["question_id"].to_pylist() if pc.any(gaps).as_py() else []
        if len(absent) < pc.sum(table["answerable"]).as_py():  # without retrieval: none at all
            _refuse(f"{label}: {metric} is missing for questions that have an answer", absent)


def check_same_questions(label: str, table: pa.Table, other_label: str, other: pa.Table) -> None:
    """Refuses tables, both sorted by id, of other questions, texts, answers, documents or rules."""
    mine, theirs = set(table["question_id"].to_pylist()), set(other["question_id"].to_pylist())
    both = f"{label} and {other_label}"
    _refuse(f"{both} were not asked the same questions; only one of them has", mine ^ theirs)
    for name in _FROZEN:
        if table[name].equals(other[name]):
            continue
        ids = table["question_id"].to_pylist()
        pairs = zip(ids, table[name].to_pylist(), other[name].to_pylist(), strict=True)
        changed = {question for question, first, second in pairs if first != second}
        what = "accepted answers" if name == "answers" else "questions"
        _refuse(f"{both} were given different {what} ({name}) under the same ids", changed)
    versions = metrics_version(label, table), metrics_version(other_label, other)
    if len(set(versions)) > 1:
        raise ReleaseError(
            f"{both} were scored by different rules: metrics_version {versions[0]!r} and "
            f"{versions[1]!r}; run: ragloop run --force"
        )


def metrics_version(label: str, table: pa.Table) -> str:
    """The version of the rules that every row was scored by."""
    found = pc.unique(table["metrics_version"]).to_pylist()
    if len(found) != 1 or not found[0]:
        raise ReleaseError(f"{label}: expected one metrics_version, got {found}")
    return str(found[0])


def suite_version(table: pa.Table) -> str:
    """SHA-256 of the questions, their accepted answers and documents, and the rules of scoring.

    Whatever the order of the rows: a test set of another version answers another question.
    """
    columns = table.select(["question_id", *_FROZEN]).sort_by("question_id").to_pydict()
    frozen: Mapping[str, object] = {
        **columns,
        "metrics_version": metrics_version("the predictions", table),
    }
    return hashlib.sha256(sorted_json(frozen).encode()).hexdigest()


def _refuse(what: str, question_ids: set[str] | list[str]) -> None:
    if question_ids:
        shown = ", ".join(sorted(question_ids)[:_NAMED_IN_A_MESSAGE])
        raise ReleaseError(f"{what}: {len(question_ids)} questions, for example {shown}")
