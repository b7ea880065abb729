"""The served queries, where `watch.query_log` is true: question, time, scores, and nothing else.

    .ragloop/queries/queries.jsonl       {"id": "q-6f0c...", "time": ..., "question": ..., ...}

Who asked, from where, and what was answered is not written. `ragloop ask` and the MLflow model
append here; a model that is served elsewhere finds its folder through RAGLOOP_STATE.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rag.artifacts import Artifacts
from rag.monitoring import bounded_log
from rag.params import WatchParams
from rag.records import Answer
from rag.weights import file_sha256

_ID = re.compile(r"q-[0-9a-f]{16}")
_MANIFEST = "manifest.json"
_RELEASE_LENGTH = 12
_MEGABYTE = 1_000_000


def log_queries(
    artifacts: Artifacts, params: WatchParams, questions: Sequence[str], answers: Sequence[Answer]
) -> list[str]:
    """Appends one row a question and returns their ids; none where the log is off.

    `artifacts` is the release that answered. A log that cannot be written costs no answer: it is
    a warning, and there are no ids.
    """
    if not params.query_log:
        return []
    release = release_of(artifacts)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    rows = [
        {
            "id": f"q-{uuid.uuid4().hex[:16]}",
            "time": now,
            "release": release,
            "question": question,
            "top_score": float(answer.evidence[0].score) if answer.evidence else None,
            "abstained": bool(answer.abstained),
            "answer_score": float(answer.score),
            "documents": list(dict.fromkeys(item.document_id for item in answer.evidence)),
        }
        for question, answer in zip(questions, answers, strict=True)
    ]
    try:
        bounded_log.append(path_of(artifacts), rows, params.query_log_mb * _MEGABYTE)
    except OSError as error:
        logging.getLogger(__name__).warning("queries cannot be logged: %s", error)
        return []
    return [str(row["id"]) for row in rows]


def read_queries(artifacts: Artifacts, release: str | None = None) -> list[dict[str, Any]]:
    """Rows of the log, oldest first; with `release`, those that it answered."""
    rows = bounded_log.read(path_of(artifacts))
    return [row for row in rows if release is None or row.get("release") == release]


def is_query_id(text: str) -> bool:
    """Whether a text is an id of the log and not a question."""
    return _ID.fullmatch(text) is not None


def release_of(artifacts: Artifacts) -> str | None:
    """What the log calls a release: the start of its manifest's SHA-256; None of a checkout."""
    manifest = artifacts.root / _MANIFEST
    return file_sha256(manifest)[:_RELEASE_LENGTH] if manifest.is_file() else None


def path_of(artifacts: Artifacts) -> Path:
    """The file that rows are appended to."""
    return artifacts.queries / "queries.jsonl"
