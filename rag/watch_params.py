"""The parameters of what runs between two trainings: the triggers, and who is told."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_serializer, field_validator, model_validator

from rag.retrieval_params import Positive, Section

NoticeEvent = Literal[
    "promoted",
    "rejected",
    "inconclusive",
    "pending",
    "error",
    "failed",
    "crashed",
    "schedule_missed",
    "drift",
]
ALL_EVENTS: tuple[NoticeEvent, ...] = (
    *("promoted", "rejected", "inconclusive", "pending", "error"),
    *("failed", "crashed", "schedule_missed", "drift"),
)
#: Where the URL of a service may be kept instead of in params.yaml, which is in git.
REFERENCES = ("env:", "file:")
#: A false-alarm rate for one window.
Alpha = Annotated[float, Field(gt=0.0, le=0.2)]


class DriftParams(Section):
    """When served queries count as drifted: `hits` of the last `windows`, the latest among them."""

    window_queries: Annotated[int, Field(ge=20)] = 100
    reference_queries: Annotated[int, Field(ge=40)] = 1000
    alpha: Alpha = 0.01
    hits: Positive = 3
    windows: Positive = 5

    @model_validator(mode="after")
    def _can_be_reached(self) -> DriftParams:
        problems = []
        if self.hits > self.windows:
            problems.append(f"hits ({self.hits}) must be <= windows ({self.windows})")
        if self.reference_queries < 2 * self.window_queries:
            problems.append(
                f"reference_queries ({self.reference_queries}) must be at least twice "
                f"window_queries ({self.window_queries})"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self


class DecayParams(Section):
    """When feedback counts as worse: the latest `window` verdicts against those before them."""

    window: Annotated[int, Field(ge=20)] = 50
    min_drop: Annotated[float, Field(ge=0.0, le=100.0)] = 10.0
    alpha: Alpha = 0.01


class WatchParams(Section):
    cron: str | None = "*/15 * * * *"
    incoming: str | None = None
    min_new_questions: Positive = 50
    query_log: bool = False
    query_log_mb: Positive = 20
    drift: DriftParams = DriftParams()
    decay: DecayParams = DecayParams()
    cooldown_hours: Annotated[float, Field(ge=0.0)] = 6.0


class NotifyParams(Section):
    """`urls` are shown nowhere: what is written down of a literal one is its service."""

    urls: Annotated[tuple[str, ...], Field(strict=False, repr=False)] = ()
    on: Annotated[tuple[NoticeEvent, ...], Field(strict=False)] = ALL_EVENTS
    late_minutes: Positive = 30

    @field_validator("urls", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        """A single URL is a list of one; refused as no list, it would be shown."""
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _can_be_resolved(self) -> NotifyParams:
        # Not where the value would be shown with the problem.
        problems = [
            f"urls.{place} must be env:NAME, file:PATH or an Apprise URL such as json://host/path"
            for place, url in enumerate(self.urls)
            if not (url.startswith(REFERENCES) or "://" in url)
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @field_serializer("urls", when_used="json")
    def _masked(self, urls: tuple[str, ...]) -> list[str]:
        return [masked(url) for url in urls]


def masked(url: str) -> str:
    """A reference as it is, a literal URL as its service: tokens stand anywhere in the rest.

    >>> masked("slack://token-a/token-b"), masked("env:RAGLOOP_NOTIFY")
    ('slack://***', 'env:RAGLOOP_NOTIFY')
    """
    return url if url.startswith(REFERENCES) else f"{url.partition('://')[0]}://***"
