"""The triggers: what each one saw, in numbers and in a sentence, and whether it calls for a run.

Pure functions; the time comes from the caller. A trigger `fires`, is `quiet`, is `held` back for
now (the cool-down, another run, files still being written), is `off` because there is nothing yet
to look at, or has `failed` to look; the sentence says which and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from rag.monitoring.drift import rise_p_value
from rag.monitoring.feedback import Feedback
from rag.monitoring.incoming import Content
from rag.watch_params import DecayParams

Status = Literal["fires", "quiet", "held", "off", "failed"]
#: Triggers that say that the served system no longer fits what it is asked.
DRIFT = ("query_drift", "abstention", "retrieval_score", "metric_decay")
#: Files younger than this may still be being written.
SETTLED_SECONDS = 60.0
#: The verdicts that the latest are compared with.
_MOST_BEFORE = 500


@dataclass(frozen=True)
class Trigger:
    """What a trigger says; `evidence` has the numbers that `summary` rests on."""

    name: str
    status: Status
    summary: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fires(self) -> bool:
        return self.status == "fires"

    def held(self, why: str) -> Trigger:
        """The same, for later."""
        return replace(self, status="held", summary=f"{self.summary}; {why}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def new_data(place: str, found: Content, taken: str | None, now: datetime) -> Trigger:
    """Whether a watched place holds other content than was last taken in from it."""
    evidence = {"place": place, "files": found.files, "content": found.digest, "taken": taken}
    if not found.files:
        return Trigger("new_data", "quiet", f"{place} is empty", evidence)
    if found.digest == taken:
        return Trigger("new_data", "quiet", f"{place} is as it was taken in", evidence)
    what = "was changed" if taken else "has not been taken in yet"
    fires = Trigger("new_data", "fires", f"{place} {what} ({found.files} files)", evidence)
    if now.timestamp() - found.newest < SETTLED_SECONDS:
        return fires.held("it was written to within the last minute")
    return fires


def new_questions(waiting: int, least: int) -> Trigger:
    """Whether enough labelled questions wait to be taken in."""
    summary = f"{waiting} new labelled questions, {least} call for a run"
    status: Status = "fires" if waiting >= least else "quiet"
    return Trigger("new_questions", status, summary, {"waiting": waiting, "least": least})


def metric_decay(rows: Sequence[Feedback], params: DecayParams, *, answered: int) -> Trigger:
    """Whether the latest verdicts are worse than those before, by a margin and beyond chance.

    One-sided Fisher test of the share that was wrong. `answered` counts the verdicts at the last
    alarm: the next one rests on newer ones alone.
    """
    name, window = "metric_decay", params.window
    if len(rows) < 2 * window:
        summary = f"{len(rows)} verdicts of {2 * window} that can be compared (`ragloop feedback`)"
        return Trigger(name, "off", summary, {"verdicts": len(rows)})
    latest, before = rows[-window:], rows[:-window][-_MOST_BEFORE:]
    wrong, wrong_before = (sum(not row.right for row in part) for part in (latest, before))
    p_value = rise_p_value((wrong_before, len(before)), (wrong, window))
    right, right_before = 100 * (1 - wrong / window), 100 * (1 - wrong_before / len(before))
    evidence = {
        "right_percent": round(right, 2),
        "right_percent_before": round(right_before, 2),
        "verdicts": window,
        "verdicts_before": len(before),
        "p_value": p_value,
        "alpha": params.alpha,
        "min_drop": params.min_drop,
    }
    summary = (
        f"{right:.0f} % of the last {window} verdicts are right, {right_before:.0f} % of "
        f"{len(before)} before (p = {p_value:.2g})"
    )
    is_worse = p_value < params.alpha and right_before - right >= params.min_drop
    if is_worse and len(rows) - answered < window and answered:
        return Trigger(name, "quiet", f"{summary}; a run was started for it", evidence)
    return Trigger(name, "fires" if is_worse else "quiet", summary, evidence)


def cooled_down(
    triggers: Sequence[Trigger], now: datetime, last_started: datetime | None, hours: float
) -> list[Trigger]:
    """The triggers, held back while the last run that one of them started is too recent."""
    if last_started is None or now >= (until := last_started + timedelta(hours=hours)):
        return list(triggers)
    why = f"cooling down until {until:%Y-%m-%d %H:%M} UTC"
    return [trigger.held(why) if trigger.fires else trigger for trigger in triggers]
