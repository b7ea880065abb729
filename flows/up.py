"""`ragloop up`: Prefect's server, MLflow's pages and the schedule, supervised as one.

Each part is a program below a guard, so that none survives us. Lines of all parts come out in one
log with the part's name in front. The parts stop together: on Ctrl-C, on SIGTERM, or when one of
them ends by itself.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from flows import lock, processes, server, stores, terminal
from rag.artifacts import Artifacts
from rag.errors import InputError, RagError
from rag.params import Params
from rag.release import store

Lines = queue.Queue[tuple[str, str]]
_WATCH_SECONDS = 0.2
_COLOURS = {"prefect": "blue", "mlflow": "magenta", "retrain": "green"}


@dataclass(frozen=True)
class Part:
    """One program; `address` is what people open, `health` says that it is up."""

    name: str
    command: Sequence[str]
    address: str | None = None
    health: str | None = None


def run(artifacts: Artifacts, params: Params) -> None:
    """Serves until it is stopped.

    BusyError where another one serves this project, InputError where a port is taken, RagError
    where a part ends by itself.
    """
    stores.initialise(artifacts, params)
    with lock.hold(server.up_lock(artifacts), "ragloop up"), _stopped_by_signals():
        parts = _parts(artifacts, params)
        _check_ports(params, parts)
        lines: Lines = queue.Queue()
        running: dict[str, processes.Program] = {}
        with ExitStack() as programs:
            for part in parts:
                program = programs.enter_context(processes.running(part.command, artifacts.root))
                running[part.name] = program
                reader = threading.Thread(
                    target=_read, args=(part.name, program, lines), daemon=True
                )
                reader.start()
                if part.health:
                    _await(part, program, lines)
            _announce(artifacts, params, parts)
            _supervise(running, lines)


def _parts(artifacts: Artifacts, params: Params) -> list[Part]:
    ports = params.schedule
    parts = []
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        address = f"http://{server.HOST}:{ports.prefect_port}"
        api = os.environ["PREFECT_API_URL"] = f"{address}/api"
        command = server.prefect_command(ports.prefect_port)
        parts.append(Part("prefect", command, address, f"{api}/health"))
    uri = store.tracking_uri(artifacts, params)
    if uri.startswith(store.SQLITE):
        address = f"http://{server.HOST}:{ports.mlflow_port}"
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", server.HOST, "--port", str(ports.mlflow_port)),
            *("--backend-store-uri", uri),
            *("--default-artifact-root", store.artifact_folder(artifacts).as_uri()),
        ]
        parts.append(Part("mlflow", command, address, f"{address}/health"))
    parts.append(Part("retrain", [sys.executable, "-m", "flows.schedule"]))
    return parts


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
    wanted = {"prefect": params.schedule.prefect_port, "mlflow": params.schedule.mlflow_port}
    taken = [
        f"port {wanted[part.name]} is in use: stop its program, or set another "
        f"schedule.{part.name}_port in params.yaml"
        for part in parts
        if part.name in wanted and not server.is_port_free(wanted[part.name])
    ]
    if taken:
        raise InputError(taken)


def _await(part: Part, program: processes.Program, lines: Lines) -> None:
    with terminal.step(part.name) as step:
        server.await_healthy(
            program, str(part.health), part.name, meanwhile=lambda: _print_waiting(lines)
        )
        step.finish(str(part.address))


def _announce(artifacts: Artifacts, params: Params, parts: Sequence[Part]) -> None:
    addresses = {part.name: part.address for part in parts if part.address}
    record = server.up_record(artifacts)
    record.write_text(json.dumps(addresses), encoding="utf-8")
    when = params.schedule
    cron = f"cron {when.cron} {when.timezone}"
    rhythm = f"every {when.interval_seconds} s" if when.interval_seconds else cron
    terminal.say(f"  retrain is scheduled: [bold]{rhythm}[/]. Ctrl-C stops all.")


def _supervise(running: dict[str, processes.Program], lines: Lines) -> None:
    while True:
        time.sleep(_WATCH_SECONDS)
        _print_waiting(lines)
        for name, program in running.items():
            if program.exit_code is not None:
                _print_waiting(lines)
                raise RagError(f"{name} ended by itself with exit code {program.exit_code}")


def _read(name: str, program: processes.Program, lines: Lines) -> None:
    for line in program.output or ():
        if line.strip():
            lines.put((name, line.rstrip()))


def _print_waiting(lines: Lines) -> None:
    from rich.markup import escape

    while not lines.empty():
        name, line = lines.get()
        terminal.say(f"[{_COLOURS[name]}]{name:8}[/][dim]│[/] {escape(line)}")
