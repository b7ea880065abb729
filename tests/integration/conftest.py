"""A toy project that is retrained for real, with every connection beyond this machine refused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rag.release import ledger
from tests.toy import make_toy_project

#: Loaded by every Python process that starts: connects to loopback only, and writes down the rest.
NO_NETWORK = """
import os, socket

def _refuse(address, family):
    if family in (socket.AF_UNIX, getattr(socket, "AF_NETLINK", None)):
        return
    host = str(address[0])
    if host in ("localhost", "::1", "0.0.0.0", "") or host.startswith("127."):
        return
    with open(os.environ["NETWORK_ATTEMPTS"], "a") as log:
        log.write(f"{host}\\n")
    raise ConnectionRefusedError(f"no network in this test: {host}")

class _Socket(socket.socket):
    def connect(self, address):
        _refuse(address, self.family)
        return super().connect(address)

    def connect_ex(self, address):
        _refuse(address, self.family)
        return super().connect_ex(address)

    def sendto(self, data, *rest):
        _refuse(rest[-1], self.family)
        return super().sendto(data, *rest)

_lookup = socket.getaddrinfo

def _getaddrinfo(host, *rest, **more):
    name = host.decode() if isinstance(host, bytes) else host
    _refuse((name or "",), socket.AF_INET)
    return _lookup(host, *rest, **more)

socket.socket = _Socket
socket.getaddrinfo = _getaddrinfo
"""
TIMEOUT_SECONDS = 400


@dataclass(frozen=True)
class Project:
    """A project in a folder, with the environment of a user who has set nothing."""

    root: Path
    environment: Mapping[str, str]
    attempts: Path

    def python(
        self, *arguments: str, variables: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs this Python in the project's folder."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env={**self.environment, **(variables or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )

    def ragloop(self, *arguments: str) -> Finished:
        """Runs a command and says how long it took."""
        started = time.monotonic()
        done = self.python("-m", "flows.cli", *arguments)
        return Finished(done.returncode, done.stdout, done.stderr, time.monotonic() - started)

    def ledger(self) -> list[dict[str, Any]]:
        return ledger.read(self.root / ".ragloop" / "ledger.jsonl")

    def prefect(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of Prefect's own database."""
        return self._query("prefect/prefect.db", query)

    def mlflow(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of MLflow's own database."""
        return self._query("mlflow.db", query)

    def connections_refused(self) -> Sequence[str]:
        """Hosts that some process tried to reach."""
        return self.attempts.read_text().splitlines() if self.attempts.exists() else []

    def _query(self, name: str, query: str) -> list[tuple[Any, ...]]:
        uri = f"file:{self.root / '.ragloop' / name}?mode=ro"
        with sqlite3.connect(uri, uri=True, timeout=30) as database:
            return database.execute(query).fetchall()


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str
    seconds: float

    def steps(self) -> dict[str, str]:
        """`{"prepare": "✓", "chunk": "="}`: done, unchanged or failed."""
        words = [line.split() for line in self.err.splitlines()]
        return {word[1]: word[0] for word in words if len(word) > 1 and word[0] in "✓=✗"}


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A toy project that has never run; beside it, a copy of its data and its events will be."""
    folder = tmp_path_factory.mktemp("integration")
    options = (
        "data.remote=../copies",
        "data.commit_runs=true",
        f"tracking.openlineage={(folder / 'events.jsonl').as_uri()}",
    )
    root = make_toy_project(folder / "toy", overrides=options)
    refusing = tmp_path_factory.mktemp("no-network")
    (refusing / "sitecustomize.py").write_text(NO_NETWORK)
    attempts = refusing / "attempts"
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH")
    environment = {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PYTHONPATH": str(refusing),
        "NETWORK_ATTEMPTS": str(attempts),
    }
    return Project(root, environment, attempts)


@pytest.fixture(scope="session")
def first_run(project: Project) -> Finished:
    """The first retraining, from nothing."""
    return project.ragloop("run")
