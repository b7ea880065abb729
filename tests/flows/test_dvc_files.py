"""Hashes agree with DVC's own, and a dvc.lock is read as DVC wrote it."""

from __future__ import annotations

import hashlib
import json

import pytest

from flows import dvc, dvc_files
from flows.dvc_config import read_config, remote_section, write_local
from flows.snapshot import record_of, take_snapshot
from rag.artifacts import Artifacts
from rag.errors import RagError


def test_the_files_of_a_snapshot_have_the_hashes_that_dvc_recorded(dvc_project: Artifacts) -> None:
    (dvc_project.raw / "documents").mkdir(parents=True)
    (dvc_project.raw / "b.txt").write_text("two\r\nlines\n")
    (dvc_project.raw / "documents" / "a.md").write_bytes(b"\x00one")
    (dvc_project.raw / "__pycache__").mkdir()
    (dvc_project.raw / "__pycache__" / "x.pyc").write_bytes(b"compiled")
    (dvc_project.root / ".dvcignore").write_text("__pycache__/\n")
    snapshot = take_snapshot(dvc_project)
    found = dvc_files.listing(dvc_project.root, "data/raw")
    assert found["data/raw/documents/a.md"] == dvc_files.FileFacts(
        hashlib.md5(b"\x00one").hexdigest(), 4
    )
    # DVC names a folder by the MD5 of its sorted listing, which it keeps in its cache.
    name = snapshot.data_hash
    listed = dvc.cache_folder(dvc_project.root) / "files" / "md5" / name[:2] / name[2:]
    ours = {path.removeprefix("data/raw/"): facts.md5 for path, facts in found.items()}
    assert ours == {row["relpath"]: row["md5"] for row in json.loads(listed.read_text())}
    assert record_of(dvc_project).is_file()


def test_a_lock_is_read_by_stage(dvc_project: Artifacts) -> None:
    dvc.reproduce("work", dvc_project)
    text = (dvc_project.root / "dvc.lock").read_text()
    (stage,) = dvc_files.read_lock(text)
    assert stage.name == "work"
    assert stage.inputs == {
        "work.py": dvc_files.listing(dvc_project.root, "work.py")["work.py"].md5
    }
    assert stage.outputs == {"out.txt": hashlib.md5(b"1").hexdigest()}


@pytest.mark.parametrize("text", ["", "stages: [", "schema: '2.0'"])
def test_what_is_no_lock_is_an_error(text: str) -> None:
    with pytest.raises(RagError, match=r"dvc\.lock cannot be read"):
        dvc_files.read_lock(text)


def test_dvcs_configuration_is_read_as_dvc_wrote_it(dvc_project: Artifacts) -> None:
    remote = dvc_project.root / "copies"
    dvc.set_default_remote(dvc_project.root, "ragloop", str(remote))
    config = read_config(dvc_project.root)
    assert config["core"]["remote"] == "ragloop"
    assert config[remote_section("ragloop")]["url"] == str(remote)

    write_local(dvc_project.root, {**config, "cache": {"dir": str(remote / "cache")}})
    assert dvc.cache_folder(dvc_project.root) == remote / "cache"
    assert read_config(dvc_project.root)["cache"]["dir"] == str(remote / "cache")
    assert (dvc_project.root / ".dvc" / "config.local").stat().st_mode & 0o077 == 0
