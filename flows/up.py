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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from flows import lock, processes, reconcile, server, stores, terminal
from rag.artifacts import Artifacts
from rag.errors import InputError, RagError
from rag.params import Params
from rag.release import store

_WATCH_SECONDS = 0.2
_COLOURS = {"prefect": "blue", "mlflow": "magenta", "retrain": "green"}


@dataclass(frozen=True)
class Part:
    """One program; `address` is what people open, `health` says that it is up.

    `variables` are added to our environment.
    """

    name: str
    command: Sequence[str]
    address: str | None = None
    health: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)


def run(artifacts: Artifacts, params: Params) -> None:
    """Serves until it is stopped.

    BusyError where another one serves this project, InputError where a port is taken, RagError
    where a part ends by itself.
    """
    stores.initialise(artifacts, params)
    with lock.hold(server.up_lock(artifacts), "ragloop up"), _stopped_by_signals():
        parts = _parts(artifacts, params)
        _check_ports(params, parts)
        supervisor = _Supervisor(artifacts)
        with ExitStack() as stack:
            for part in parts:
                supervisor.start(part, stack)
                if part.name == "prefect":
                    stack.enter_context(server.own_api(str(part.address)))
            reconcile.close_dead_runs(artifacts, older_than_seconds=0)
            # Whatever the schedule was running when it was stopped.
            stack.callback(reconcile.close_dead_runs, artifacts, older_than_seconds=0)
            supervisor.start(Part("retrain", [sys.executable, "-m", "flows.schedule"]), stack)
            _announce(artifacts, params, parts)
            supervisor.watch()


def _parts(artifacts: Artifacts, params: Params) -> list[Part]:
    """The servers to start: those that neither the environment nor params.yaml name."""
    ports = params.schedule
    parts = []
    if not os.environ.get("PREFECT_API_URL"):
        address = f"http://{server.HOST}:{ports.prefect_port}"
        command = server.prefect_command(ports.prefect_port)
        # Without it the pages look for their server at port 4200, whatever port they come from.
        pages = {"PREFECT_SERVER_UI_API_URL": f"{address}/api"}
        parts.append(Part("prefect", command, address, f"{address}/api/health", pages))
    uri = store.tracking_uri(artifacts, params)
    if uri.startswith(store.SQLITE):
        address = f"http://{server.HOST}:{ports.mlflow_port}"
        command = [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--uvicorn-opts", "--log-level warning"),
            *("--host", server.HOST, "--port", str(ports.mlflow_port)),
            *("--backend-store-uri", uri),
            *("--default-artifact-root", store.artifact_folder(artifacts).as_uri()),
        ]
        parts.append(Part("mlflow", command, address, f"{address}/health"))
    return parts


class _Supervisor:
    """Starts parts, prints what they say, and notices when one ends."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._root = artifacts.root
        self._running: dict[str, processes.Program] = {}
        self._lines: queue.Queue[tuple[str, str]] = queue.Queue()

    def start(self, part: Part, stack: ExitStack) -> None:
        """Starts a part, to be stopped with `stack`, and waits until it is healthy."""
        variables = {**os.environ, **part.variables}
        program = stack.enter_context(
            processes.running(part.command, self._root, variables=variables)
        )
        self._running[part.name] = program
        reading = threading.Thread(target=self._read, args=(part.name, program), daemon=True)
        reading.start()
        if not part.health:
            return
        with terminal.step(part.name) as step:
            try:
                server.await_healthy(program, part.health, part.name)
            except RagError:
                self._print_waiting()
                raise
            step.finish(str(part.address))
        # What a server says while it starts well is of no use to anybody.
        while not self._lines.empty():
            self._lines.get()

    def watch(self) -> None:
        """Prints lines for as long as every part runs; RagError when one ends by itself."""
        while True:
            time.sleep(_WATCH_SECONDS)
            self._print_waiting()
            for name, program in self._running.items():
                if program.exit_code is not None:
                    self._print_waiting()
                    raise RagError(f"{name} ended by itself with exit code {program.exit_code}")

    def _read(self, name: str, program: processes.Program) -> None:
        for line in program.output or ():
            if line.strip():
                self._lines.put((name, line.rstrip()))

    def _print_waiting(self) -> None:
        from rich.markup import escape

        while not self._lines.empty():
            name, line = self._lines.get()
            terminal.say(f"[{_COLOURS[name]}]{name:8}[/][dim]│[/] {escape(line)}")


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


def _announce(artifacts: Artifacts, params: Params, parts: Sequence[Part]) -> None:
    addresses = {part.name: part.address for part in parts if part.address}
    record = server.up_record(artifacts)
    record.write_text(json.dumps(addresses), encoding="utf-8")
    when = params.schedule
    cron = f"cron {when.cron} {when.timezone}"
    rhythm = f"every {when.interval_seconds} s" if when.interval_seconds else cron
    terminal.say(f"  retrain is scheduled: [bold]{rhythm}[/]. Ctrl-C stops all.")
