"""The data of a run: what lies in `data/raw/`, recorded by DVC and named by its hash."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows import dvc
from rag.artifacts import Artifacts
from rag.errors import DataError, RagError


@dataclass(frozen=True)
class Snapshot:
    """The recorded data: its content hash, and how it came to be recorded."""

    data_hash: str
    detail: str


def take_snapshot(artifacts: Artifacts) -> Snapshot:
    """Records `data/raw/` as it is now; the demo is imported where there is no data at all.

    Raises DataError when the data that is recorded cannot be had, or nothing is there to import.
    """
    record = record_of(artifacts)
    details = []
    is_filled = is_empty(artifacts.raw)
    if is_filled:
        details.append(_fill(artifacts, record))
    relative = str(record.relative_to(artifacts.root))
    # What DVC itself has just put there is what the record says.
    if not record.exists() or (not is_filled and dvc.status(artifacts.root, relative)):
        dvc.add(artifacts.root, artifacts.raw)
        details.append("recorded")
    return Snapshot(dvc.recorded_hash(record), ", ".join(details) or "unchanged")


def record_of(artifacts: Artifacts) -> Path:
    """The `.dvc` file of `data/raw/`."""
    return artifacts.raw.with_name(f"{artifacts.raw.name}.dvc")


def is_empty(folder: Path) -> bool:
    """Whether a folder holds no file, or is not there."""
    return not any(path.is_file() for path in folder.rglob("*"))


def _fill(artifacts: Artifacts, record: Path) -> str:
    if record.exists():
        target = str(record.relative_to(artifacts.root))
        try:
            dvc.checkout(artifacts.root, target)
        except RagError:
            return _pull(artifacts.root, target)
        return "put back from DVC's cache"
    if is_empty(artifacts.demo):
        raise DataError(
            "data/raw/ is empty and there is no data/demo/ to start with",
            hint="take in documents and questions with: ragloop data import PATH",
        )
    from rag.corpus import import_corpus

    summary = import_corpus(artifacts.demo, artifacts.raw, replace=False)
    return f"demo imported: {summary.documents} documents, {summary.questions} questions"


def _pull(root: Path, target: str) -> str:
    """A fresh clone has the record in git and the data in the remote."""
    try:
        dvc.pull(root, target)
    except RagError as error:
        raise DataError(
            f"data/raw/ is empty but {target} records data that is not in DVC's cache, and it "
            f"cannot be fetched ({error})",
            hint="name the remote that has it as data.remote in params.yaml, "
            f"or start anew: rm {target}",
        ) from None
    return "fetched from the remote"
