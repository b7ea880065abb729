"""Why a run happened, as its tags: the schedule, a person, or triggers with their evidence."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rag.monitoring.triggers import Trigger

#: What a run is asked with: `{"triggers": [name, ...], "because": text, "evidence": {...}}`.
Reason = Mapping[str, Any]

#: Evidence that quotes people; it stays with the trigger's event.
_QUOTES = "strangest"
#: MLflow takes 8,000 characters in a tag; a reason is to be read.
_MOST_CHARACTERS = 2000


def reason_of(triggers: Sequence[Trigger]) -> dict[str, Any]:
    """The reason of a run that these triggers start."""
    return {
        "triggers": [trigger.name for trigger in triggers],
        "because": "; ".join(f"{trigger.name}: {trigger.summary}" for trigger in triggers),
        "evidence": {
            trigger.name: {key: value for key, value in trigger.evidence.items() if key != _QUOTES}
            for trigger in triggers
        },
    }


def prefect_tags(reason: Reason) -> list[str]:
    """Tags of the flow run: `trigger:new_data`."""
    return [f"trigger:{name}" for name in reason["triggers"]]


def run_tags(reason: Reason | None, *, scheduled: bool) -> dict[str, str]:
    """Tags of the MLflow run: `trigger`, and `because` and `evidence` where triggers started it."""
    if reason is None:
        return {"trigger": "schedule" if scheduled else "by hand"}
    return {
        "trigger": ", ".join(reason["triggers"]),
        "trigger_because": str(reason["because"])[:_MOST_CHARACTERS],
        "trigger_evidence": json.dumps(reason["evidence"], ensure_ascii=False)[:_MOST_CHARACTERS],
    }
