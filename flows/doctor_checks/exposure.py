"""What others could reach or read: open ports without a password, secrets where git keeps them."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows import server
from flows.doctor_checks.data import read_config
from flows.doctor_checks.finding import Finding, Site, fail, warn, worst

_LOOPBACK = ("127.", "::1")
_REFUSED = (401, 403)
_ASK_SECONDS = 2.0
#: Settings of DVC's remotes that open a storage.
_DVC_SECRETS = (
    *("password", "secret_access_key", "session_token", "sas_token", "account_key"),
    *("connection_string", "client_secret", "key_secret", "token"),
)
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


def look_at_listening(site: Site) -> Finding:
    """Prefect and MLflow are reached from this machine only, or ask who it is."""
    import psutil

    schedule = site.params.schedule
    ports = {
        schedule.prefect_port: ("Prefect", "api/admin/version", "PREFECT_SERVER_API_AUTH_STRING"),
        schedule.mlflow_port: (
            "MLflow",
            "ajax-api/2.0/mlflow/server-info",
            "--app-name basic-auth",
        ),
    }
    open_to = {
        port: address
        for address, port in _listening(psutil.net_connections(kind="tcp"))
        if port in ports and not address.startswith(_LOOPBACK)
    }
    problems = []
    for port, address in sorted(open_to.items()):
        name, page, way = ports[port]
        if not _asks_who(port, page):
            message = f"{name} listens on {address}:{port} and asks nobody who they are"
            problems.append(fail(message, f"serve it on {server.HOST} (ragloop up), or with {way}"))
    for name in ("PREFECT_SERVER_API_HOST", "MLFLOW_HOST"):
        host = site.environment.get(name, server.HOST)
        if host not in (server.HOST, "localhost", "::1"):
            problems.append(warn(f"{name} is {host}: other machines reach it", f"unset {name}"))
    return worst(problems, "Prefect and MLflow are not open to other machines without a password")


def look_at_secrets(site: Site) -> Finding:
    """No password or token stands in a file that git keeps."""
    problems = [*_in_params(site), *_in_dvc(site.artifacts.root)]
    return worst(problems, "params.yaml and .dvc/config hold no credentials")


def _in_params(site: Site) -> Iterator[Finding]:
    for key, value in site.params.flat().items():
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str) or "://" not in text:
                continue
            parts = urlsplit(text)
            if parts.password or (parts.username and parts.scheme.startswith("http")):
                remedy = f"take them out of {key}, and put them into the environment"
                yield fail(f"{key} in params.yaml has credentials in its URL", remedy)
            elif key.startswith("notify.") and not text.startswith(("env:", "file:")):
                remedy = f"{key}: [env:NAME], and the URL in the environment"
                yield warn(f"{key} in params.yaml may hold a token", remedy)
            elif (
                key == "index.url"
                and parts.scheme == "http"
                and parts.hostname not in _LOCAL_HOSTS
                and site.environment.get("RAGLOOP_QDRANT_API_KEY")
            ):
                yield warn("the key of Qdrant goes unencrypted to index.url", "use https://")


def _in_dvc(root: Path) -> Iterator[Finding]:
    for section, values in read_config(root / ".dvc" / "config").items():
        held = [key for key in values if key in _DVC_SECRETS]
        if urlsplit(values.get("url", "")).password:
            held.append("url")
        for key in held:
            name = section.removeprefix("remote.")
            yield fail(
                f".dvc/config, which git keeps, has the {key} of {section}",
                f"dvc remote modify --unset {name} {key}, then: dvc remote modify --local {name} "
                f"{key} VALUE",
            )


def _listening(connections: Iterable[Any]) -> Iterator[tuple[str, int]]:
    """Address and port of every socket that waits for callers."""
    for item in connections:
        if item.status == "LISTEN" and item.laddr:
            yield item.laddr.ip, item.laddr.port


def _asks_who(port: int, page: str) -> bool:
    """Whether a server refuses a caller without a name."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(f"http://{server.HOST}:{port}/{page}", timeout=_ASK_SECONDS).close()
    except urllib.error.HTTPError as error:
        return error.code in _REFUSED
    except (OSError, ValueError):
        return False  # no HTTP, or no answer: nothing shows that it asks
    return False
