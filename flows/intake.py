"""What a run takes in before it starts: new files of the watched place, and labelled feedback.

    watch.incoming ─┐
                    ├─> data/raw/, whole and valid or as it was
    feedback ───────┘   (questions/feedback.jsonl)

Files are added to what `data/raw/` holds, one of the same name takes the other's place, and what
has gone from the watched place stays. It is the checkout's `data/raw/`, also of a run that works in
a worktree: what was taken in lasts. Without `watch.incoming`, `data/raw/` itself is watched, and
there is nothing to take in.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows import dvc, workspace
from flows.snapshot import is_empty, record_of
from rag.artifacts import Artifacts
from rag.errors import DataError
from rag.monitoring import incoming
from rag.monitoring.feedback import labelled_questions, read_feedback
from rag.params import Params

FEEDBACK_FILE = Path("questions") / "feedback.jsonl"
_IMPORT = ".dvc"


def applies(artifacts: Artifacts, params: Params) -> bool:
    """Whether there is a watched place or any feedback at all."""
    return params.watch.incoming is not None or artifacts.feedback.exists()


def take_in(artifacts: Artifacts, params: Params, *, everything: bool) -> str:
    """Brings what waits into `data/raw/` of the checkout and of this run; says what that was.

    Labelled questions wait until there are `watch.min_new_questions`, or until a trigger asks for
    `everything`. Bad files change nothing: DataError with every problem.
    """
    said = _take_in(workspace.project_of(artifacts), params, everything=everything)
    if said:
        workspace.bring_data_again(artifacts)
    return said or "nothing new"


def _take_in(artifacts: Artifacts, params: Params, *, everything: bool) -> str:
    place = params.watch.incoming
    content = content_of(artifacts, place, update=True) if place else None
    is_new = content is not None and content.files and content.digest != taken(artifacts, place)
    questions = waiting_questions(artifacts)
    if len(questions) < params.watch.min_new_questions and not everything:
        questions = {}
    if not is_new and not questions:
        return ""
    if is_empty(artifacts.raw) and record_of(artifacts).exists():
        dvc.checkout(artifacts.root, str(record_of(artifacts).relative_to(artifacts.root)))
    artifacts.state.mkdir(parents=True, exist_ok=True)
    said = []
    with tempfile.TemporaryDirectory(dir=artifacts.state, prefix="intake-") as scratch:
        merged = Path(scratch) / "raw"
        merged.mkdir()
        if artifacts.raw.is_dir():
            shutil.copytree(artifacts.raw, merged, dirs_exist_ok=True)
        if is_new and place and content:
            _add_files(artifacts, place, merged)
            said.append(f"{content.files} files of {place}")
        said += _add_feedback(merged, questions) if questions else []
        from rag.corpus import import_corpus

        import_corpus(merged, artifacts.raw, replace=True)
    if is_new and content:
        _write(artifacts.intake, {"place": place, "content": content.digest})
    return ", ".join(said)


def content_of(artifacts: Artifacts, place: str, *, update: bool = False) -> incoming.Content:
    """The content of the watched place; `update` first brings a DVC import up to its source."""
    if not place.endswith(_IMPORT):
        return incoming.content_of(place, artifacts.root)
    if update and has_update(artifacts, place):
        dvc.update(artifacts.root, place)
    return incoming.content_of(_imported(place), artifacts.root)


def has_update(artifacts: Artifacts, place: str) -> bool:
    """Whether the source of a DVC import has changed since it was imported."""
    if not (artifacts.root / place).is_file():
        raise DataError(
            f"watch.incoming: {place} is not there", hint="make it with dvc import or import-url"
        )
    return bool(dvc.status(artifacts.root, place))


def taken(artifacts: Artifacts, place: str | None) -> str | None:
    """The content that was taken in last from this place."""
    try:
        found = json.loads(artifacts.intake.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return str(found["content"]) if found["place"] == place else None


def waiting_questions(artifacts: Artifacts) -> dict[str, dict[str, Any]]:
    """Labelled feedback that `data/raw/` does not hold as it is now, by id.

    Without those whose document the last run did not see: it has gone since.
    """
    path = artifacts.raw / FEEDBACK_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    held = {row["id"]: row for row in map(json.loads, lines)}
    labelled = labelled_questions(read_feedback(artifacts))
    new = {key: row for key, row in labelled.items() if held.get(key) != row}
    if not new or not artifacts.documents.is_file():
        return new
    from pyarrow.parquet import read_table

    column = read_table(artifacts.documents, columns=["document_id"])["document_id"]
    documents = set(column.to_pylist())
    return {key: row for key, row in new.items() if row["document"] in documents}


def _imported(place: str) -> str:
    """What a `.dvc` file describes lies beside it, under its name."""
    return place.removesuffix(_IMPORT)


def _add_files(artifacts: Artifacts, place: str, merged: Path) -> None:
    if "://" in place:
        incoming.fetch(place, merged)
        return
    source = artifacts.root / (_imported(place) if place.endswith(_IMPORT) else place)
    shutil.copytree(source, merged, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))


def _add_feedback(merged: Path, questions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Writes the questions whose document is in the corpus; says how many, and how many are not."""
    from rag.corpus import read_corpus

    path = merged / FEEDBACK_FILE
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    rows = {row["id"]: row for row in map(json.loads, lines)} | dict(questions)
    path.unlink(missing_ok=True)
    documents = {document.document_id for document in read_corpus(merged).documents}
    kept = [row for _, row in sorted(rows.items()) if row["document"] in documents]
    if kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in kept)
        path.write_text(text, encoding="utf-8")
    homeless = len(rows) - len(kept)
    said = [f"{len(questions)} labelled questions"]
    return said + ([f"{homeless} left out, their documents are gone"] if homeless else [])


def _write(path: Path, value: Mapping[str, Any]) -> None:
    temporary = path.with_suffix(".json.tmp")
    temporary.write_text(json.dumps(value), encoding="utf-8")
    os.replace(temporary, path)
