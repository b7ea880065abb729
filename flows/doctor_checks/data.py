"""The data that DVC keeps: what dvc.lock says lies in data/, and a remote that has a copy."""

from __future__ import annotations

import configparser
import hashlib
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from flows.doctor_checks.finding import Finding, Site, fail, ok, warn, worst

#: Files are hashed up to this; above it sizes are compared.
_HASHED_BYTES = 256_000_000
_CONNECT_SECONDS = 2.0
_SECURE_PORT, _PLAIN_PORT = 443, 80


def look_at_data(site: Site) -> Finding:
    """What stages wrote is what dvc.lock says, and recorded data can be had."""
    root = site.artifacts.root
    problems = []
    record = root / "data" / "raw.dvc"
    raw = site.artifacts.raw
    if record.is_file() and not any(path.is_file() for path in raw.rglob("*")):
        digest = str(yaml.safe_load(record.read_text(encoding="utf-8"))["outs"][0]["md5"])
        named = dvc_config(root / ".dvc").get("cache", {}).get("dir", "cache")
        cache = root / ".dvc" / named
        if not (cache / "files" / "md5" / digest[:2] / digest[2:]).is_file():
            problems.append(
                fail(
                    "data/raw/ is empty, and DVC's cache has none of what raw.dvc records",
                    "dvc pull",
                )
            )
    locked = root / "dvc.lock"
    if not locked.is_file():
        return worst(problems, "no stage has run yet")
    tree = yaml.safe_load(locked.read_text(encoding="utf-8")) or {}
    budget = _HASHED_BYTES
    outs = [out for stage in (tree.get("stages") or {}).values() for out in stage.get("outs", ())]
    for out in outs:
        path = root / out["path"]
        if not path.exists():
            remedy = "dvc checkout  # or: ragloop run"
            problems.append(fail(f"{out['path']} is in dvc.lock and missing", remedy))
            continue
        files = _files(path)
        size = sum(item.stat().st_size for item in files)
        is_same = size == out.get("size", size) and len(files) == out.get("nfiles", len(files))
        if is_same and size <= budget and "md5" in out:
            budget -= size
            is_same = _md5(path, files) == out["md5"]
        if not is_same:
            remedy = "dvc checkout  # or: ragloop run"
            problems.append(fail(f"{out['path']} is not what dvc.lock says", remedy))
    return worst(problems, f"{len(outs)} outputs are what dvc.lock says")


def look_at_remote(site: Site) -> Finding:
    """DVC has a default remote, and it can be reached."""
    folder = site.artifacts.root / ".dvc"
    config = dvc_config(folder)
    name = config.get("core", {}).get("remote")
    if name is None:
        return warn(
            "DVC has no default remote: the data is on this machine only",
            "dvc remote add --default storage URL && dvc push",
        )
    url = config.get(f"remote.{name}", {}).get("url")
    if url is None:
        return fail(f"DVC's remote {name} has no url", f"dvc remote add --force {name} URL")
    return _reach(name, url, config[f"remote.{name}"], folder)


def _reach(name: str, url: str, remote: Mapping[str, str], folder: Path) -> Finding:
    """Whether a remote is there; `folder` is the one that its path is relative to."""
    parts = urlsplit(url)
    if not parts.scheme or parts.scheme in ("file", "local"):
        path = Path(parts.path if parts.scheme else url).expanduser()
        path = path if path.is_absolute() else (folder / path).resolve()
        if path.is_dir():
            return ok(f"{name}: {path}")
        return fail(f"DVC's remote {name} is {path}, which is missing", f"mkdir {path}; dvc push")
    address = _address(parts.scheme, parts.hostname, parts.port, remote)
    if address is None:
        return ok(f"{name}: {parts.scheme}, not looked at")
    spoken = f"{address[0]}:{address[1]}"
    try:
        socket.create_connection(address, timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        remedy = f"check the network and: dvc remote modify {name} endpointurl URL"
        return fail(f"DVC's remote {name} cannot be reached at {spoken} ({error})", remedy)
    return ok(f"{name}: {parts.scheme} at {spoken} answers")


def dvc_config(folder: Path) -> dict[str, dict[str, str]]:
    """DVC's settings of the project, the local ones over the shared; remotes as `remote.NAME`."""
    merged: dict[str, dict[str, str]] = {}
    for name in ("config", "config.local"):
        for section, values in read_config(folder / name).items():
            merged.setdefault(section, {}).update(values)
    return merged


def read_config(path: Path) -> dict[str, dict[str, str]]:
    """One of DVC's files of settings; empty where it is missing."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    if path.is_file():
        # Keys are indented below their section; configparser takes that for a continued line.
        text = path.read_text(encoding="utf-8")
        parser.read_string("\n".join(line.strip() for line in text.splitlines()))
    return {
        section.strip("'").replace(' "', ".").rstrip('"'): dict(parser[section])
        for section in parser.sections()
    }


def _address(
    scheme: str, host: str | None, port: int | None, remote: Mapping[str, str]
) -> tuple[str, int] | None:
    """Where to knock; None for kinds of storage that need their own client."""
    if scheme == "s3":
        named = urlsplit(remote.get("endpointurl", "https://s3.amazonaws.com"))
        default = _PLAIN_PORT if named.scheme == "http" else _SECURE_PORT
        return (named.hostname, named.port or default) if named.hostname else None
    if scheme in ("http", "https", "webdav", "webdavs") and host:
        return host, port or (_SECURE_PORT if scheme.endswith("s") else _PLAIN_PORT)
    return None


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(item for item in path.rglob("*") if item.is_file())


def _md5(path: Path, files: list[Path]) -> str:
    """As DVC names content: of a file its own, of a folder that of the list of its files."""
    if path.is_file():
        return _file_md5(path)
    listed = [*_listed(path, files)]
    return f"{hashlib.md5(json.dumps(listed, sort_keys=True).encode()).hexdigest()}.dir"


def _listed(path: Path, files: list[Path]) -> Iterator[dict[str, Any]]:
    names = {item.relative_to(path).as_posix(): item for item in files}
    for name in sorted(names):
        yield {"md5": _file_md5(names[name]), "relpath": name}


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
