"""The kind of machine that a run was made on: equal bytes are promised on the same kind only."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.release.bundle import library_versions

_PROCESSORS = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """Processor, threads, system, Python and the libraries that compute; nothing that names it.

    The number of threads decides in which order sums are made, and so the last bits of weights.
    """
    return {
        "processor": _processor(),
        "threads": _threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": library_versions(),
    }


def differences(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """One line for each fact that two machines differ in: `torch: 2.13.0 then, 2.14.0 now`."""
    then, now = _flat(recorded), _flat(found)
    return [
        f"{name}: {then.get(name, 'not recorded')} then, {now.get(name, 'missing')} now"
        for name in sorted(then.keys() | now.keys())
        if then.get(name) != now.get(name)
    ]


def _flat(facts: Mapping[str, Any]) -> dict[str, str]:
    flat = {name: str(value) for name, value in facts.items() if name != "libraries"}
    return flat | {name: str(value) for name, value in facts.get("libraries", {}).items()}


def _processor() -> str:
    """The model's name as the kernel gives it; `platform.processor()` is empty on many systems."""
    try:
        lines = _PROCESSORS.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _threads() -> int:
    """Threads that a stage computes with."""
    chosen = os.environ.get("OMP_NUM_THREADS", "")
    if chosen.isdecimal() and int(chosen) > 0:
        return int(chosen)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
