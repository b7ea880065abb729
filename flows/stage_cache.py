"""DVC's cache, bounded: old results of stages go; data never does.

DVC keeps what every run of a stage made, and a row in its run cache that says from what; so the
cache grows with each retraining. Of each stage the newest rows stay, and with an older one go the
files that nothing else names: no row that stays, no dvc.lock, no `.dvc` file. Only what a row names
as an output is ever removed, and only where it is the input of nothing that stays. A result that
went is made again by `dvc repro`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows import dvc_config
from rag.artifacts import Artifacts

if TYPE_CHECKING:
    from rag.params import Params
    from rag.release.retention import Removal

_FOLDER = ".dir"


@dataclass(frozen=True)
class Row:
    """One run of a stage, as the run cache has it: where it says so, when, and which hashes."""

    path: Path
    stage: str
    written: float
    inputs: frozenset[str]
    outputs: frozenset[str]


@dataclass(frozen=True)
class Result:
    """What goes with one row: the row, and the files of the cache that only it names."""

    row: Row
    files: Sequence[Path]

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files if path.exists())


def plan(cache: Path, named: Set[str], *, keep: int) -> list[Result]:
    """What goes, oldest first, where the newest `keep` rows of each stage stay.

    `cache` is the folder of DVC's cache; `named` are hashes that dvc.lock and `.dvc` files name.
    """
    rows = sorted(_rows(cache / "runs"), key=lambda row: row.written)
    old = [row for stage in {row.stage for row in rows} for row in _of(rows, stage)[:-keep]]
    if not old:
        return []
    made = frozenset[str]().union(*(row.outputs for row in rows))
    stay = [row for row in rows if row not in old]
    reached = set(named).union(*(row.inputs | row.outputs for row in stay))
    for row in old:
        reached |= row.inputs - made  # data, which no stage can make again
    kept = set(_whole(cache, reached))
    found = []
    for row in sorted(old, key=lambda row: row.written):
        gone = sorted(set(_whole(cache, row.outputs)) - kept)
        kept |= set(gone)  # counted once
        found.append(Result(row, [path for path in map(_place(cache), gone) if path.exists()]))
    return found


def prune(artifacts: Artifacts, params: Params, *, dry_run: bool = False) -> list[Removal]:
    """Removes what `plan` finds, or only lists it; as many rows stay as versions of the registry.

    The caller holds the project's lock. Files go before the row that names them: a removal that is
    cut short is finished by the next one, and DVC runs a stage whose results are not whole.
    """
    from rag.release.retention import Removal

    keep = params.release.keep + params.release.keep_challengers
    found = plan(cache_folder(artifacts.root), _named(artifacts), keep=max(1, keep))
    reason = f"{keep} newer results of this stage stay"
    removals = [Removal("result", item.row.stage, reason, item.bytes) for item in found]
    for item in () if dry_run else found:
        for path in (*item.files, item.row.path):
            path.unlink(missing_ok=True)
    return removals


def cache_folder(root: Path) -> Path:
    """Where a checkout has DVC's cache, read without starting DVC."""
    chosen = dvc_config.read_config(root).get("cache", {}).get("dir", "cache")
    return (root / ".dvc" / chosen).resolve()


def _of(rows: Sequence[Row], stage: str) -> list[Row]:
    return [row for row in rows if row.stage == stage]


def _rows(folder: Path) -> Iterator[Row]:
    for path in folder.glob("*/*/*"):
        try:
            tree = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
            stage = str(tree["cmd"]).split()[-1]
            inputs, outputs = (_hashes(tree.get(name, ())) for name in ("deps", "outs"))
        except (OSError, yaml.YAMLError, TypeError, KeyError):
            continue  # DVC is writing it, or it is none of DVC's
        yield Row(path, stage, path.stat().st_mtime, inputs, outputs)


def _named(artifacts: Artifacts) -> set[str]:
    """Hashes in the lock and the records of the checkout, of this run and of the last one apart."""
    from flows.workspace import RESULTS, project_of

    folders = (project_of(artifacts).root, artifacts.root, artifacts.state / RESULTS)
    texts = [
        path.read_text(encoding="utf-8")
        for folder in folders
        for pattern in ("dvc.lock", "*.dvc", "data/*.dvc")
        for path in folder.glob(pattern)
        if path.is_file()
    ]
    return {found for text in texts for found in _below(yaml.load(text, Loader=yaml.CSafeLoader))}


def _below(tree: Any) -> Iterator[str]:
    """Every `md5` in a tree."""
    if isinstance(tree, Mapping):
        if isinstance(tree.get("md5"), str):
            yield tree["md5"]
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from _below(item)


def _hashes(entries: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    return frozenset(str(entry["md5"]) for entry in entries if "md5" in entry)


def _whole(cache: Path, hashes: Iterable[str]) -> Iterator[str]:
    """The hashes, and those of the files in what of them is a folder."""
    place = _place(cache)
    for name in hashes:
        yield name
        if name.endswith(_FOLDER):
            try:
                listed = json.loads(place(name).read_text(encoding="utf-8"))
            except FileNotFoundError:
                continue
            yield from (str(entry["md5"]) for entry in listed)


def _place(cache: Path) -> Any:
    """Where the cache has the file of a hash."""
    return lambda name: cache / "files" / "md5" / name[:2] / name[2:]
