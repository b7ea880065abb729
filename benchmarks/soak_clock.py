"""The wall clock of a project under soak, stepped while its programs run; the machine's stays.

Two things see a step: whoever asks for the time, through a small library that every program of the
project loads (`step_clock.c`), and whoever reads when the machine was booted, which the kernel
moves along with the clock (`btime` in /proc/stat, covered in a mount namespace of their own).
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_SOURCE = Path(__file__).with_name("step_clock.c")
_STAT = Path("/proc/stat")
_BOOTED = b"\nbtime "


class Clock:
    """`offset` is how many seconds the project's clock is ahead of the machine's.

    `missing` says why it cannot be stepped here; empty where it can.
    """

    def __init__(self, folder: Path) -> None:
        self._library = folder / "step_clock.so"
        self._offset_file = folder / "clock-offset"
        self._stat = folder / "proc-stat"
        self._offset_file.write_bytes(struct.pack("q", 0))
        self.missing = self._build()
        self.shows_boot_time = not self.missing and _may_cover(_STAT)
        if self.shows_boot_time:
            self._stat.write_bytes(_STAT.read_bytes())
        self.offset = 0
        #: Seconds of the monotonic clock at which a step was made, and the offset since then.
        self.steps: list[tuple[float, int]] = [(time.monotonic(), 0)]

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which programs see this clock."""
        if self.missing:
            return {}
        return {"LD_PRELOAD": str(self._library), "STEP_CLOCK": str(self._offset_file)}

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command, in a mount namespace where /proc/stat shows this clock."""
        if not self.shows_boot_time:
            return list(command)
        cover = f'mount --bind "{self._stat}" {_STAT} && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", cover, "sh", *command]

    def now(self) -> float:
        """Seconds since the epoch, as the project's programs have it."""
        return time.time() + self.offset

    def step(self, seconds: int) -> None:
        """Puts the clock forward, or back."""
        self.offset += seconds
        _write(self._offset_file, 0, struct.pack("q", self.offset))
        if self.shows_boot_time:
            # In place and of the same length: it is mounted, and may be read at any moment.
            place = self._stat.read_bytes().index(_BOOTED) + len(_BOOTED)
            booted = int(_STAT.read_bytes().split(_BOOTED)[1].split()[0])
            _write(self._stat, place, str(booted + self.offset).encode())
        self.steps.append((time.monotonic(), self.offset))

    def _build(self) -> str:
        compiler = shutil.which("cc")
        if not compiler or not ctypes.util.find_library("c"):
            return "no C compiler"
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(self._library), str(_SOURCE)]
        done = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else f"cc failed: {done.stderr.strip()[-200:]}"


def _may_cover(path: Path) -> bool:
    command = ["unshare", "--mount", "sh", "-c", f"mount --bind /dev/null {path}"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def _write(path: Path, place: int, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(descriptor, content, place)
    finally:
        os.close(descriptor)
