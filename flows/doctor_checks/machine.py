"""The machine below: disk, memory, the clock, locks and processes that lost their parent."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator, Set
from pathlib import Path

from flows import lock, server
from flows.doctor_checks.finding import Finding, Site, WaitsFor, fail, ok, warn, worst
from flows.prefect_facts import read_prefect, serving
from rag.errors import RagError

_GIGABYTE = 1_000_000_000
_LITTLE_DISK, _ENOUGH_DISK = 1 * _GIGABYTE, 5 * _GIGABYTE
_LITTLE_MEMORY, _ENOUGH_MEMORY = 0.25 * _GIGABYTE, 1 * _GIGABYTE
_LITTLE_INODES = 0.01
_OFF_SECONDS, _WRONG_SECONDS = 5.0, 60.0
#: What our programs are called on their command lines.
_OURS = ("flows.cli", "flows.schedule", "flows.metrics_server", "guard.py")
_OUR_TOOLS = (("-m", "rag"), ("-m", "dvc"), ("-m", "mlflow"), ("-m", "prefect"))
_SYNCHRONISE = "timedatectl set-ntp true"


def look_at_disk(site: Site) -> Finding:
    """There is room for more releases of the size of the last one."""
    folder = next(path for path in (site.artifacts.state, site.artifacts.root) if path.exists())
    usage = shutil.disk_usage(folder)
    facts = os.statvfs(folder)
    inodes = facts.f_favail / facts.f_files if facts.f_files else 1.0
    return judge_disk(usage.free, usage.total, inodes, _release_bytes(site))


def judge_disk(free: int, total: int, free_inodes: float, release: int) -> Finding:
    """`free_inodes` is a share, `release` the bytes that the champion and its index take."""
    needed = _LITTLE_DISK + 2 * release
    spoken = f"{free / _GIGABYTE:.1f} of {total / _GIGABYTE:.1f} GB free"
    if free < needed:
        return fail(f"{spoken}, a run may need {needed / _GIGABYTE:.1f} GB", "ragloop prune")
    if free_inodes < _LITTLE_INODES:
        return fail(f"{100 * free_inodes:.1f} % of the inodes are free", "ragloop prune")
    if free < max(_ENOUGH_DISK, 2 * needed):
        return warn(f"{spoken}, which is little", "ragloop prune")
    return ok(spoken)


def look_at_memory(site: Site) -> Finding:
    """There is memory to work in, also where a control group allows less than the machine has."""
    import psutil

    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no control group of version 2, or no limit
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        facts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Files that were read count as used, and make room when it is needed.
        free = min(free, limit - used + int(facts.get("inactive_file", 0)))
    return judge_memory(free)


def judge_memory(free: int) -> Finding:
    """`free` is in bytes."""
    spoken = f"{free / _GIGABYTE:.1f} GB of memory available"
    if free < _LITTLE_MEMORY:
        return fail(spoken, "stop other programs, or give this machine more memory")
    if free < _ENOUGH_MEMORY:
        return warn(f"{spoken}, which is little", "stop other programs, or set smaller batches")
    return ok(spoken)


def look_at_clock(site: Site) -> Finding:
    """This clock agrees with the times of files, of the ledger and of Prefect's server."""
    now = site.now.timestamp()
    problems = []
    artifacts = site.artifacts
    newest, path = max(
        (
            (item.stat().st_mtime, item)
            for folder in (artifacts.root, artifacts.state)
            for item in folder.glob("*")
            if item.is_file()
        ),
        default=(0.0, artifacts.root),
    )
    problems += _ahead(newest - now, f"{path.name} is dated")
    try:
        times = [str(row["time"]) for row in site.ledger if row.get("time")]
    except WaitsFor:
        times = []
    if times:
        from rag.release.history import parse_time

        problems += _ahead(
            parse_time(times[-1]).timestamp() - now, "the last row of the ledger is dated"
        )
    found = serving(artifacts, site.environment)
    compared = "files and ledger"
    if found.api is not None:
        try:
            asked = time.time()
            facts = read_prefect(
                found.api, artifacts.root, site.environment, site.now, is_own=found.state == "up"
            )
        except RagError:
            facts = None  # the check of the schedule says so
        if facts is not None and facts.server_time is not None:
            compared += " and Prefect's server"
            apart = abs(facts.server_time.timestamp() - asked)
            problems += _ahead(apart, "Prefect's server and this machine differ by")
    return worst(problems, f"agrees with {compared}")


