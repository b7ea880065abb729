"""What a bundle holds, what it refuses, and that any change to it is seen."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from rag.artifacts import Artifacts
from rag.errors import ReleaseError
from rag.params import Params, load_params, parse_params
from rag.release.bundle import verify_bundle, write_bundle
from rag.release.redaction import without_credentials

Toy = tuple[Artifacts, Params]


def test_has_the_projects_layout_and_every_hash(toy: Toy, tmp_path: Path) -> None:
    artifacts, params = toy
    manifest = write_bundle(artifacts, params, tmp_path / "bundle")
    copied = Artifacts(tmp_path / "bundle")
    assert copied.fusion.read_bytes() == artifacts.fusion.read_bytes()
    assert sorted(manifest["files"]) == [
        "data/chunk/chunks.parquet",
        "data/embed/embeddings.json",
        "data/embed/ids.parquet",
        "data/embed/vectors.npy",
        "data/models/reader/adapter/adapter_model.safetensors",
        "data/models/reader/reader.json",
        "data/models/retriever/passage/encoder.json",
        "data/retrieve/fusion.json",
        "params.yaml",
    ]
    chunks = hashlib.sha256(b"chunks " * 100).hexdigest()
    assert manifest["files"]["data/chunk/chunks.parquet"] == chunks
    assert manifest["left_out"] == {}
    assert manifest["libraries"]["mlflow"]
    assert load_params(copied.params) == params
    assert verify_bundle(tmp_path / "bundle") == manifest


def test_the_same_files_give_the_same_manifest(toy: Toy, tmp_path: Path) -> None:
    for name in "ab":
        write_bundle(*toy, tmp_path / name)
    manifests = [(tmp_path / name / "manifest.json").read_bytes() for name in "ab"]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda reader: (reader / "reader.json").write_text("[]"), "reader.json was altered"),
        (lambda reader: (reader / "reader.json").unlink(), "reader.json is missing"),
        (lambda reader: (reader / "new.json").write_text(""), "new.json is not in the manifest"),
    ],
)
def test_a_change_is_named(
    toy: Toy, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    bundle = tmp_path / "bundle"
    write_bundle(*toy, bundle)
    change(bundle / "data" / "models" / "reader")
    with pytest.raises(ReleaseError, match=message):
        verify_bundle(bundle)


def test_a_folder_without_manifest_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"no manifest\.json"):
        verify_bundle(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ReleaseError, match="cannot be read"):
        verify_bundle(tmp_path)


def _torch_archive() -> bytes:
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": 1}))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("adapter_model.bin", b""),
        ("optimizer.pt", b""),
        ("index.pkl", b""),
        ("model.joblib", b""),
        ("weights.safetensors", pickle.dumps({"a": 1})),
        ("weights.dat", _torch_archive()),
    ],
)
def test_pickles_are_refused_by_name_and_by_content(
    toy: Toy, tmp_path: Path, name: str, content: bytes
) -> None:
    artifacts, params = toy
    (artifacts.reader / name).write_bytes(content)
    with pytest.raises(ReleaseError, match=name):
        write_bundle(artifacts, params, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_a_missing_file_is_named(toy: Toy, tmp_path: Path) -> None:
    artifacts, params = toy
    artifacts.fusion.unlink()
    with pytest.raises(ReleaseError, match=r"fusion\.json missing; run `ragloop run`"):
        write_bundle(artifacts, params, tmp_path / "bundle")


def _large(toy: Toy, index: dict[str, str]) -> Params:
    with (toy[0].embeddings / "vectors.npy").open("wb") as file:
        file.truncate(1_200_000)
    return parse_params({"release": {"bundle_limit_mb": 1}, "index": index})


def test_above_the_limit_only_a_server_can_answer(toy: Toy, tmp_path: Path) -> None:
    params = _large(toy, {"kind": "edge"})
    with pytest.raises(ReleaseError, match=r"1\.2 MB, above .* \(1\): raise it to 2"):
        write_bundle(toy[0], params, tmp_path / "bundle")
    params = _large(toy, {"kind": "server", "url": "https://me:canary@qdrant:6333/?key=canary"})
    manifest = write_bundle(toy[0], params, tmp_path / "bundle")
    assert set(manifest["left_out"]) == {
        "data/chunk/chunks.parquet",
        "data/embed/ids.parquet",
        "data/embed/vectors.npy",
    }
    assert not (tmp_path / "bundle" / "data" / "chunk").exists()
    # What the server's index is checked against stays.
    assert (tmp_path / "bundle" / "data" / "embed" / "embeddings.json").is_file()
    assert verify_bundle(tmp_path / "bundle") == json.loads(json.dumps(manifest))
    assert "canary" not in (tmp_path / "bundle" / "params.yaml").read_text()
    assert load_params(tmp_path / "bundle" / "params.yaml").index.url == "https://qdrant:6333/"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://user:canary@host/a", "https://host/a"),
        ("see http://canary@host:1/b?token=canary#canary now", "see http://host:1/b now"),
        ("postgresql+psycopg://u:canary@db:5432/mlflow", "postgresql+psycopg://db:5432/mlflow"),
        ("sqlite:////home/me/mlflow.db", "sqlite:////home/me/mlflow.db"),
        ("http://[canary", "http://..."),
        ("bundled:minilm", "bundled:minilm"),
        ({"a": ["ftp://canary:canary@h"], "b": 3}, {"a": ["ftp://h"], "b": 3}),
    ],
)
def test_urls_lose_their_credentials(text: object, kept: object) -> None:
    assert without_credentials(text) == kept
