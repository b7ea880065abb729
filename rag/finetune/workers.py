"""Several training processes: how they start, who we are among them, and what they agree on.

`processes: N` makes `python -m rag train_reader` start N workers, which end with it by whatever
means it ends. Where `accelerate launch -m rag train_reader` or `torchrun` has started them, they
are found by the environment that both set (RANK, WORLD_SIZE). The main worker, rank 0, evaluates
and writes; the others take their share of every step's batches.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from rag.errors import RagError, TrainingError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
_PR_SET_PDEATHSIG = 1
#: The others wait while the main worker evaluates; one that is dead is noticed at once anyway.
_PATIENCE = timedelta(days=1)


@dataclass(frozen=True)
class World:
    """The training processes; alone, everything below returns what it was given."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replaces each tensor by its sum over the workers."""
        if self.size > 1:
            from torch import distributed

            for work in [distributed.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

    def totals(self, values: Sequence[float]) -> list[float]:
        """Sums over the workers, in float64."""
        if self.size == 1:
            return list(values)
        import torch

        sums = torch.tensor(list(values), dtype=torch.float64, device=_device())
        self.sum([sums])
        found: list[float] = sums.tolist()
        return found

    def copy_from_main(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replaces each tensor by the main worker's."""
        if self.size > 1:
            from torch import distributed

            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def agreed(self, value: T) -> T:
        """The main worker's value."""
        if self.size == 1:
            return value
        from torch import distributed

        values: list[Any] = [value]
        distributed.broadcast_object_list(values, 0, device=_device())
        agreed: T = values[0]
        return agreed

    def gathered(self, value: T) -> list[T]:
        """Every worker's value, in the order of their ranks."""
        if self.size == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values


def world() -> World:
    """The workers that we have joined, or us alone."""
    if "torch" not in sys.modules:
        return World()  # they are joined through torch, whose import costs a second
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        return World(distributed.get_rank(), distributed.get_world_size())
    return World()


def rank() -> int:
    """Ours by the environment, before the others are joined; 0 where nobody started workers."""
    return int(os.environ.get("RANK", "0"))


def is_started_by_a_launcher() -> bool:
    """Whether we are one of several workers by the environment."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def joined() -> Iterator[World]:
    """The other workers, where there are any: over gloo on CPUs, nccl on a GPU for each.

    Workers of one machine divide its cores among them.
    """
    if not is_started_by_a_launcher():
        yield World()
        return
    import torch
    from torch import distributed

    local_rank = int(os.environ.get("LOCAL_RANK", str(rank())))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
    backend = "gloo"
    if torch.cuda.is_available():
        if torch.cuda.device_count() < local_size:
            raise TrainingError(
                f"{local_size} training processes on this machine, which has "
                f"{torch.cuda.device_count()} GPUs: set processes to that"
            )
        backend = "nccl"
        torch.cuda.set_device(local_rank)
    torch.set_num_threads(max(1, torch.get_num_threads() // local_size))
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield world()
    finally:
        distributed.destroy_process_group()


@contextmanager
def main_first() -> Iterator[None]:
    """The main worker goes first: what it downloads, converts or encodes, the others find."""
    workers = world()
    if not workers.is_main:
        workers.agreed(None)
    yield
    if workers.is_main:
        workers.agreed(None)


def launch(work: Callable[[str], None], argument: str, processes: int) -> None:
    """Runs `work(argument)` in that many processes; the first error of any is raised here.

    They share our output, and are killed when we are. `work` is found by its name: a function at
    the top of a module.
    """
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, spawn

    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    start = _Start(work, argument, processes, _free_port(), os.getpid())
    try:
        spawn(_worker, (start, errors), nprocs=processes)
    except ProcessExitedException as failure:
        if not errors.empty():
            raise errors.get() from None
        raise TrainingError(
            f"training process {failure.error_index + 1} of {processes} was ended by "
            f"{failure.signal_name or f'exit code {failure.exit_code}'}; run the stage again, it "
            "goes on from its last checkpoint"
        ) from None
    except ProcessRaisedException:
        # One that another's end has stopped says less than what ended the other.
        if not errors.empty():
            raise errors.get() from None
        raise


@dataclass(frozen=True)
class _Start:
    """What a worker is told when it is started."""

    work: Callable[[str], None]
    argument: str
    processes: int
    port: int
    parent: int


def _worker(number: int, start: _Start, errors: Any) -> None:
    _die_with(start.parent)
    variables = {
        "RANK": number,
        "LOCAL_RANK": number,
        "WORLD_SIZE": start.processes,
        "LOCAL_WORLD_SIZE": start.processes,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": start.port,
    }
    os.environ.update({name: str(value) for name, value in variables.items()})
    if sys.platform == "linux":
        # The name of this machine need not lead to an address of it.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        start.work(start.argument)
    except (RagError, FileNotFoundError) as error:
        errors.put(error)
        sys.exit(1)


def _die_with(parent: int) -> None:
    """Asks the kernel to kill us when the process that started us is gone, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(1)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def _device() -> torch.device:
    """Where tensors must be for the workers to exchange them."""
    import torch
    from torch import distributed

    return torch.device("cuda" if distributed.get_backend() == "nccl" else "cpu")