def _ahead(seconds: float, what: str) -> list[Finding]:
    if seconds <= _OFF_SECONDS:
        return []
    message = f"{what} {seconds:.0f} s" + ("" if what.endswith("by") else " in the future")
    return [(fail if seconds > _WRONG_SECONDS else warn)(message, _SYNCHRONISE)]


def look_at_locks(site: Site) -> Finding:
    """Locks are free, or held by somebody who lives and gives a sign now and then."""
    problems, held = [], []
    now = site.now.timestamp()
    ways = {site.artifacts.lock: "ragloop run", server.up_lock(site.artifacts): "ragloop up"}
    for path, way in ways.items():
        holder = lock.holder(path)
        if holder is None:
            continue
        takes_over = f"{way}  # takes it over"
        silent = now - path.stat().st_mtime
        if not holder.is_here:
            if silent > lock.SILENCE_SECONDS:
                problems.append(
                    warn(f"{holder.spoken()} has been silent {silent:.0f} s", takes_over)
                )
            continue
        if not holder.is_alive:
            if _is_locked(path):
                left = f"children of {holder.spoken()}, which is dead, still hold {path.name}"
                problems.append(fail(left, "ragloop doctor --only processes"))
            else:
                problems.append(warn(f"{path.name} was left by {holder.spoken()}", takes_over))
        elif silent > lock.SILENCE_SECONDS:
            hangs = f"{holder.spoken()} gives no sign for {silent:.0f} s: it hangs or is stopped"
            problems.append(fail(hangs, f"kill -CONT {holder.pid}; or: kill {holder.pid}"))
        else:
            held.append(holder.spoken())
    problems += _dvc_locks(site.artifacts.root / ".dvc" / "tmp" / "rwlock")
    return worst(problems, f"held by {', '.join(held)}" if held else "free")


def _dvc_locks(path: Path) -> Iterator[Finding]:
    """Readers and writers that DVC noted and that are gone."""
    import psutil

    if not path.is_file() or not path.stat().st_size:
        return
    entries = json.loads(path.read_text(encoding="utf-8"))
    pids = set()
    for entry in entries.values():
        readers, writer = entry.get("read", ()), entry.get("write")
        pids |= {item["pid"] for item in [*readers, *([writer] if writer else ())]}
    for pid in sorted(pids):
        if not psutil.pid_exists(pid):
            yield warn(f"DVC's lock names process {pid}, which is gone", f"rm {path}")


def _is_locked(path: Path) -> bool:
    """Whether the kernel has a lock on this file; looked up, for trying it would take it."""
    facts = path.stat()
    inode = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    try:
        rows = Path("/proc/locks").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return any(inode in row.split() for row in rows)


def look_at_processes(site: Site) -> Finding:
    """No program of this project runs on after whoever started it is gone."""
    import psutil

    root = site.artifacts.root.resolve()
    holders = {
        found.pid
        for path in (site.artifacts.lock, server.up_lock(site.artifacts))
        if (found := lock.holder(path)) is not None and found.is_here and found.is_alive
    }
    problems, count = [], 0
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if not _is_ours(command) or Path(process.cwd()) != root:
                continue
            count += 1
            if _is_orphan(process, holders):
                said = " ".join(command[1:5])
                problems.append(
                    fail(
                        f"process {process.pid} ({said}) has lost its parent", f"kill {process.pid}"
                    )
                )
        except (psutil.Error, OSError):
            continue  # it has ended, or is somebody else's
    return worst(problems, f"{count} of this project run, each has its parent")


def _is_ours(command: list[str]) -> bool:
    if any(part.endswith(_OURS) for part in command):
        return True
    pairs = set(itertools.pairwise(command))
    return any(tool in pairs for tool in _OUR_TOOLS)


def _is_orphan(process: object, holders: Set[int]) -> bool:
    """Its session's leader has died (a guard's group is a session), and no holder is above it."""
    import psutil

    assert isinstance(process, psutil.Process)
    above = {process.pid, *(parent.pid for parent in process.parents())}
    if above & {*holders, os.getpid()}:
        return False
    leader = os.getsid(process.pid)
    return not psutil.pid_exists(leader) or (
        psutil.Process(leader).status() == psutil.STATUS_ZOMBIE
    )


def _release_bytes(site: Site) -> int:
    from rag.artifacts import folder_bytes

    try:
        served = site.served
    except WaitsFor:
        return 0
    if served is None:
        return 0
    release, bundle = served
    return folder_bytes(bundle) + folder_bytes(site.artifacts.index_folder / str(release.index))
