"""rag/progress.py: the small file that a stage writes and the flow draws its bar from."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from rag.progress import VARIABLE, progress, read_progress, seconds_left


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "progress.json"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def test_nothing_is_known_before_the_first_write(path: Path) -> None:
    assert read_progress(path) is None


def test_the_start_is_written_at_once_and_the_end_always(path: Path) -> None:
    with progress("embed", 10) as advance:
        assert read_progress(path) == ("embed", 0, 10, None)
        for _ in range(5):
            advance(2)
    assert read_progress(path) == ("embed", 10, 10, 0.0)
    assert json.loads(path.read_text()) == {
        "label": "embed",
        "done": 10,
        "total": 10,
        "seconds_left": 0.0,
    }


def test_steps_between_are_written_at_most_twice_a_second(path: Path) -> None:
    with progress("embed", 1000) as advance:
        before = path.stat().st_ino, path.stat().st_mtime_ns
        advance(1)
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == before
        threading.Event().wait(0.55)
        advance(1)
        state = read_progress(path)
        assert state is not None
        assert state[:3] == ("embed", 2, 1000)
        assert state.seconds_left is not None
        assert state.seconds_left >= 998 * 0.55, "one took 0.55 seconds or a little more"


def test_the_time_left_is_told_from_the_rate_after_the_first_step() -> None:
    """The first 10 came with the model's loading; 20 more took 4 s, so 70 more take 14 s."""
    assert seconds_left(30, 100, 9.0, first_done=10, first_seconds=5.0) == 14.0
    assert seconds_left(10, 100, 5.0, first_done=10, first_seconds=5.0) is None
    assert seconds_left(0, 100, 5.0, first_done=0, first_seconds=5.0) is None
    assert seconds_left(100, 100, 50.0, first_done=100, first_seconds=50.0) == 0.0


def test_the_next_work_takes_the_place_of_the_last(path: Path) -> None:
    with progress("embed", 1) as advance:
        advance(1)
    with progress("evaluate · tuned", 7):
        assert read_progress(path) == ("evaluate · tuned", 0, 7, None)


def test_a_reader_never_sees_half_a_file(path: Path) -> None:
    """A writer without a pause, and a long label so that a write takes its time."""
    label = "x" * 100_000
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            with progress(label, 1) as advance:
                advance(1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = [read_progress(path) for _ in range(300)]
    finally:
        stop.set()
        writer.join()
    assert {state for state in seen if state} <= {(label, 0, 1, None), (label, 1, 1, 0.0)}
    assert [found.name for found in path.parent.iterdir()] == ["progress.json"]


def test_without_the_variable_there_is_no_file_and_no_bar_off_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with progress("embed", 2) as advance:
        advance(2)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
