"""DVC's configuration of a checkout, read without starting DVC, and written for another one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from configparser import ConfigParser
from pathlib import Path

Config = dict[str, dict[str, str]]

_LOCAL = "config.local"


def remote_section(name: str) -> str:
    """The title of a remote's section, as DVC writes it."""
    return f"'remote \"{name}\"'"


def read_config(root: Path) -> Config:
    """`.dvc/config` with `.dvc/config.local` over it; local folders as absolute paths."""
    parser = ConfigParser(interpolation=None, default_section="", comment_prefixes=("#",))
    folder = root / ".dvc"
    merged: Config = {}
    for name in ("config", _LOCAL):
        parser.clear()
        parser.read(folder / name, encoding="utf-8")
        for title in parser.sections():
            values = {key: _absolute(folder, key, value) for key, value in parser[title].items()}
            merged.setdefault(title, {}).update(values)
    return merged


def write_local(root: Path, config: Mapping[str, Mapping[str, str]]) -> None:
    """Writes `.dvc/config.local`, for nobody else to read: it may hold a remote's credentials."""
    lines = []
    for title, values in config.items():
        lines.append(f"[{title}]\n")
        lines += [f"    {key} = {value}\n" for key, value in values.items()]
    path = root / ".dvc" / _LOCAL
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(lines)


def _absolute(folder: Path, key: str, value: str) -> str:
    """DVC keeps a folder relative to the file that names it."""
    if key != "url" or "://" in value:
        return value
    return str((folder / value).resolve())
