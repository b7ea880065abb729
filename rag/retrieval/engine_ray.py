"""Encoding by the workers of a Ray cluster, or of a Ray that is started on this machine.

One actor a GPU where the cluster has any, otherwise one a core; each loads the encoder once. This
process reads the chunks, hands out parts and commits what comes back: the cluster needs no shared
disk. A part whose worker is lost is done again by Ray.

What a worker needs: the same versions of the packages, and the model. A bundled model or a hub id
is resolved by name on the worker; tuned weights, and a model that is a local folder, are sent to it
as files. A worker that arrives at another encoder is refused by its fingerprint.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.errors import InputError, ModelError, RagError
from rag.params import EmbedParams, RetrieverParams
from rag.retrieval.encoder import FloatMatrix
from rag.retrieval.engine import Advance, EncodedPart, Part

if TYPE_CHECKING:
    from rag.retrieval.encoder import Encoder

#: Parts handed to a worker before its first result is back: one under way, one waiting.
_PARTS_A_WORKER = 2
#: Lost workers are started again, and their parts repeated, so many times each.
_RESTARTS = 3
_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Share:
    """What one worker is given, and how many of them there are."""

    workers: int
    cores: int
    gpus: int


class RayEngine:
    """Encodes on Ray; the encoder of this process is not loaded."""

    def __init__(
        self,
        embed: EmbedParams,
        retriever: RetrieverParams,
        cache: Path,
        folder: Path | None,
        *,
        fingerprint: str,
    ) -> None:
        self._embed = embed
        self._retriever = retriever
        self._cache = cache
        self._folder = folder
        self._fingerprint = fingerprint

    def encode(self, parts: Iterable[Part], advance: Advance) -> Iterator[EncodedPart]:
        with connected(self._embed.address) as ray:
            share = shares(ray.nodes(), self._embed.workers)
            # Held until the end: a worker that is started again reads it again.
            recipe = ray.put(self._recipe(share))
            workers = self._start(ray, share, recipe)
            try:
                yield from _hand_out(ray, workers, iter(parts), advance)
            finally:
                for worker in workers:
                    ray.kill(worker)

    def _recipe(self, share: Share) -> Recipe:
        return Recipe(
            self._retriever,
            self._embed.batch_tokens,
            tuned=_files(self._folder),
            model=_files(Path(self._retriever.model).expanduser()),
            cache=None if self._embed.address else self._cache,
            threads=None if share.gpus else share.cores,
        )

    def _start(self, ray: Any, share: Share, recipe: Any) -> list[Any]:
        """The actors, each with its encoder checked."""
        actor = ray.remote(
            num_cpus=share.cores,
            num_gpus=share.gpus,
            max_restarts=_RESTARTS,
            max_task_retries=_RESTARTS,
        )(Worker)
        workers = [actor.remote(recipe) for _ in range(share.workers)]
        for fingerprint, host in _results(ray, [worker.fingerprint.remote() for worker in workers]):
            if fingerprint != self._fingerprint:
                raise ModelError(
                    f"the Ray worker on {host} has encoder {fingerprint[:16]}, expected "
                    f"{self._fingerprint[:16]}; install the same packages and model there"
                )
        return workers


@dataclass(frozen=True)
class Recipe:
    """How a worker makes its encoder: names where they will do, files where they have to."""

    retriever: RetrieverParams
    batch_tokens: int
    tuned: Mapping[str, bytes]
    model: Mapping[str, bytes]
    cache: Path | None
    threads: int | None


class Worker:
    """What runs in an actor: an encoder with its own number of threads."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._loaded: Encoder | None = None

    @property
    def _encoder(self) -> Encoder:
        # Not in __init__: what a method raises comes back as it is.
        if self._loaded is None:
            self._loaded = _load(self._recipe)
        return self._loaded

    def fingerprint(self) -> tuple[str, str]:
        """Which encoder this is, and on which machine."""
        return self._encoder.passage_fingerprint, socket.gethostname()

    def encode(self, texts: tuple[str, ...]) -> tuple[FloatMatrix, float]:
        """Vectors (N, D), and the seconds they took."""
        encoder, started = self._encoder, time.monotonic()
        batch_tokens = self._recipe.batch_tokens
        vectors = encoder.encode(texts, "passage", batch_tokens=batch_tokens)
        return vectors, time.monotonic() - started


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Ray, joined to the cluster at `address`, or started here and ended afterwards."""
    # Read when Ray starts: it reports to nobody.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError:
        raise InputError(
            "embed.engine: 'ray' needs the package ray, which is not installed; run: "
            "pip install 'ragloop[ray]', or set embed.engine to local"
        ) from None
    mine = not ray.is_initialized()
    if mine:
        _init(ray, address)
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()


def shares(nodes: Iterable[Mapping[str, Any]], workers: int | None) -> Share:
    """One worker a GPU, otherwise one a core, unless `workers` says how many.

    Each has its part of the cores, but never more than the smallest machine has.
    """
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    cores = [int(resource["CPU"]) for resource in resources if resource.get("CPU", 0) >= 1]
    gpus = sum(int(resource.get("GPU", 0)) for resource in resources)
    most, kind = (gpus, "GPUs") if gpus else (sum(cores), "cores")
    count = workers or most
    if not 1 <= count <= most:
        raise InputError(f"embed.workers: {count}, but the cluster has {most} {kind}")
    if gpus:
        # One core for the tokenizer; Ray need not set aside more.
        return Share(count, 1, 1)
    return Share(count, min(most // count, *cores), 0)


def _load(recipe: Recipe) -> Encoder:
    import torch

    from rag.retrieval.encoder import Encoder

    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    retriever = recipe.retriever
    with tempfile.TemporaryDirectory(prefix="ragloop-encoder-") as name:
        place = Path(name)
        if recipe.model:
            folder = _write(recipe.model, place / "model")
            retriever = retriever.model_copy(update={"model": str(folder)})
        tuned = _write(recipe.tuned, place / "retriever") if recipe.tuned else None
        encoder = Encoder(retriever, recipe.cache or place / "cache", folder=tuned)
        # Reads all that it needs, after which the files may go.
        encoder.encode([""], "passage")
    return encoder


def _init(ray: Any, address: str | None) -> None:
    if address is None:
        ray.init(
            address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
        return
    _check_reachable(address)
    package = str(Path(__file__).resolve().parents[1])
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"py_modules": [package], "env_vars": {"RAY_USAGE_STATS_ENABLED": "0"}},
    )


def _check_reachable(address: str) -> None:
    """Ray itself tries an address where nobody listens for ten minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        if address != "auto":
            raise InputError(
                f"embed.address: {address!r} is no address; expected HOST:PORT, "
                "ray://HOST:PORT or auto"
            )
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"embed.address: no Ray cluster at {address!r} ({error}); start one with: "
            "ray start --head, or set embed.address to null"
        ) from error


