"""Where a notice goes: `.ragloop/notices.jsonl`, and the services behind `notify.urls`.

A notice that cannot be delivered costs no run: it is tried a few times, and the file and the run's
log say what became of it. The URL of a service is a secret and is written nowhere.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rag.artifacts import Artifacts
from rag.errors import InputError
from rag.monitoring import bounded_log
from rag.params import NotifyParams
from rag.release.redaction import without_credentials
from rag.watch_params import NoticeEvent, masked

if TYPE_CHECKING:
    from apprise import Apprise

#: Between the attempts; a service has Apprise's own 4 s to connect and 4 s to answer in each.
DELAYS_SECONDS = (1.0, 5.0)
_FILE_BYTES = 5_000_000
_LEVELS = {"promoted": "success", "failed": "failure", "crashed": "failure", "error": "failure"}
_NOWHERE = logging.NullHandler()
_STATUS = re.compile(r"error=(\d{3})\b")


@dataclass(frozen=True)
class Notice:
    """What somebody is told; `links` lead from a name to an address or a file.

    `runs` are the ids of the flow runs that it tells of.
    """

    event: NoticeEvent
    title: str
    lines: Sequence[str] = ()
    links: dict[str, str] = field(default_factory=dict)
    runs: Sequence[str] = ()

    @property
    def body(self) -> str:
        """The text below the title, without the credentials of any URL in the lines."""
        links = [f"{name}: {link}" for name, link in self.links.items()]
        return "\n".join([*map(str, map(without_credentials, self.lines)), *links])


@dataclass(frozen=True)
class Delivery:
    """What became of a notice at one place; `to` names it without its secrets."""

    to: str
    ok: bool
    attempts: int
    problem: str = ""


def deliver(
    artifacts: Artifacts,
    params: NotifyParams,
    notice: Notice,
    *,
    delays: Sequence[float] = DELAYS_SECONDS,
) -> list[Delivery]:
    """Sends a notice everywhere and writes it down with what became of it. Raises nothing."""
    if notice.event not in params.on:
        return []
    found = [_send(artifacts.root, url, notice, delays) for url in dict.fromkeys(params.urls)]
    row = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "event": notice.event,
        "title": notice.title,
        "body": notice.body,
        "runs": list(notice.runs),
        "deliveries": [asdict(delivery) for delivery in found],
    }
    try:
        bounded_log.append(artifacts.notices, [row], _FILE_BYTES)
    except OSError as error:
        found.append(Delivery(artifacts.notices.name, ok=False, attempts=1, problem=str(error)))
    return found


def _send(root: Path, url: str, notice: Notice, delays: Sequence[float]) -> Delivery:
    """One entry of `notify.urls`, to which `1 + len(delays)` attempts are made."""
    to = masked(url)
    try:
        service = _service(list(_resolved(root, url)))
    except InputError as error:
        return Delivery(to, ok=False, attempts=0, problem=str(error))
    problem = ""
    for attempt, delay in enumerate((*delays, 0.0), start=1):
        problem = _attempt(service, notice)
        if not problem:
            return Delivery(to, ok=True, attempts=attempt)
        if attempt <= len(delays):
            time.sleep(delay)
    return Delivery(to, ok=False, attempts=1 + len(delays), problem=problem)


def _attempt(service: Apprise, notice: Notice) -> str:
    """What went wrong; empty if nothing did. Apprise's own words may hold parts of the URL."""
    from apprise import LogCapture

    try:
        with _unheard(), LogCapture(level=logging.WARNING) as said:
            arrived = service.notify(
                title=notice.title,
                body=notice.body or notice.title,
                notify_type=_LEVELS.get(notice.event, "info"),
            )
            status = _STATUS.search(said.getvalue())
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything, and costs no run
        return type(error).__name__
    if arrived:
        return ""
    return f"the service answered {status[1]}" if status else "the service cannot be reached"


def _service(urls: Sequence[str]) -> Apprise:
    from apprise import Apprise

    service = Apprise()
    with _unheard():
        is_known = bool(urls) and all(service.add(url) for url in urls)
    if not is_known:
        raise InputError("no URL that Apprise knows: see https://github.com/caronc/apprise")
    return service


@contextmanager
def _unheard() -> Iterator[None]:
    """Keeps what Apprise and urllib3 say from every log: a URL's path is in it, and its tokens."""
    loggers = [logging.getLogger(name) for name in ("apprise", "urllib3.connectionpool")]
    before = [(logger.propagate, logger.level) for logger in loggers]
    for logger in loggers:
        logger.propagate = False
        logger.addHandler(_NOWHERE)  # a logger without any handler writes to standard error
    try:
        yield
    finally:
        for logger, (propagate, level) in zip(loggers, before, strict=True):
            logger.propagate = propagate
            logger.setLevel(level)
            logger.removeHandler(_NOWHERE)


def _resolved(root: Path, url: str) -> Iterator[str]:
    """The URLs behind an entry: itself, or what an environment variable or a file holds."""
    kind, _, name = url.partition(":")
    if kind == "env":
        text = os.environ.get(name, "")
        if not text.strip():
            raise InputError(f"the environment variable {name} is not set")
    elif kind == "file":
        try:
            text = (root / Path(name).expanduser()).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{name} cannot be read: {type(error).__name__}") from None
    else:
        text = url
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield from line.split()
