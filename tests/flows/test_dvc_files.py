"""Hashes agree with DVC's own, and a dvc.lock is read as DVC wrote it."""

from __future__ import annotations

import hashlib
import json

import pytest

from flows import dvc, dvc_files
from flows.dvc_config import read_config, remote_section, write_local
from flows.dvc_files import FileFacts
from flows.snapshot import take_snapshot
from rag.artifacts import Artifacts
from rag.errors import RagError


@pytest.mark.integration
def test_hashes_locks_and_settings_are_those_of_dvc(dvc_project: Artifacts) -> None:
    root = dvc_project.root
    (dvc_project.raw / "documents").mkdir(parents=True)
    (dvc_project.raw / "b.txt").write_text("two\r\nlines\n")
    (dvc_project.raw / "documents" / "a.md").write_bytes(b"\x00one")
    (dvc_project.raw / "__pycache__").mkdir()
    (dvc_project.raw / "__pycache__" / "x.pyc").write_bytes(b"compiled")
    (root / ".dvcignore").write_text("__pycache__/\n")
    remote = root / "copies"
    dvc.set_default_remote(root, "ragloop", str(remote))
    config = read_config(root)
    assert config["core"]["remote"] == "ragloop"
    assert config[remote_section("ragloop")]["url"] == str(remote)
    write_local(root, {**config, "cache": {"dir": str(remote / "cache")}})
    assert read_config(root)["cache"]["dir"] == str(remote / "cache")
    assert (root / ".dvc" / "config.local").stat().st_mode & 0o077 == 0
    cache = dvc.cache_folder(root)
    assert cache == remote / "cache"

    name = take_snapshot(dvc_project).data_hash
    found = dvc_files.listing(root, "data/raw")
    assert found["data/raw/documents/a.md"] == FileFacts(hashlib.md5(b"\x00one").hexdigest(), 4)
    # DVC names a folder by the MD5 of its sorted listing, which it keeps in its cache.
    listed = cache / "files" / "md5" / name[:2] / name[2:]
    ours = {path.removeprefix("data/raw/"): facts.md5 for path, facts in found.items()}
    assert ours == {row["relpath"]: row["md5"] for row in json.loads(listed.read_text())}

    dvc.reproduce("work", dvc_project)
    (stage,) = dvc_files.read_lock((root / "dvc.lock").read_text())
    assert stage.name == "work"
    assert stage.inputs == {"work.py": hashlib.md5((root / "work.py").read_bytes()).hexdigest()}
    assert stage.outputs == {"out.txt": hashlib.md5(b"1").hexdigest()}


@pytest.mark.parametrize("text", ["", "stages: [", "schema: '2.0'"])
def test_what_is_no_lock_is_an_error(text: str) -> None:
    with pytest.raises(RagError, match=r"dvc\.lock cannot be read"):
        dvc_files.read_lock(text)
