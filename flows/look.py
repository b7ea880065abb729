"""One look of the triggers: gathers what each one judges, and keeps what they remember.

The judging itself is pure and stands in `rag/monitoring/`. A trigger whose evidence cannot be had
says so and has failed; the others are looked at all the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from flows import dvc, intake, lock
from flows.snapshot import is_empty, record_of
from rag.artifacts import Artifacts
from rag.errors import InputError, RagError, ReleaseError
from rag.monitoring.drift import FloatMatrix, QueryReference, calibrate
from rag.monitoring.feedback import read_feedback
from rag.monitoring.incoming import content_of
from rag.monitoring.query_log import read_queries, release_of
from rag.monitoring.served_queries import (
    TESTS,
    ServedState,
    new_windows,
    observe,
    windowed_triggers,
)
from rag.monitoring.triggers import Trigger, cooled_down, metric_decay, new_data, new_questions
from rag.params import Params, load_params

_RAW = "data/raw"


@dataclass(frozen=True)
class Memory:
    """What lasts from one look to the next, in `.ragloop/watch.json`.

    `decay_answered` counts the verdicts when `metric_decay` last started a run; `late_told` are
    the scheduled runs of which it was said that they did not start, `failed_told` what was said of
    triggers that cannot look. `raw_answered` is the content of `data/raw/` that last started a run:
    one in a worktree leaves the record in the checkout as it is.
    """

    served: ServedState = field(default_factory=ServedState)
    decay_answered: int = 0
    last_started: datetime | None = None
    late_told: tuple[str, ...] = ()
    failed_told: str = ""
    raw_answered: str | None = None

    @classmethod
    def read(cls, artifacts: Artifacts) -> Memory:
        """The memory of the last look; an empty one before the first. RagError if it is damaged."""
        try:
            record = json.loads(artifacts.watch.read_text(encoding="utf-8"))
            started = record["last_started"]
            return cls(
                served=ServedState.from_json(record["served"]),
                decay_answered=record["decay_answered"],
                last_started=datetime.fromisoformat(started) if started else None,
                late_told=tuple(record["late_told"]),
                failed_told=record["failed_told"],
                raw_answered=record["raw_answered"],
            )
        except FileNotFoundError:
            return cls()
        except (ValueError, KeyError, TypeError) as error:
            raise RagError(
                f"{artifacts.watch} cannot be read ({error!r}); remove it: the triggers then start "
                "anew, without their last windows"
            ) from None

    def write(self, artifacts: Artifacts) -> None:
        """Puts it in place of the last one, whole or not at all."""
        record = {
            "served": self.served.to_json(),
            "decay_answered": self.decay_answered,
            "last_started": self.last_started.isoformat() if self.last_started else None,
            "late_told": list(self.late_told),
            "failed_told": self.failed_told,
            "raw_answered": self.raw_answered,
        }
        temporary = artifacts.watch.with_suffix(".json.tmp")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            json.dump(record, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(artifacts.watch)

    def after_start(
        self, artifacts: Artifacts, triggers: Sequence[Trigger], now: datetime
    ) -> Memory:
        """After a run was started for these triggers: what is on asks for no other one."""
        decayed = any(trigger.name == "metric_decay" for trigger in triggers)
        verdicts = len(read_feedback(artifacts)) if decayed else self.decay_answered
        raw = [t.evidence["content"] for t in triggers if t.evidence.get("place") == _RAW]
        return replace(
            self,
            served=self.served.answered(),
            decay_answered=verdicts,
            last_started=now,
            raw_answered=raw[0] if raw else self.raw_answered,
        )


@dataclass(frozen=True)
class Look:
    """What every trigger says now, and the memory to keep."""

    triggers: Sequence[Trigger]
    memory: Memory = field(default_factory=Memory)

    @property
    def firing(self) -> list[Trigger]:
        return [trigger for trigger in self.triggers if trigger.fires]

    @property
    def failed(self) -> list[Trigger]:
        return [trigger for trigger in self.triggers if trigger.status == "failed"]

    @property
    def problem(self) -> str:
        """What keeps triggers from looking; empty if nothing does."""
        return "; ".join(f"{trigger.name}: {trigger.summary}" for trigger in self.failed)


@dataclass(frozen=True)
class Watched:
    """What a look found and what it started."""

    look: Look
    started: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """`{"triggers": [...], "started": {...} | null}`, for `--json`."""
        triggers = [trigger.to_json() for trigger in self.look.triggers]
        return {"triggers": triggers, "started": self.started}


def look(artifacts: Artifacts, params: Params, now: datetime) -> Look:
    """Looks at everything; starts nothing and writes nothing."""
    memory = Memory.read(artifacts)
    served, windowed = memory.served, list[Trigger]()
    try:
        served, windowed = _served(artifacts, params, memory.served)
    except RagError as error:
        windowed = [Trigger(name, "failed", str(error)) for name in TESTS]
    triggers = [
        _tried("new_data", lambda: _new_data(artifacts, params, memory, now)),
        _tried(
            "new_questions",
            lambda: new_questions(
                len(intake.waiting_questions(artifacts)), params.watch.min_new_questions
            ),
        ),
        *windowed,
        _tried(
            "metric_decay",
            lambda: metric_decay(
                read_feedback(artifacts), params.watch.decay, answered=memory.decay_answered
            ),
        ),
    ]
    triggers = cooled_down(triggers, now, memory.last_started, params.watch.cooldown_hours)
    busy = lock.holder(artifacts.lock)
    if busy and (busy.is_alive if busy.is_here else True):
        triggers = [
            trigger.held(f"{busy.what} is at work") if trigger.fires else trigger
            for trigger in triggers
        ]
    return Look(triggers, replace(memory, served=served))


def _tried(name: str, judge: Callable[[], Trigger]) -> Trigger:
    try:
        return judge()
    except RagError as error:
        return Trigger(name, "failed", str(error))


def _new_data(artifacts: Artifacts, params: Params, memory: Memory, now: datetime) -> Trigger:
    place = params.watch.incoming
    if place is None:
        return _changed_raw(artifacts, memory.raw_answered, now)
    found = intake.content_of(artifacts, place)
    if place.endswith(".dvc") and intake.has_update(artifacts, place):
        return Trigger("new_data", "fires", f"the source of {place} has changed", {"place": place})
    return new_data(place, found, intake.taken(artifacts, place), now)


def _changed_raw(artifacts: Artifacts, answered: str | None, now: datetime) -> Trigger:
    """The project's own data against what the last run recorded."""
    record = record_of(artifacts)
    if not record.exists():
        return Trigger("new_data", "off", f"{_RAW} was not recorded yet: `ragloop run` does it")
    if is_empty(artifacts.raw):
        return Trigger("new_data", "quiet", f"{_RAW} is empty: the next run puts it back")
    recorded = dvc.recorded_hash(record)
    if not dvc.status(artifacts.root, str(record.relative_to(artifacts.root))):
        evidence = {"place": _RAW, "recorded": recorded}
        return Trigger("new_data", "quiet", f"{_RAW} is as the last run recorded it", evidence)
    found = new_data(_RAW, content_of(_RAW, artifacts.root), answered or recorded, now)
    return replace(found, evidence={**found.evidence, "recorded": recorded})


