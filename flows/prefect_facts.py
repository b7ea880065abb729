"""What a Prefect server knows of this project, asked over its API without importing Prefect."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from flows import lock, server
from rag.artifacts import Artifacts
from rag.errors import RagError
from rag.release.redaction import without_credentials

TIMEOUT_SECONDS = 3.0
_TASKS_SHOWN = 200
_RUNS_SHOWN = 50


@dataclass(frozen=True)
class Serving:
    """Who serves: `state` is up, named (by PREFECT_API_URL), killed, stopped or never."""

    state: str
    api: str | None = None
    holder: lock.Holder | None = None


@dataclass(frozen=True)
class PrefectFacts:
    """Deployments, their coming runs and their latest ones, newest first, as the API has them."""

    deployments: Sequence[Mapping[str, Any]]
    coming: Sequence[Mapping[str, Any]]
    past: Sequence[Mapping[str, Any]]
    server_time: datetime | None


def serving(artifacts: Artifacts, environment: Mapping[str, str]) -> Serving:
    """Who serves this project, as the lock of `ragloop up` and the environment say."""
    if environment.get("PREFECT_API_URL"):
        return Serving("named", environment["PREFECT_API_URL"])
    holder = lock.holder(server.up_lock(artifacts))
    if holder is None:
        return Serving("stopped" if server.up_record(artifacts).exists() else "never")
    if not holder.is_here:
        return Serving("up", None, holder)
    if not holder.is_alive:
        return Serving("killed", None, holder)
    address = server.up_addresses(artifacts).get("prefect")
    return Serving("up", f"{address}/api" if address else None, holder)


def read_prefect(
    api: str, root: Path, environment: Mapping[str, str], now: datetime, *, is_own: bool
) -> PrefectFacts:
    """What retrains this project, and its runs; RagError where the server does not answer.

    A server of our own has no others; on one that the user named, ours say where they retrain.
    """
    deployments, server_time = _post(api, "deployments/filter", {"limit": 200}, environment)
    ours = retrainings([item for item in deployments if is_own or _is_of(item, root)])
    if not ours:
        return PrefectFacts((), (), (), server_time)
    of_ours = {"deployment_id": {"any_": [item["id"] for item in ours]}}

    def runs(sort: str, **chosen: Any) -> Any:
        body = {"flow_runs": {**of_ours, **chosen}, "sort": sort, "limit": _RUNS_SHOWN}
        return _post(api, "flow_runs/filter", body, environment)[0]

    moment = now.isoformat()
    return PrefectFacts(
        deployments=ours,
        coming=runs("EXPECTED_START_TIME_ASC", state={"type": {"any_": ["SCHEDULED"]}}),
        past=runs("EXPECTED_START_TIME_DESC", expected_start_time={"before_": moment}),
        server_time=server_time,
    )


def running_runs(
    api: str, environment: Mapping[str, str], *, also: Sequence[str] = ()
) -> list[Mapping[str, Any]]:
    """Flow runs that the server takes for running, or has in a state of the types `also`."""
    body = {"flow_runs": {"state": {"type": {"any_": ["RUNNING", *also]}}}, "limit": _RUNS_SHOWN}
    return list(_post(api, "flow_runs/filter", body, environment)[0])


def ended_badly(
    api: str, root: Path, environment: Mapping[str, str], now: datetime, within: timedelta
) -> list[Mapping[str, Any]]:
    """Runs of this project's deployments that failed or crashed in the time `within`."""
    deployments, _ = _post(api, "deployments/filter", {"limit": 200}, environment)
    ours = [item["id"] for item in deployments if _is_of(item, root)]
    if not ours:
        return []
    chosen = {
        "deployment_id": {"any_": ours},
        "state": {"type": {"any_": ["FAILED", "CRASHED"]}},
        "end_time": {"after_": (now - within).isoformat()},
    }
    body = {"flow_runs": chosen, "sort": "END_TIME_DESC", "limit": _RUNS_SHOWN}
    return list(_post(api, "flow_runs/filter", body, environment)[0])


def task_runs(api: str, flow_run: str, environment: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """The tasks of a flow run."""
    body = {"flow_runs": {"id": {"any_": [flow_run]}}, "limit": _TASKS_SHOWN}
    return list(_post(api, "task_runs/filter", body, environment)[0])


def time_of(run: Mapping[str, Any], field: str) -> datetime | None:
    """A time in an answer of the API; None where it has none."""
    value = run.get(field)
    return datetime.fromisoformat(value).astimezone(UTC) if value else None


def retrainings(deployments: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of `retrain`: the others are started by hand, or look far more often than it runs."""
    return [
        item
        for item in deployments
        if str(item.get("description") or "").lower().startswith("retrain")
    ]


def _is_of(deployment: Mapping[str, Any], root: Path) -> bool:
    return str(deployment.get("description") or "").endswith(f" of {root}")


def _post(
    api: str, path: str, body: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Any, datetime | None]:
    headers = {"Content-Type": "application/json", **_credentials(environment)}
    request = urllib.request.Request(
        f"{api.rstrip('/')}/{path}", data=json.dumps(body).encode(), headers=headers, method="POST"
    )
    # On this machine there is no proxy between.
    is_local = f"//{server.HOST}" in api or "//localhost" in api
    proxies = [urllib.request.ProxyHandler({})] if is_local else []
    try:
        opener = urllib.request.build_opener(*proxies)
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            date = response.headers.get("Date")
            return json.load(response), parsedate_to_datetime(date) if date else None
    except (urllib.error.URLError, OSError, ValueError, http.client.HTTPException) as error:
        where = without_credentials(api)
        raise RagError(f"Prefect at {where} does not answer {path}: {error}") from None


def _credentials(environment: Mapping[str, str]) -> dict[str, str]:
    if environment.get("PREFECT_API_KEY"):
        return {"Authorization": f"Bearer {environment['PREFECT_API_KEY']}"}
    if environment.get("PREFECT_API_AUTH_STRING"):
        text = base64.b64encode(environment["PREFECT_API_AUTH_STRING"].encode()).decode()
        return {"Authorization": f"Basic {text}"}
    return {}
