"""The parts of compose.yaml from packages: PostgreSQL, both servers with their locks on, a worker.

Prefect's server and MLflow's keep their data in PostgreSQL and ask who calls; the project is
deployed to a work pool, and a worker retrains it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows import manual, processes, server
from rag.artifacts import Artifacts
from tests.integration.conftest import TIMEOUT_SECONDS, Finished, Project

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PASSWORD = "of-the-database"
PREFECT_AUTH = "ragloop:of-prefect"
MLFLOW_PASSWORD = "of-mlflow-and-long"
_DEBIAN = Path("/usr/lib/postgresql")
#: Everybody may make a folder there and reach it, whatever TMPDIR says.
_PUBLIC = "/tmp"


def postgres_programs() -> Path | None:
    """The folder of initdb and postgres, which Debian does not put on PATH."""
    found = shutil.which("initdb")
    candidates = [
        *sorted(_DEBIAN.glob("*/bin")),
        *([Path(found).resolve().parent] if found else []),
    ]
    return candidates[-1] if candidates else None


@dataclass(frozen=True)
class Team:
    """Addresses of the servers, and the environment of who may use them."""

    prefect: str
    mlflow: str
    database: str
    project: Project


@contextmanager
def postgres(programs: Path) -> Iterator[str]:
    """A new PostgreSQL on this machine only; its address with user and password.

    Its files lie in a folder of their own: pytest's are root's alone, where root runs the tests,
    and PostgreSQL refuses to run as root.
    """
    user = "postgres" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="ragloop-postgres-", dir=_PUBLIC) as name:
        folder = Path(name)
        (folder / "password").write_text(PASSWORD)
        if user:
            shutil.chown(folder, user)
            shutil.chown(folder / "password", user)
        with _running(programs, folder, user) as address:
            yield address


@contextmanager
def _running(programs: Path, folder: Path, user: str | None) -> Iterator[str]:
    data, port = folder / "data", server.free_port()
    options: dict[str, object] = {"cwd": folder, "user": user}
    subprocess.run(
        [
            *(str(programs / "initdb"), "--pgdata", str(data), "--username=ragloop", "--no-sync"),
            *("--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--encoding=UTF8"),
        ],
        check=True,
        capture_output=True,
        **options,  # type: ignore[call-overload]
    )
    running = subprocess.Popen(
        [
            *(str(programs / "postgres"), "-D", str(data), "-h", server.HOST, "-p", str(port)),
            *("-k", str(folder), "-c", "fsync=off"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **options,  # type: ignore[call-overload]
    )
    address = f"ragloop:{PASSWORD}@{server.HOST}:{port}"
    try:
        _make_databases(programs, address)
        yield address
    finally:
        running.send_signal(signal.SIGINT)  # its fast way to stop: clients are cut off
        running.wait(30)


def _make_databases(programs: Path, address: str) -> None:
    """As the container does at its first start: an empty `prefect`, then deploy/databases.sql."""
    ready = [str(programs / "pg_isready"), "--quiet", f"--dbname=postgresql://{address}/postgres"]
    deadline = time.monotonic() + 60
    while subprocess.run(ready, check=False).returncode != 0:
        assert time.monotonic() < deadline, "PostgreSQL does not start"
        time.sleep(0.1)
    script = Path(__file__).parents[2] / "deploy" / "databases.sql"
    for database, work in (
        ("postgres", "--command=CREATE DATABASE prefect"),
        ("prefect", f"--file={script}"),
    ):
        command = [str(programs / "psql"), "--quiet", "--set=ON_ERROR_STOP=1", work]
        subprocess.run([*command, f"postgresql://{address}/{database}"], check=True)


@pytest.fixture(scope="module")
def team(
    project: Project, first_run: Finished, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Team]:
    """The servers, and a copy of the project that has run, with none of its stores."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg2", reason="needs the extra: pip install 'ragloop[team]'")
    assert first_run.code == 0, first_run.err
    folder = tmp_path_factory.mktemp("team")
    root = folder / "project"
    shutil.copytree(project.root, root, symlinks=True, ignore=_stores)
    with ExitStack() as stack:
        database = stack.enter_context(postgres(programs))
        ports = server.free_port(), server.free_port()
        prefect, mlflow = (f"http://{server.HOST}:{port}" for port in ports)
        base = dict(project.environment) | {"PREFECT_HOME": str(folder / "prefect-home")}
        auth = folder / "mlflow_auth.ini"
        auth.write_text(
            "[mlflow]\ndefault_permission = READ\n"
            f"database_uri = postgresql://{database}/mlflow_users\nauth_cache_ttl_seconds = 60\n"
        )
        _serve(
            stack,
            folder,
            "prefect",
            server.prefect_command(ports[0]),
            base
            | {
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{database}/prefect",
                "PREFECT_SERVER_API_AUTH_STRING": PREFECT_AUTH,
                "PREFECT_SERVER_UI_ENABLED": "false",
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            },
        )
        _serve(
            stack,
            folder,
            "mlflow",
            [
                *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth"),
                *("--host", server.HOST, "--port", str(ports[1]), "--workers", "1"),
                *("--artifacts-destination", str(folder / "artifacts")),
            ],
            base
            | {
                "MLFLOW_BACKEND_STORE_URI": f"postgresql://{database}/mlflow",
                "MLFLOW_AUTH_CONFIG_PATH": str(auth),
                "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
                "MLFLOW_AUTH_ADMIN_PASSWORD": MLFLOW_PASSWORD,
                "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-cookies",
                "MLFLOW_DISABLE_TELEMETRY": "true",
                "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            },
        )
        environment = dict(project.environment) | {
            "PREFECT_API_URL": f"{prefect}/api",
            "PREFECT_API_AUTH_STRING": PREFECT_AUTH,
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": MLFLOW_PASSWORD,
        }
        await_answer(f"{prefect}/api/health", folder / "prefect.log")
        await_answer(f"{mlflow}/health", folder / "mlflow.log")
        # Whatever other tests have set meanwhile: this run is to promote.
        known = ["reader.training.epochs=6", "chunk.overlap_sentences=1"]
        manual.write_changes(Artifacts(root), [f"tracking.uri={mlflow}", *known])
        yield Team(prefect, mlflow, database, Project(root, environment, project.attempts))


def _stores(folder: str, names: Sequence[str]) -> set[str]:
    keeps_vectors = Path(folder).name == ".ragloop"
    return {name for name in names if name not in ("vectors", "models")} if keeps_vectors else set()


def _serve(
    stack: ExitStack,
    folder: Path,
    name: str,
    command: Sequence[str],
    variables: Mapping[str, str],
) -> None:
    log = folder / f"{name}.log"
    stack.enter_context(processes.running(command, folder, log=log, variables=variables))


def await_answer(url: str, log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not server.is_healthy(url):
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.2)


def status_of(url: str) -> int:
    """The status of an answer to somebody without a password."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def rows(team: Team, database: str, query: str) -> list[tuple[object, ...]]:
    import psycopg2

    with psycopg2.connect(f"postgresql://{team.database}/{database}") as connection:
        cursor = connection.cursor()
        cursor.execute(query)
        return list(cursor.fetchall())


def test_nobody_gets_in_without_a_password(team: Team) -> None:
    assert status_of(f"{team.prefect}/api/admin/version") == 401
    assert status_of(f"{team.mlflow}/api/2.0/mlflow/experiments/get?experiment_id=0") == 401


def test_a_worker_of_a_work_pool_retrains_through_both_servers(team: Team) -> None:
    project = team.project
    deployed = project.python("-m", "flows.work_pool", "ragloop")
    assert deployed.returncode == 0, deployed.stderr
    assert deployed.stdout == "retrain/scheduled is deployed to the work pool ragloop (process)\n"
    ordered = project.python("-m", "prefect", "deployment", "run", "retrain/scheduled")
    assert ordered.returncode == 0, ordered.stderr
    worked = project.python(
        *("-m", "prefect", "worker", "start", "--pool", "ragloop", "--type", "process"),
        "--run-once",
    )
    said = worked.stdout + worked.stderr
    assert worked.returncode == 0, said
    states = rows(team, "prefect", "select state_type, deployment_id is not null from flow_run")
    assert ("COMPLETED", True) in states, said
    assert [row["outcome"] for row in project.ledger()] == ["PROMOTE"], said
    assert rows(team, "mlflow", "select status from runs") == [("FINISHED",)]
    assert rows(team, "mlflow", "select alias, version from registered_model_aliases") == [
        ("champion", 1)
    ]
    answered = project.ragloop("ask", "Who commands the Galebird?", "--json")
    assert answered.code == 0, answered.err
    assert project.connections_refused() == []
