"""`ragloop up`: Prefect's server, MLflow's pages and the schedule, supervised as one.

Each part is a program below a guard, so that none survives us, and is started again when it ends or
hangs (`flows/supervisor.py`). They stop together: on Ctrl-C, on SIGTERM, or when one of them cannot
be kept. Whatever the last `ragloop up` left when it was killed is put right first, and a retraining
that was interrupted goes on from its finished stages.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime

from flows import (
    lock,
    metrics_server,
    orphans,
    reconcile,
    resume,
    server,
    stores,
    sweep,
    terminal,
)
from flows.supervisor import Part, Supervisor
from flows.up_log import UpLog, log_file
from rag.artifacts import Artifacts
from rag.errors import InputError, RagError
from rag.params import Params
from rag.release import store

#: The schedule's part starts last and stops first.
SCHEDULE = "retrain"


def run(artifacts: Artifacts, params: Params) -> None:
    """Serves until it is stopped.

    BusyError where another one serves this project, InputError where a port is taken, RagError
    where a part cannot be kept running.
    """
    stores.initialise(artifacts, params)
    with lock.hold(server.up_lock(artifacts), "ragloop up"), _stopped_by_signals():
        killed_at = _take_record(artifacts)
        orphans.end_orphans(artifacts)
        servers = [*_servers(artifacts, params), *metrics_server.parts(params)]
        _check_ports(params, servers)
        log = UpLog(log_file(artifacts), params.up)
        try:
            with _own_prefect(servers), sweep.regularly(artifacts, params, log):
                parts = [*servers, _schedule(artifacts, params, log, servers, killed_at)]
                Supervisor(artifacts, params.up, log).run(
                    parts, lambda: _announce(artifacts, params, log, parts)
                )
        finally:
            log.close()
            server.up_record(artifacts).unlink(missing_ok=True)


def _take_record(artifacts: Artifacts) -> datetime | None:
    """When the last `ragloop up` began to serve, if it was killed: it removes its record itself."""
    record = server.up_record(artifacts)
    try:
        served = datetime.fromtimestamp(record.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
    record.unlink()
    return served


def _servers(artifacts: Artifacts, params: Params) -> list[Part]:
    """The servers to start: those that neither the environment nor params.yaml name."""
    ports = params.schedule
    parts = []
    if not os.environ.get("PREFECT_API_URL"):
        address = f"http://{server.HOST}:{ports.prefect_port}"
        command = server.prefect_command(ports.prefect_port)
        # Without it the pages look for their server at port 4200, whatever port they come from.
        pages = {"PREFECT_SERVER_UI_API_URL": f"{address}/api"}
        parts.append(Part("prefect", command, f"{address}/api/health", address, variables=pages))
    uri = store.tracking_uri(artifacts, params)
    if uri.startswith(store.SQLITE):
        address = f"http://{server.HOST}:{ports.mlflow_port}"
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--uvicorn-opts", "--log-level warning"),
            *("--host", server.HOST, "--port", str(ports.mlflow_port)),
            *("--backend-store-uri", uri),
            *("--default-artifact-root", store.artifact_folder(artifacts, params).as_uri()),
        ]
        parts.append(Part("mlflow", command, f"{address}/health", address))
    return parts


def _schedule(
    artifacts: Artifacts,
    params: Params,
    log: UpLog,
    servers: Sequence[Part],
    killed_at: datetime | None,
) -> Part:
    """The part that retrains; each of its starts begins with what its last one left.

    A run that died with it is Running still, or Crashed since its last start, where there was time
    to say so.
    """
    port = server.free_port()
    since = killed_at
    prefect = next((part for part in servers if part.name == "prefect"), None)

    def before() -> None:
        import httpx
        from prefect.exceptions import PrefectException

        nonlocal since
        try:
            crashed = reconcile.crashed_runs(artifacts, since) if since else []
            dead = crashed + reconcile.close_dead_runs(artifacts, older_than_seconds=0)
            lines = resume.resume(dead, limit=params.up.max_resumes)
        except (httpx.HTTPError, PrefectException) as error:
            reason = str(error) or type(error).__name__
            raise RagError(f"Prefect's server does not answer as it should: {reason}") from error
        since = datetime.now(UTC)
        for line in lines:
            log.say(f"  {line}")

    def after() -> None:
        """Whatever the schedule was running when it was stopped."""
        if prefect is None or server.is_healthy(prefect.health):
            reconcile.close_dead_runs(artifacts, older_than_seconds=0)

    return Part(
        SCHEDULE,
        [sys.executable, "-m", "flows.schedule", str(port)],
        f"http://{server.HOST}:{port}/health",
        needs=prefect.name if prefect else None,
        before=before,
        after=after,
    )


def _own_prefect(servers: Sequence[Part]) -> AbstractContextManager[None]:
    address = next((part.address for part in servers if part.name == "prefect"), None)
    return server.own_api(address) if address else nullcontext()


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM and a closed terminal end the block as Ctrl-C does: quietly, all parts stopped."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {name: signal.signal(name, stop) for name in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    except KeyboardInterrupt:
        terminal.say("[dim]stopped[/]")
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _check_ports(params: Params, parts: Sequence[Part]) -> None:
    wanted = {
        "prefect": ("schedule.prefect_port", params.schedule.prefect_port),
        "mlflow": ("schedule.mlflow_port", params.schedule.mlflow_port),
        metrics_server.NAME: ("up.metrics_port", params.up.metrics_port),
    }
    settings = [wanted[part.name] for part in parts if part.name in wanted]
    taken = [
        f"port {port} is in use: stop its program, or set another {name} in params.yaml"
        for name, port in settings
        if port is not None and not server.is_port_free(port)
    ]
    if taken:
        raise InputError(taken)


def _announce(artifacts: Artifacts, params: Params, log: UpLog, parts: Sequence[Part]) -> None:
    addresses = {part.name: part.address for part in parts if part.address}
    record = server.up_record(artifacts)
    record.write_text(json.dumps(addresses), encoding="utf-8")
    when = params.schedule
    cron = f"cron {when.cron} {when.timezone}"
    rhythm = f"every {when.interval_seconds} s" if when.interval_seconds else cron
    log.say(f"  retrain is scheduled: [bold]{rhythm}[/]. Ctrl-C stops all.")
