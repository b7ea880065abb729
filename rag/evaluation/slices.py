"""Scores by kind of question: where the mean hides a weakness.

A dimension gives every question one value: its language, whether it is answerable, what it asks
for, the length of its answer, the folder of its document, the rank at which retrieval found the
gold passage, and each column that the questions came with. The questions of one value are a slice;
the slices of a dimension have every question, each once. A slice is resampled by its own documents.
A small one is marked and never dropped, and its wide intervals say what it is worth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from rag.errors import MetricError
from rag.evaluation.attribution import error_counts, is_attributed
from rag.evaluation.metric_groups import Groups, Row, joint_intervals, rounded
from rag.evaluation.normalize import answer_tokens
from rag.evaluation.question_types import question_type
from rag.evaluation.statistics import Resampling

#: What the rarer values of a dimension are gathered as.
OTHER = "(other)"
NONE = "(none)"
_LENGTHS = ((1, "1 token"), (3, "2-3 tokens"), (7, "4-7 tokens"))
_LONGEST = "8 tokens and more"


@dataclass(frozen=True)
class SliceSettings:
    """Below how many questions a slice is small, and how many values a dimension shows."""

    min_questions: int
    max_values: int


def dimensions(rows: Sequence[Row], settings: SliceSettings) -> dict[str, dict[str, list[str]]]:
    """`{dimension: {value: [question id, ...]}}`, commonest values first.

    `rows` are those of the system that is judged: its retrieval gives the rank of the gold passage.
    Each dimension has every question once. Where one has more than `max_values` values, the rarest
    are gathered as `(other)`, whose name says how many they are.
    """
    found: dict[str, dict[str, list[str]]] = {}
    columns = [json.loads(row["slices"] or "{}") for row in rows]
    names = sorted({name for own in columns for name in own})
    for row, own in zip(rows, columns, strict=True):
        values = _built_in(row)
        taken = set(values)
        for name in names:
            values[f"{name} (column)" if name in taken else name] = _shown(own.get(name))
        for dimension, value in values.items():
            found.setdefault(dimension, {}).setdefault(value, []).append(row["question_id"])
    return {name: _gathered(values, settings.max_values) for name, values in found.items()}


def slice_metrics(
    rows: Sequence[Row],
    systems: Mapping[str, Groups],
    compared: Sequence[str],
    resampling: Resampling,
    settings: SliceSettings,
) -> dict[str, Any]:
    """`{dimension: {value: {"n", "small", "systems", "differences", "errors"}}}`, in percent.

    `rows` and the first of `systems` are of the system that is judged; `differences` are paired,
    that system minus each of `compared`; all groups are in the order of its questions. `errors`
    counts its labels (`right` included, sum n) and is absent where they are not known.
    """
    labelled = {row["question_id"]: row for row in rows}
    result: dict[str, Any] = {}
    for dimension, values in dimensions(rows, settings).items():
        result[dimension] = {}
        for value, ids in values.items():
            of_slice = _restricted(systems, ids)
            level, change = joint_intervals(of_slice, compared, resampling)
            found: dict[str, Any] = {
                "n": len(ids),
                "small": len(ids) < settings.min_questions,
                "systems": rounded(level),
                "differences": rounded(change),
            }
            if is_attributed(rows):
                found["errors"] = error_counts([labelled[item] for item in ids])
            result[dimension][value] = found
    return result


def slices_table(slices: Mapping[str, Any]) -> dict[str, Any]:
    """`{"columns": [...], "data": [[...], ...]}`: one row for each slice, system and metric."""
    columns = ["dimension", "value", "questions", "small", "system", "metric"]
    data = [
        [dimension, value, found["n"], found["small"], system, metric, *interval.values()]
        for dimension, values in slices.items()
        for value, found in values.items()
        for system, metrics in found["systems"].items()
        for metric, interval in metrics.items()
    ]
    return {"columns": [*columns, "percent", "low", "high"], "data": data}


def _built_in(row: Row) -> dict[str, str]:
    return {
        "language": row["language"],
        "answerable": "yes" if row["answerable"] else "no",
        "question_type": question_type(row["question"]),
        "answer_length": _answer_length(row),
        "source": _source(row["document_id"]),
        "gold_rank": _rank(row),
    }


def _answer_length(row: Row) -> str:
    """The band of the shortest accepted answer, in tokens as F1 counts them."""
    if not row["answers"]:
        return NONE
    tokens = min(len(answer_tokens(answer)) for answer in row["answers"])
    return next((name for most, name in _LENGTHS if tokens <= most), _LONGEST)


def _source(document_id: str | None) -> str:
    """The folder of a document, whose id is its path: of SQuAD, the file that its text came in."""
    if document_id is None:
        return NONE
    folder = str(PurePosixPath(document_id).parent)
    return "(top folder)" if folder == "." else folder


def _rank(row: Row) -> str:
    """Where retrieval found the first relevant passage."""
    if row["recall@1"] is None:
        return "not scored"
    rank = row["gold_rank"]
    if rank is None:
        return "not found"
    return "rank 1" if rank == 1 else "rank 2-3" if rank <= 3 else "rank 4 and below"


def _shown(value: Any) -> str:
    if value is None or value == "":
        return NONE
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _gathered(values: Mapping[str, list[str]], most: int) -> dict[str, list[str]]:
    ordered = sorted(values, key=lambda value: (-len(values[value]), value))
    if len(ordered) <= most:
        return {value: values[value] for value in ordered}
    kept, rare = ordered[: most - 1], ordered[most - 1 :]
    name = f"{OTHER}: {len(rare)} rarer values"
    return {value: values[value] for value in kept} | {
        name: [item for value in rare for item in values[value]]
    }


def _restricted(systems: Mapping[str, Groups], ids: Sequence[str]) -> dict[str, Groups]:
    """The groups of these questions alone; a group without one of them is left out."""
    found: dict[str, Groups] = {}
    for system, groups in systems.items():
        parts = {kind: group.of(ids) for kind, group in groups.items()}
        found[system] = {kind: part for kind, part in parts.items() if part is not None}
        if len(found[system]["all"].question_ids) != len(ids):
            raise MetricError(f"{system}: a slice of {len(ids)} questions has unknown ones")
    return found