def _served(
    artifacts: Artifacts, params: Params, state: ServedState
) -> tuple[ServedState, list[Trigger]]:
    """The state after the windows that are new, and what the tests of served queries say."""
    settings = params.watch.drift
    if not read_queries(artifacts):
        why = "no served queries are logged"
        if not params.watch.query_log:
            why += " (watch.query_log is false)"
        return state, [Trigger(name, "off", why) for name in TESTS]
    from flows.answers import champion_bundle

    try:
        _, released = champion_bundle(artifacts, params)
    except ReleaseError as error:
        return state, [Trigger(name, "off", str(error)) for name in TESTS]
    release = release_of(released)
    if state.release != release:
        state = ServedState(release=release)
    rows = [row for row in read_queries(artifacts) if row.get("release") == release]
    windows = new_windows(state, rows, settings.window_queries)
    why = f"{len(rows)} logged queries of this release, {settings.window_queries} make a window"
    if windows:
        encode = _query_encoder(released)
        reference, why_none = _reference(artifacts, params, encode)
        state = observe(state, windows, settings, reference, encode)
        least = 2 * settings.window_queries
        why = why_none or f"the first {least} queries of a release are what later ones compare with"
    return state, windowed_triggers(state, settings, why)


def _query_encoder(released: Artifacts) -> Callable[[Sequence[str]], FloatMatrix]:
    """The champion's own view of a question."""
    from rag.reading.answerer import load_encoder

    params = load_params(released.params)
    tuned = params.reader.end_to_end is not None
    encoder = load_encoder(
        released, params, query_folder=released.reader_query_encoder if tuned else None
    )
    return lambda texts: encoder.encode(texts, "query")


def _reference(
    artifacts: Artifacts, params: Params, encode: Callable[[Sequence[str]], FloatMatrix]
) -> tuple[QueryReference | None, str]:
    """The train questions of the last run, a seeded sample; or why there are none."""
    import numpy as np

    from rag.records import read_questions

    if not artifacts.questions.is_file():
        return None, "there are no train questions here to compare with: `ragloop run`"
    texts = sorted({item.text for item in read_questions(artifacts.questions, "train")})
    settings = params.watch.drift
    if len(texts) > settings.reference_queries:
        order = np.random.default_rng(params.seed).permutation(len(texts))
        texts = [texts[place] for place in order[: settings.reference_queries]]
    try:
        vectors = encode(texts)
        found = calibrate(vectors, settings.window_queries, alpha=settings.alpha, seed=params.seed)
    except InputError as error:
        return None, str(error)
    return found, ""
