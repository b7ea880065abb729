"""What a version answers from: its own bundle, and the index that it names; nothing else fits.

Whoever answers resolves the champion once and opens what this one version names. Its tag holds the
hash of its bundle's manifest, the manifest that of its embeddings' facts, and an index is opened
only where it holds the vectors of these facts: a bundle or an index of another release is refused.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from rag.artifacts import Artifacts
from rag.errors import IndexMismatchError, RagError, ReleaseError
from rag.params import Params, load_params
from rag.reading.answerer import served_index
from rag.release.bundle import MANIFEST
from rag.release.registry import BUNDLE, ReleaseVersion, bundle_here, local_bundle
from rag.retrieval.embeddings import FACTS, read_embeddings, read_facts
from rag.retrieval.index import index_name, open_index, publish_index
from rag.weights import file_sha256


def open_release(artifacts: Artifacts, params: Params, release: ReleaseVersion) -> Artifacts:
    """The files of a version, on this machine; ReleaseError where they are gone or not its own."""
    return _checked(local_bundle(artifacts, params, release.version), artifacts, release)


def check_release(artifacts: Artifacts, params: Params, release: ReleaseVersion) -> None:
    """Raises ReleaseError unless a version can answer now: its files are there, its index is whole.

    Files are looked for by their names; their contents are checked where they are loaded.
    """
    released = open_release(artifacts, params, release)
    named = manifest_of(released.root)["files"]
    missing = [name for name in named if not (released.root / name).is_file()]
    if missing:
        raise ReleaseError(
            f"version {release.version} cannot answer: {', '.join(missing[:3])} missing from its "
            f"files; {_WAY_OUT}"
        )
    own = load_params(released.params)
    facts = read_facts(released.embeddings)
    try:
        open_index(served_index(released, own), released.index_folder, facts).close()
    except IndexMismatchError as error:
        reason = str(error).partition("; run:")[0]
        raise ReleaseError(
            f"version {release.version} cannot answer: {reason}; to build the index from the "
            f"release's own vectors first, run: ragloop rollback {release.version} --rebuild"
        ) from error


def rebuild_index(artifacts: Artifacts, params: Params, release: ReleaseVersion) -> str:
    """Builds the index of a version from its own vectors unless it is whole; returns its name."""
    released = open_release(artifacts, params, release)
    index = served_index(released, load_params(released.params))
    if index.kind != "edge":
        raise ReleaseError(
            f"version {release.version} was too large to carry its vectors: its index cannot be "
            "built from it; restore the collection from a snapshot (`ragloop index import`)"
        )
    embeddings = read_embeddings(released.embeddings)
    return publish_index(index, released.index_folder, embeddings, released.chunks)


def index_names(artifacts: Artifacts, release: ReleaseVersion) -> set[str]:
    """The index that a version names, and the one of its vectors under this engine's name for it.

    Another version of the engine may cut words in another way, and then builds an index of its own.
    """
    names = {release.index} if release.index else set()
    bundle = bundle_here(artifacts, release)
    return names | names_of_bundle(artifacts, bundle) if bundle is not None else names


def names_of_bundle(artifacts: Artifacts, bundle: Path) -> set[str]:
    """This engine's name for the index of a bundle's vectors; none of one that cannot be opened."""
    released = Artifacts(bundle, state_folder=artifacts.state)
    # A version that cannot be opened needs no more than it names.
    with contextlib.suppress(RagError):
        own = served_index(released, load_params(released.params))
        return {index_name(own, read_facts(released.embeddings))}
    return set()


def _checked(bundle: Path, artifacts: Artifacts, release: ReleaseVersion) -> Artifacts:
    if not (bundle / MANIFEST).is_file():
        raise ReleaseError(f"the files of version {release.version} are gone: {_WAY_OUT}")
    released = Artifacts(bundle, state_folder=artifacts.state)
    facts = released.embeddings / FACTS
    expected = {
        bundle / MANIFEST: release.tags.get(BUNDLE),
        facts: manifest_of(bundle)["files"].get(facts.relative_to(bundle).as_posix()),
    }
    for path, sha256 in expected.items():
        if sha256 is not None and file_sha256(path) != sha256:
            raise ReleaseError(f"{path} is not that of version {release.version}: {_WAY_OUT}")
    return released


def manifest_of(bundle: Path) -> dict[str, Any]:
    """What a bundle says of its own files; ReleaseError where it cannot be read."""
    try:
        return dict(json.loads((bundle / MANIFEST).read_text(encoding="utf-8")))
    except ValueError as error:
        raise ReleaseError(f"{bundle / MANIFEST} cannot be read ({error}); {_WAY_OUT}") from None


_WAY_OUT = "choose another version (`ragloop releases` lists them)"
