"""The encoder that turns questions and passages into unit vectors.

Any sentence-transformers model will do. What changes a vector (weights, pooling, length, prompts,
normalisation, backend, precision) is in `Encoder.fingerprint`. Texts are encoded in batches of
equal token budget, sorted by length, and put back in order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from rag.errors import ModelError
from rag.params import RetrieverParams
from rag.records import sorted_json
from rag.weights import Weights, resolve_weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FloatMatrix = npt.NDArray[np.float32]
Side = Literal["query", "passage"]
Progress = Callable[[int], None]

MANIFEST = "retriever.json"


def write_manifest(folder: Path, params: RetrieverParams, cache: Path) -> None:
    """Pins an encoder that is used as it is: its name and the hash of its weights."""
    weights = resolve_weights(params.model, params.revision, cache)
    manifest = {
        "model": params.model,
        "revision": params.revision,
        "mode": params.mode,
        "sha256": weights.sha256,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


class Encoder:
    """A sentence-transformers model with its prompts; vectors have length 1."""

    def __init__(self, params: RetrieverParams, cache: Path, *, device: str | None = None) -> None:
        weights = resolve_weights(params.model, params.revision, cache)
        _check_max_tokens(params, weights)
        self._params = params
        self.weights = weights
        self._device = device
        self._loaded: SentenceTransformer | None = None
        self._tokenizer: Any = None
        self.fingerprint = _fingerprint(params, weights.sha256)

    @property
    def _model(self) -> SentenceTransformer:
        if self._loaded is None:
            import torch
            from sentence_transformers import SentenceTransformer

            self._loaded = SentenceTransformer(
                str(self.weights.folder),
                device=self._device,
                trust_remote_code=False,
                model_kwargs={"dtype": getattr(torch, self._params.precision)},
            )
            self._loaded.max_seq_length = self._params.max_tokens
            self._loaded.eval()
        return self._loaded

    @property
    def dimension(self) -> int:
        """D, the length of a vector."""
        size = self._model.get_embedding_dimension()
        if size is None:
            raise ModelError(f"model {self._params.model!r} does not tell its dimension")
        return size

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text with special tokens; needs the tokenizer only, not the weights."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(self.weights.folder / "tokenizer.json"))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
        encodings = self._tokenizer.encode_batch(list(texts))
        return [len(encoding.ids) for encoding in encodings]

    def encode(
        self,
        texts: Sequence[str],
        side: Side,
        *,
        batch_tokens: int = 8192,
        progress: Progress | None = None,
    ) -> FloatMatrix:
        """Unit vectors, float32, shape (N, D), in the order of `texts`."""
        import torch

        prompt = self._params.query_prompt if side == "query" else self._params.passage_prompt
        texts = [prompt + text for text in texts]
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        lengths = [min(n, self._params.max_tokens) for n in self.count_tokens(texts)]
        for batch in token_batches(lengths, batch_tokens):
            features = self._model.preprocess([texts[i] for i in batch])
            features = {
                name: value.to(self._model.device) if hasattr(value, "to") else value
                for name, value in features.items()
            }
            with torch.inference_mode():
                embedding = self._model(features)["sentence_embedding"].float()
            unit = torch.nn.functional.normalize(embedding, dim=-1)
            vectors[batch] = unit.cpu().numpy()
            if progress is not None:
                progress(len(batch))
        return vectors


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


def _fingerprint(params: RetrieverParams, weights_sha256: str) -> str:
    parts = {
        "weights": weights_sha256,
        "max_tokens": params.max_tokens,
        "query_prompt": params.query_prompt,
        "passage_prompt": params.passage_prompt,
        "precision": params.precision,
        "backend": "torch",
        "normalised": True,
    }
    return hashlib.sha256(sorted_json(parts).encode()).hexdigest()