def _hand_out(
    ray: Any, workers: list[Any], parts: Iterator[Part], advance: Advance
) -> Iterator[EncodedPart]:
    """Every worker has at most two parts; who returns one is given the next."""
    under_way: dict[Any, tuple[Part, Any]] = {}

    def give(worker: Any) -> None:
        part = next(parts, None)
        if part is not None:
            under_way[worker.encode.remote(part.texts)] = part, worker

    for _ in range(_PARTS_A_WORKER):
        for worker in workers:
            give(worker)
    while under_way:
        [ready], _ = ray.wait(list(under_way), num_returns=1)
        part, worker = under_way.pop(ready)
        [(vectors, seconds)] = _results(ray, [ready])
        give(worker)
        advance(len(part.texts))
        yield EncodedPart(part, vectors, seconds)


def _results(ray: Any, references: list[Any]) -> list[Any]:
    """What the workers returned, or the error that one of them met."""
    try:
        found: list[Any] = ray.get(references)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayActorError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise RagError(
            f"a Ray worker ended {_RESTARTS + 1} times ({lines[0]}); is there memory for "
            "embed.workers encoders? What is done is kept: run again"
        ) from error
    return found


def _files(folder: Path | None) -> dict[str, bytes]:
    """Every file below a folder by its relative path; nothing where there is no such folder."""
    if folder is None or not folder.is_dir():
        return {}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _write(files: Mapping[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
