"""What supervises goes on while the disk is full, or a server dies in the middle of an answer."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from flows import prefect_facts, schedule, server, terminal
from flows.up_log import UpLog
from rag.errors import RagError
from rag.params import UpParams

FULL = Path("/dev/full")

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")


def test_the_log_says_once_that_it_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    log = UpLog(FULL, UpParams())
    for line in ("one", "two", "three"):
        log.add("prefect", line)
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert text.count("No space left on device") == 1
    assert "Traceback" not in text
    assert all(line in text for line in ("one", "two", "three")), "the terminal has them all"


def test_a_terminal_that_is_a_file_on_a_full_disk_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with io.TextIOWrapper(FULL.open("wb", buffering=0), write_through=True) as full:
        monkeypatch.setattr(sys, "stdout", full)
        monkeypatch.setattr(sys, "stderr", full)
        with pytest.raises(OSError, match="No space left"):
            terminal.say("this is how it would end")
        log = UpLog(tmp_path / "up.log", UpParams())
        log.add("prefect", "a line")
        log.say("a line of ours")
        monkeypatch.undo()
    assert "a line of ours" in (tmp_path / "up.log").read_text()


def test_the_schedule_remembers_again_until_when_it_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beat that fails is not the last one."""
    monkeypatch.setattr(schedule, "_HEARTBEAT_SECONDS", 0.01)
    record = tmp_path / "away" / "schedule.json"
    with schedule._heartbeat(record):
        time.sleep(0.05)
        record.parent.mkdir()
        deadline = time.monotonic() + 10
        while not record.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "served_until" in json.loads(record.read_text())


@pytest.fixture
def babbling() -> int:
    """The port of a server whose answers are no HTTP."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.recv(65536)
            connection.sendall(b"nonsense\r\n\r\n")
            connection.close()

    threading.Thread(target=answer, daemon=True).start()
    return int(listener.getsockname()[1])


def test_an_answer_that_is_none_is_a_server_that_is_not_well(babbling: int) -> None:
    assert not server.is_healthy(f"http://127.0.0.1:{babbling}/health")
    with pytest.raises(RagError, match="does not answer flow_runs/filter"):
        prefect_facts.running_runs(f"http://127.0.0.1:{babbling}/api", os.environ)
