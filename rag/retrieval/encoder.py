"""The encoder that turns questions and passages into unit vectors.

Any sentence-transformers model will do. A vector is a function of its text alone, bit for bit on
one kind of machine: a text is padded to the next multiple of eight of its own length and shares a
batch only with texts of that length, so neither the batch nor its order changes a bit of it
(measured for both backends in every precision; tests/retrieval/test_encoder.py). That is what lets
vectors be kept by content, made in parts, or made by many workers, and still be the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from rag.errors import ModelError
from rag.params import RetrieverParams
from rag.records import sorted_json
from rag.weights import Weights, checked_folder, resolve_weights

FloatMatrix = npt.NDArray[np.float32]
IntMatrix = npt.NDArray[np.int64]
Side = Literal["query", "passage"]
Progress = Callable[[int], None]

MANIFEST = "encoder.json"
TUNED = "model"
#: Padded lengths are multiples of this: little padding, and few enough lengths to fill batches.
LENGTH_STEP = 8
#: Texts that are tokenised and sorted together.
_WINDOW = 16_384


class Backend(Protocol):
    """What runs the model."""

    dimension: int
    """D, the length of a vector."""

    def encode(self, texts: Sequence[str]) -> FloatMatrix:
        """Unit vectors (B, D) of texts that have the same padded length."""


class Encoder:
    """Both sides of a retriever with their prompts; vectors have length 1.

    `folder` is what train_retriever left (`passage/`, `query/`), None for the model as it is;
    `query_folder` holds the weights of a query side that was tuned with the reader, and takes the
    place of the one in `folder`. The weights of a side are loaded when it first encodes, once where
    both sides share them.
    """

    def __init__(
        self,
        params: RetrieverParams,
        cache: Path,
        *,
        folder: Path | None = None,
        query_folder: Path | None = None,
        device: str | None = None,
    ) -> None:
        self.weights = resolve_weights(params.model, params.revision, cache)
        _check_max_tokens(params, self.weights)
        self._params = params
        self._cache = cache
        self._device = device
        self._backends: dict[str, Backend] = {}
        self._tokenizer: Any = None
        self._sides: dict[Side, Weights] = {
            side: _side_weights(params, self.weights, folder, side) for side in _SIDES
        }
        if query_folder is not None:
            self._sides["query"] = _query_weights(params, self.weights, query_folder)
        self.passage_fingerprint = _fingerprint(params, self._sides["passage"], "passage")
        self.query_fingerprint = _fingerprint(params, self._sides["query"], "query")

    @property
    def dimension(self) -> int:
        """D, the length of a vector."""
        return self._backend("passage").dimension

    def weights_of(self, side: Side) -> Weights:
        """What this side encodes with: the model's own weights, or tuned ones."""
        return self._sides[side]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text with special tokens; needs the tokenizer only, not the weights."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(self.weights.folder / "tokenizer.json"))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        return [len(encoding.ids) for encoding in encodings]

    def encode(
        self,
        texts: Sequence[str],
        side: Side,
        *,
        batch_tokens: int = 4096,
        progress: Progress | None = None,
    ) -> FloatMatrix:
        """Unit vectors, float32, shape (N, D), in the order of `texts`."""
        backend = self._backend(side)
        prompt = getattr(self._params, f"{side}_prompt")
        vectors = np.empty((len(texts), backend.dimension), dtype=np.float32)
        for start in range(0, len(texts), _WINDOW):
            window = [prompt + text for text in texts[start : start + _WINDOW]]
            lengths = [min(n, self._params.max_tokens) for n in self.count_tokens(window)]
            for batch in equal_length_batches(lengths, batch_tokens):
                rows = backend.encode([window[i] for i in batch])
                vectors[[start + i for i in batch]] = rows
                if progress is not None:
                    progress(len(batch))
        return vectors

    def _backend(self, side: Side) -> Backend:
        weights = self._sides[side]
        if weights.sha256 not in self._backends:
            self._backends[weights.sha256] = _load(self._params, weights, self._cache, self._device)
        return self._backends[weights.sha256]


_SIDES: tuple[Side, ...] = ("passage", "query")


def write_manifest(
    folder: Path,
    params: RetrieverParams,
    weights: Weights,
    source: Literal["base", "tuned", "passage"],
) -> None:
    """Says where the weights of one side are: the base model's, tuned ones in `model/` beside it,
    or those of the passage side."""
    manifest = {
        "model": params.model,
        "revision": params.revision,
        "sha256": weights.sha256,
        "weights": source,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def equal_length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Positions grouped by padded length, longest first, within `batch_tokens` padded tokens."""
    groups: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        groups.setdefault(-(-length // LENGTH_STEP) * LENGTH_STEP, []).append(position)
    batches = []
    for padded in sorted(groups, reverse=True):
        rows = max(1, batch_tokens // padded)
        members = groups[padded]
        batches += [members[start : start + rows] for start in range(0, len(members), rows)]
    return batches


def token_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Positions grouped so that longest × count stays within `batch_tokens`, long texts first."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    for position in order:
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= batch_tokens:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def _load(params: RetrieverParams, weights: Weights, cache: Path, device: str | None) -> Backend:
    if params.backend == "openvino":
        from rag.retrieval.backend_openvino import OpenVinoBackend

        return OpenVinoBackend(params, weights, cache)
    from rag.retrieval.backend_torch import TorchBackend

    return TorchBackend(params, weights, device)


def _side_weights(
    params: RetrieverParams, base: Weights, folder: Path | None, side: Side
) -> Weights:
    """The weights of one side; refuses what was tuned from another model than params name."""
    if folder is None:
        return base
    source = _source(params, base, folder / side, "train_retriever")
    if source == "passage":
        return _side_weights(params, base, folder, "passage")
    if source == "tuned":
        return checked_folder(f"{params.model} (tuned, {side} side)", folder / side / TUNED)
    return base


def _query_weights(params: RetrieverParams, base: Weights, folder: Path) -> Weights:
    """The weights of a query side that was tuned with the reader."""
    _source(params, base, folder, "train_reader")
    return checked_folder(f"{params.model} (tuned with the reader, query side)", folder)


def _source(params: RetrieverParams, base: Weights, folder: Path, stage: str) -> str:
    """Where the manifest in `folder` says that weights are; `stage` is what writes it."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; run: dvc repro {stage}") from None
    if manifest["sha256"] != base.sha256:
        raise ModelError(
            f"retriever {params.model} has SHA-256 {base.sha256}, the stage {stage} left one with "
            f"{manifest['sha256']}; run: ragloop run"
        )
    return str(manifest["weights"])


def _check_max_tokens(params: RetrieverParams, weights: Weights) -> None:
    """A model reads no more tokens than it has positions; past them torch gives no clear error."""
    config = weights.folder / "config.json"
    if config.is_file():
        limit = json.loads(config.read_text(encoding="utf-8")).get("max_position_embeddings")
        if limit is not None and params.max_tokens > limit:
            raise ModelError(
                f"retriever.max_tokens: {params.model} reads at most {limit} tokens, "
                f"got {params.max_tokens}"
            )


def _fingerprint(params: RetrieverParams, weights: Weights, side: Side) -> str:
    parts = {
        "weights": weights.sha256,
        "max_tokens": params.max_tokens,
        "prompt": getattr(params, f"{side}_prompt"),
        "backend": params.backend,
        "precision": params.precision,
        "length_step": LENGTH_STEP,
        "normalised": True,
    }
    return hashlib.sha256(sorted_json(parts).encode()).hexdigest()
