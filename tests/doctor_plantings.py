"""How faults of an installation are planted: each as it would come about."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path

import yaml

from flows.identity import Identity

Planting = Callable[[Path], AbstractContextManager[object] | None]
DEAD = {"pid": 2**22 + 1, "process_started": 1.0, "what": "ragloop run", "since": "then"}


def state(root: Path) -> Path:
    return root / ".ragloop"


def run_sql(name: str, *statements: str) -> Planting:
    def plant(root: Path) -> None:
        database = sqlite3.connect(state(root) / name)
        for statement in statements:
            database.execute(statement)
        database.commit()
        database.close()

    return plant


def set_params(section: str, **values: object) -> Planting:
    def plant(root: Path) -> None:
        path = root / "params.yaml"
        tree = yaml.safe_load(path.read_text())
        tree.setdefault(section, {}).update(values)
        path.write_text(yaml.safe_dump(tree))

    return plant


def leave_lock(file: str, **facts: object) -> Planting:
    def plant(root: Path) -> None:
        import platform

        path = state(root) / file
        path.write_text(json.dumps({**DEAD, "host": platform.node(), **facts}))

    return plant


def hang(root: Path) -> None:
    """The lock of a process that lives (this one) and has given no sign for ten minutes."""
    leave_lock("lock", **asdict(Identity.of_this_process()))(root)
    os.utime(state(root) / "lock", (time.time() - 600, time.time() - 600))


def write_file(name: str, text: str) -> Planting:
    def plant(root: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return plant


def remove_path(name: str) -> Planting:
    def plant(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return plant


def champion_bundle(root: Path) -> Path:
    """The files of version 2, found as anybody could: by the ledger's last word on it."""
    with sqlite3.connect(state(root) / "mlflow.db") as database:
        found = database.execute("select source from model_versions where version = 2").fetchone()
    model = found[0].removeprefix("models:/")
    return state(root) / "mlartifacts" / "models" / model / "artifacts" / "artifacts" / "bundle"


def in_bundle(change: Callable[[Path], object]) -> Planting:
    return lambda root: change(champion_bundle(root)) and None


def champion_index(root: Path) -> Path:
    with sqlite3.connect(state(root) / "mlflow.db") as database:
        query = "select value from model_version_tags where version = 2 and key = 'fingerprint'"
        return state(root) / "index" / str(database.execute(query).fetchone()[0])


def cut_index(root: Path) -> None:
    """A file of the index loses its end, as after a full disk."""
    path = max(
        (item for item in champion_index(root).rglob("*") if item.is_file()),
        key=lambda item: item.stat().st_size,
    )
    os.truncate(path, path.stat().st_size // 2)


def alter_ledger(root: Path) -> None:
    path = state(root) / "ledger.jsonl"
    path.write_text(path.read_text().replace("f1 is better", "f1 is worse", 1))


def cut_ledger(root: Path) -> None:
    path = state(root) / "ledger.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])


def other_weights(root: Path) -> None:
    """Somebody saves another model under the name of the encoder."""
    folder = root / "tiny" / "encoder"
    tokens = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(tokens, indent=1))


def neither_pulled_nor_kept(root: Path) -> None:
    """A fresh clone, and a remote that nobody pushed to."""
    shutil.rmtree(root / "data" / "raw")
    shutil.rmtree(root / ".dvc" / "cache")


def date_in_future(root: Path) -> None:
    os.utime(state(root) / "ledger.head", (time.time() + 3600, time.time() + 3600))


def large_log(root: Path) -> None:
    (state(root) / "logs").mkdir(exist_ok=True)
    with (state(root) / "logs" / "retrain.log").open("w") as file:
        file.truncate(2_000_000_000)  # a hole: it takes no room here


@contextmanager
def open_port(root: Path) -> Iterator[None]:
    port = yaml.safe_load((root / "params.yaml").read_text())["schedule"]["mlflow_port"]
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("0.0.0.0", port))
        listening.listen()
        yield


@contextmanager
def start_orphan(root: Path) -> Iterator[None]:
    """A stage whose guard was killed: the leader of its session is gone, it works on."""
    stage = [sys.executable, "-c", "import time; time.sleep(120)", "-m", "rag", "embed"]
    starter = (
        "import subprocess, sys; "
        "print(subprocess.Popen(sys.argv[1:], stdout=-3, stderr=-3).pid)"  # -3: DEVNULL
    )
    done = subprocess.run(
        [sys.executable, "-c", starter, *stage],
        cwd=root,
        start_new_session=True,
        capture_output=True,
        text=True,
        check=True,
    )
    pid = int(done.stdout)
    try:
        yield
    finally:
        os.kill(pid, 9)


@contextmanager
def fake_package(root: Path, name: str, version: str) -> Iterator[None]:
    """What pip leaves of an upgrade: another version's metadata, found first."""
    folder = root.with_name("site") / f"{name}-{version}"
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
