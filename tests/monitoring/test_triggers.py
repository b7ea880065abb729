"""What fires, what is held back and what is off; windows of the log from the first to the alarm."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.errors import InputError
from rag.monitoring.drift import FloatMatrix, calibrate
from rag.monitoring.feedback import Feedback
from rag.monitoring.incoming import content_of, fetch
from rag.monitoring.served_queries import ServedState, new_windows, observe, windowed_triggers
from rag.monitoring.triggers import Trigger, cooled_down, metric_decay, new_data, new_questions
from rag.watch_params import DecayParams, DriftParams
from tests.monitoring.conftest import Topics

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)
DRIFT = DriftParams(window_queries=20, reference_queries=200)


def age(folder: Path, seconds: float) -> None:
    for path in folder.rglob("*"):
        os.utime(path, (NOW.timestamp() - seconds,) * 2)


def test_other_content_fires_once_it_lies_still(tmp_path: Path) -> None:
    folder = tmp_path / "incoming"
    folder.mkdir()
    assert new_data("incoming", content_of("incoming", tmp_path), None, NOW).status == "quiet"
    (folder / "a.md").write_text("one")
    (folder / ".hidden").write_text("no matter")
    age(folder, 30)
    first = content_of("incoming", tmp_path)
    assert new_data("incoming", first, None, NOW).status == "held"
    age(folder, 90)
    assert new_data("incoming", content_of("incoming", tmp_path), None, NOW).fires
    assert new_data("incoming", first, first.digest, NOW).status == "quiet", "touched, not changed"
    (folder / "a.md").write_text("two")
    age(folder, 90)
    changed = new_data("incoming", content_of("incoming", tmp_path), first.digest, NOW)
    assert changed.fires
    assert changed.summary == "incoming was changed (1 files)"
    assert changed.evidence["taken"] == first.digest


def test_a_prefix_that_fsspec_lists(tmp_path: Path) -> None:
    source = tmp_path / "bucket" / "data"
    (source / "documents").mkdir(parents=True)
    (source / "documents" / "a.md").write_text("one")
    place = f"file://{source}"
    first = content_of(place, tmp_path)
    assert (first.files, content_of(place, tmp_path).digest) == (1, first.digest)
    (source / "documents" / "a.md").write_text("two!")
    assert content_of(place, tmp_path).digest != first.digest
    fetch(place, tmp_path / "here")
    assert (tmp_path / "here" / "documents" / "a.md").read_text() == "two!"


def test_a_place_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is no folder"):
        content_of("nowhere", tmp_path)
    with pytest.raises(InputError, match="holds nothing"):
        content_of(f"file://{tmp_path}/nowhere", tmp_path)
    with pytest.raises(InputError, match=r"nope:// cannot be read"):
        content_of("nope://bucket", tmp_path)


def test_enough_new_questions() -> None:
    assert new_questions(49, 50).status == "quiet"
    assert new_questions(50, 50).fires


def verdicts(pattern: str) -> list[Feedback]:
    return [Feedback("t", "q", right=mark == "r") for mark in pattern]


def test_a_decay_beyond_chance_and_margin_fires_once() -> None:
    params = DecayParams(window=20, min_drop=10.0, alpha=0.01)
    good, worse = "rrrrrrrrrw" * 10, "rw" * 10
    assert metric_decay(verdicts(good[:39]), params, answered=0).status == "off"
    assert metric_decay(verdicts(good), params, answered=0).status == "quiet"
    found = metric_decay(verdicts(good + worse), params, answered=0)
    assert found.fires
    assert found.evidence["right_percent"] == 50.0
    assert found.evidence["right_percent_before"] == 90.0
    assert metric_decay(verdicts(good + worse), params, answered=120).status == "quiet"
    assert metric_decay(verdicts(good + worse * 2), params, answered=120).fires
    strict = DecayParams(window=20, min_drop=41.0, alpha=0.01)
    assert metric_decay(verdicts(good + worse), strict, answered=0).status == "quiet"


def test_the_cool_down_holds_back_what_fires() -> None:
    triggers = [Trigger("new_data", "fires", "new"), Trigger("new_questions", "quiet", "few")]
    started = NOW - timedelta(hours=5)
    held = cooled_down(triggers, NOW, started, 6.0)
    assert [trigger.status for trigger in held] == ["held", "quiet"]
    assert held[0].summary == "new; cooling down until 2026-11-26 13:00 UTC"
    assert cooled_down(triggers, NOW, started, 5.0)[0].fires
    assert cooled_down(triggers, NOW, None, 6.0)[0].fires


class Log:
    """A query log whose questions are numbers that `encode` has the vectors of."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.vectors: list[FloatMatrix] = []

    def ask(self, vectors: FloatMatrix, *, abstained: int = 0, score: float = 0.7) -> None:
        for place, vector in enumerate(vectors):
            key = len(self.rows)
            self.vectors.append(vector)
            self.rows.append(
                {
                    "id": f"q-{key}",
                    "question": str(key),
                    "abstained": place < abstained,
                    "top_score": score + 0.001 * (place % 7),
                }
            )

    def encode(self, texts: Sequence[str]) -> FloatMatrix:
        return np.stack([self.vectors[int(text)] for text in texts])


def test_windows_are_complete_new_and_in_order() -> None:
    rows = [{"id": f"q-{number}"} for number in range(25)]
    assert [window[0]["id"] for window in new_windows(ServedState(), rows, 10)] == ["q-0", "q-10"]
    seen = ServedState(last_query="q-9")
    assert [window[0]["id"] for window in new_windows(seen, rows, 10)] == ["q-10"]
    rotated_out = ServedState(last_query="q-long-gone")
    assert len(new_windows(rotated_out, rows, 10)) == 2


def test_each_test_sees_its_own_drift_and_is_answered_once(topics: Topics) -> None:
    reference = calibrate(topics.draw(200), 20, alpha=0.01, seed=1)
    log, state = Log(), ServedState(release="r")

    def look() -> dict[str, Trigger]:
        nonlocal state
        windows = new_windows(state, log.rows, 20)
        state = observe(state, windows, DRIFT, reference, log.encode)
        return {t.name: t for t in windowed_triggers(state, DRIFT, "no window yet")}

    assert {trigger.status for trigger in look().values()} == {"off"}
    for _ in range(5):
        log.ask(topics.draw(20), abstained=1)
    calm = look()
    assert {trigger.status for trigger in calm.values()} == {"quiet"}
    assert calm["abstention"].evidence["abstained_percent_before"] == 5.0
    for _ in range(3):
        log.ask(topics.draw(20), abstained=12)
    assert [t.name for t in look().values() if t.fires] == ["abstention"]
    for _ in range(3):
        log.ask(topics.draw(20), abstained=1, score=0.5)
    state = state.answered()
    assert [t.name for t in look().values() if t.fires] == ["retrieval_score"]
    for _ in range(3):
        log.ask(topics.swapped().draw(20), abstained=1)
    state = state.answered()
    found = look()
    assert [t.name for t in found.values() if t.fires] == ["query_drift"]
    assert len(found["query_drift"].evidence["strangest"]) == 3
    state = state.answered()
    assert not any(trigger.fires for trigger in look().values())
    assert ServedState.from_json(state.to_json()) == state


def test_a_window_with_a_finding_is_no_part_of_what_is_normal(topics: Topics) -> None:
    log, state = Log(), ServedState()
    for abstained in (1, 1, 12, 1):
        log.ask(topics.draw(20), abstained=abstained)
    state = observe(state, new_windows(state, log.rows, 20), DRIFT, None, log.encode)
    assert (state.baseline.count, state.baseline.abstained) == (60, 3)
