"""The sections `schedule` and `up` of params.yaml: when runs start, how long they may take, where,
and the servers that `ragloop up` keeps running.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from rag.retrieval_params import Positive, Section

StageName = Literal[
    "default",
    "prepare",
    "chunk",
    "train_retriever",
    "embed",
    "retrieve",
    "train_reader",
    "evaluate",
]
CatchUp = Literal["latest", "none"]
WorkspaceMode = Literal["auto", "worktree", "in_place"]
_CRON_FIELD = re.compile(r"[0-9A-Za-z*/,#?-]+")


def _cron(text: str) -> str:
    """Five fields of the right characters; Prefect reads the rest when the schedule is served."""
    fields = text.split()
    if len(fields) != 5 or not all(_CRON_FIELD.fullmatch(field) for field in fields):
        raise ValueError(
            f"must be a cron line of five fields such as '0 3 * * *' "
            f"(minute hour day month weekday), got {text!r}"
        )
    return text


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            f"must be a name of the time zone database such as Europe/Berlin, got {name!r}"
        ) from None
    return name


Cron = Annotated[str, AfterValidator(_cron)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Minutes = Annotated[float, Field(gt=0.0, strict=False)]
Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=0)]


class ScheduleParams(Section):
    cron: Cron = "0 3 * * *"
    timezone: TimeZone = "UTC"
    interval_seconds: Annotated[int, Field(ge=1)] | None = None
    refresh_cron: Cron | None = None
    prune_cron: Cron | None = None
    max_lateness_minutes: Minutes = 60.0
    catch_up: CatchUp = "latest"
    wait_minutes: Annotated[float, Field(ge=0.0, strict=False)] = 720.0
    stage_timeout_minutes: Mapping[StageName, Minutes] = {"default": 720.0}
    workspace: WorkspaceMode = "auto"
    prefect_port: Port = 4200
    mlflow_port: Port = 5000

    def stage_timeout_seconds(self, stage: str) -> float | None:
        """How long a stage may take; None without a limit."""
        limits = {str(name): minutes for name, minutes in self.stage_timeout_minutes.items()}
        minutes = limits.get(stage, limits.get("default"))
        return None if minutes is None else 60.0 * minutes


class UpParams(Section):
    data_folder: str | None = None
    metrics_port: Port | None = None
    check_seconds: Seconds = 5.0
    hang_seconds: Seconds = 60.0
    backoff_seconds: Seconds = 1.0
    max_restarts: Count = 5
    restart_minutes: Annotated[float, Field(gt=0.0)] = 10.0
    max_resumes: Count = 3
    log_megabytes: Positive = 10
    log_files: Count = 5
