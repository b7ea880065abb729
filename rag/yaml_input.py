"""YAML as DVC reads it (version 1.2: 5e-4 is a number, a key given twice an error), and `--set`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rag.errors import ParamsError


def _load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def _one_line(error: Exception) -> str:
    """What is wrong and where, without the excerpt and the advice that ruamel adds."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem and mark:
        return f"{problem} in line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    try:
        tree = _load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run in the project's folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not valid YAML: {_one_line(error)}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: expected sections such as 'reader:', got {type(tree).__name__}")
    return tree


def merge_overrides(tree: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `tree` with each `section.key=value` set; unknown keys are left to validation."""
    merged = copy.deepcopy(dict(tree))
    problems = []
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            problems.append(f"--set {override}: expected section.key=value")
            continue
        try:
            value = _load(text)
        except YAMLError as error:
            problems.append(f"--set {override}: the value is not valid YAML: {_one_line(error)}")
            continue
        *parents, leaf = key.split(".")
        node = merged
        for name in parents:
            node = node.setdefault(name, {})
            if not isinstance(node, dict):
                problems.append(f"--set {override}: {name} is a value, not a section")
                break
        else:
            node[leaf] = value
    if problems:
        raise ParamsError(problems)
    return merged
