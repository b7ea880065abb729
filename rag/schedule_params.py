"""Parameters of the schedule, and of the servers that `ragloop up` keeps running."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rag.retrieval_params import Positive, Section

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=0)]


class ScheduleParams(Section):
    cron: str = "0 3 * * *"
    timezone: str = "UTC"
    interval_seconds: Annotated[int, Field(ge=1)] | None = None
    prefect_port: Port = 4200
    mlflow_port: Port = 5000


class UpParams(Section):
    data_folder: str | None = None
    check_seconds: Seconds = 5.0
    hang_seconds: Seconds = 60.0
    backoff_seconds: Seconds = 1.0
    max_restarts: Count = 5
    restart_minutes: Annotated[float, Field(gt=0.0)] = 10.0
    max_resumes: Count = 3
    log_megabytes: Positive = 10
    log_files: Count = 5
