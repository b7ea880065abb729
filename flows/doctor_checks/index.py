"""The champion's index and encoder: whole, of its vectors, and of the model that made them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from flows.doctor_checks.finding import Finding, Site, WaitsFor, fail, ok, worst
from rag.errors import IndexMismatchError, RagError

if TYPE_CHECKING:
    from rag.params import IndexParams
    from rag.release.registry import ReleaseVersion
    from rag.retrieval.embeddings import EmbeddingFacts

#: An index up to this size is copied to be opened.
_COPIED_BYTES = 256_000_000
_REBUILD = "ragloop index rebuild --champion"
_NONE_YET = "nothing is released yet"


def look_at_index(site: Site) -> Finding:
    """The champion's index is whole, is of its vectors, and gives the canaries back."""
    if site.served is None:
        return ok(_NONE_YET)
    release, bundle = site.served
    from rag.artifacts import Artifacts
    from rag.params import load_params
    from rag.reading.answerer import served_index
    from rag.retrieval.embeddings import read_facts
    from rag.retrieval.index import index_name

    released = Artifacts(bundle, state_folder=site.artifacts.state)
    try:
        index = served_index(released, load_params(released.params))
        facts = read_facts(released.embeddings)
    except (RagError, OSError):
        raise WaitsFor("bundle") from None
    name = index_name(index, facts)
    problems, how = [], "canaries as expected"
    try:
        how = open_untouched(index, released.index_folder, facts)
    except RagError as error:
        problems.append(fail(str(error).partition("; run:")[0], _REBUILD))
    if release.index is not None and release.index != name:
        problems.append(
            fail(
                f"version {release.version} names the index {release.index}, its vectors are "
                f"those of {name}",
                _REBUILD,
            )
        )
    problems += _alias_problems(site, release)
    return worst(problems, f"{name}: {facts.count} points, {how}")


def open_untouched(index: IndexParams, folder: Path, facts: EmbeddingFacts) -> str:
    """Opens an index without touching its files; says how well it was looked at.

    The engine of this process opens its files for writing and changes their times, so it gets a
    copy; a large index is only compared with its seal. IndexMismatchError as from `open_index`.
    """
    from rag.retrieval.index import build_plan, connect_index, open_index

    if index.kind != "edge":
        open_index(index, folder, facts).close()
        return "canaries as expected"
    plan = build_plan(index, facts)
    there = folder / plan.name
    seal = connect_index(index, folder, plan.name).sealed()
    if seal is None or not seal.is_of(plan):
        raise IndexMismatchError(f"index {there} is missing or incomplete, or of other vectors")
    if _blocks(there) > _COPIED_BYTES:
        return "every file as it was sealed; for the canaries: ragloop index verify --champion"
    with tempfile.TemporaryDirectory() as scratch:
        copy_with_holes(there, Path(scratch) / plan.name)
        open_index(index, Path(scratch), facts).close()
    return "canaries as expected"


def copy_with_holes(source: Path, target: Path) -> None:
    """Copies a folder; what takes no room in it (most of an index) takes none in the copy."""
    for path in [source, *sorted(source.rglob("*"))]:
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
            continue
        with path.open("rb") as there, copy.open("wb") as here:
            end = os.fstat(there.fileno()).st_size
            place = 0
            while place < end:
                try:
                    start = os.lseek(there.fileno(), place, os.SEEK_DATA)
                except OSError:  # nothing but a hole up to the end
                    break
                place = os.lseek(there.fileno(), start, os.SEEK_HOLE)
                there.seek(start)
                here.seek(start)
                here.write(there.read(place - start))
            here.truncate(end)


def _alias_problems(site: Site, release: ReleaseVersion) -> list[Finding]:
    """On a Qdrant server, other programs find the champion by an alias."""
    if site.params.index.kind != "server":
        return []
    from rag.release.switch import collection_alias
    from rag.retrieval.index_alias import alias_target

    alias = collection_alias(site.params)
    try:
        target = alias_target(site.params.index, alias)
    except RagError as error:
        return [fail(str(error), "start the Qdrant server of index.url")]
    if target == release.index:
        return []
    remedy = f"ragloop rollback {release.version}"
    return [fail(f"{alias} on Qdrant points at {target}, not {release.index}", remedy)]


def look_at_encoder(site: Site) -> Finding:
    """Questions are encoded by what encoded the passages: the fingerprints agree."""
    if site.served is None:
        return ok(_NONE_YET)
    release, bundle = site.served
    from rag.artifacts import Artifacts
    from rag.params import load_params
    from rag.retrieval.embeddings import read_facts
    from rag.retrieval.encoder import Encoder

    released = Artifacts(bundle, state_folder=site.artifacts.state)
    try:
        own = load_params(released.params).retriever
        facts = read_facts(released.embeddings)
    except (RagError, OSError):
        raise WaitsFor("bundle") from None
    try:
        found = Encoder(own, released.weights_cache, folder=released.retriever).passage_fingerprint
    except RagError as error:
        return fail(
            f"the encoder of version {release.version} cannot be had: {error}",
            "ragloop doctor --only weights",
        )
    if found != facts.encoder:
        return fail(
            f"version {release.version} has vectors of the encoder {facts.encoder[:12]}, on this "
            f"machine {own.model} is {found[:12]}",
            f"put the weights of {own.model} back, or: ragloop run --force",
        )
    return ok(f"{own.model} is {found[:12]}, as when the vectors were made")


def _blocks(folder: Path) -> int:
    """What a folder really takes on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
