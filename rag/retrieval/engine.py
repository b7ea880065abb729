"""Who encodes: this process (`local`), or the workers of a Ray cluster (`ray`).

An engine takes parts one after the other and gives each back with its vectors, in whatever order
they are finished. As a vector is a function of its text alone, the engine changes no byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from rag.params import Params
from rag.retrieval.encoder import FloatMatrix
from rag.retrieval.vector_store import Keys

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Part:
    """Texts that are encoded and committed together."""

    keys: Keys
    texts: tuple[str, ...]
    tokens: int


@dataclass(frozen=True)
class EncodedPart:
    """A part with its vectors (N, D) and the seconds that its worker took."""

    part: Part
    vectors: FloatMatrix
    seconds: float


class PassageEncoder(Protocol):
    """As much of an encoder as embedding needs."""

    @property
    def passage_fingerprint(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    def encode(
        self,
        texts: tuple[str, ...],
        side: Literal["passage"],
        *,
        batch_tokens: int,
        progress: Advance | None = None,
    ) -> FloatMatrix: ...


class Engine(Protocol):
    """What local and Ray both do."""

    def encode(self, parts: Iterable[Part], advance: Advance) -> Iterator[EncodedPart]:
        """Each part once, as it is finished; `parts` is asked for no more than is worked on.

        `advance` is told of texts as they are encoded.
        """


class LocalEngine:
    """Encodes in this process."""

    def __init__(self, encoder: PassageEncoder, batch_tokens: int) -> None:
        self._encoder = encoder
        self._batch_tokens = batch_tokens

    def encode(self, parts: Iterable[Part], advance: Advance) -> Iterator[EncodedPart]:
        _ = self._encoder.dimension  # loads the model, which is no part's time
        for part in parts:
            started = time.monotonic()
            vectors = self._encoder.encode(
                part.texts, "passage", batch_tokens=self._batch_tokens, progress=advance
            )
            yield EncodedPart(part, vectors, time.monotonic() - started)


def choose_engine(
    params: Params, cache: Path, encoder: PassageEncoder, folder: Path | None
) -> Engine:
    """The engine that `embed.engine` names; `folder` is what the encoder was loaded from."""
    if params.embed.engine == "local":
        return LocalEngine(encoder, params.embed.batch_tokens)
    from rag.retrieval.engine_ray import RayEngine

    return RayEngine(
        params.embed, params.retriever, cache, folder, fingerprint=encoder.passage_fingerprint
    )
