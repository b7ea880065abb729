"""What a run is made from, as one hash: equal keys, equal result, so nothing needs to be done.

Prefect's own cache key contains the id of the run and so never hits in another run; DVC knows files
and params but not the gate's. This key covers data, code, params and models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rag.artifacts import Artifacts
from rag.params import Params
from rag.records import sorted_json
from rag.weights import file_sha256, weights_digest

#: When and where, not what: these sections change no result.
IGNORED_SECTIONS = frozenset(
    {"data", "embed", "notify", "schedule", "tracking", "tune", "up", "watch"}
)
#: What stays afterwards changes no result either.
_IGNORED = {"release": {"keep", "keep_challengers"}}
#: The outcome of a run that gives what the champion was made from again.
SAME = "SAME"
#: What the ledger calls a row of the flow `refresh`; other rows are a retraining's.
REFRESH = "refresh"
#: Outcomes that stand until something changes; after an ERROR the run is made again.
CONCLUDED = frozenset({"PROMOTE", "REJECT", "INCONCLUSIVE", "PENDING", "DRY_RUN", SAME})
_LENGTH = 32


def content_key(data_hash: str, params: Params, artifacts: Artifacts) -> str:
    """The run's key: letters and digits."""
    settings = {
        section: value
        for section, value in params.model_dump(mode="json", exclude=_IGNORED).items()
        if section not in IGNORED_SECTIONS
    }
    made_from = {
        "data": data_hash,
        "code": code_hash(artifacts.root / "rag"),
        "pipeline": file_sha256(artifacts.root / "dvc.yaml"),
        "params": settings,
        "models": [weights_digest(model, revision) for model, revision in params.models()],
    }
    return hashlib.sha256(sorted_json(made_from).encode()).hexdigest()[:_LENGTH]


def code_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of all files of a package, compiled ones left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def concluded_row(
    rows: Sequence[Mapping[str, Any]], key: str, *, kind: str | None = None
) -> Mapping[str, Any] | None:
    """The newest concluded ledger row, if it was made with this key.

    Rows of another kind of run count only where they have changed the champion: a refresh that was
    turned down is no reason to judge a retraining again.
    """
    concluded = (
        row
        for row in reversed(rows)
        if row.get("outcome") in CONCLUDED
        and (row.get("kind") == kind or row["outcome"] == "PROMOTE")
    )
    newest = next(concluded, None)
    return newest if newest is not None and newest.get("key") == key else None
