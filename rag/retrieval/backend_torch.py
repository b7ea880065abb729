"""The encoder run by PyTorch: on a GPU where there is one, otherwise on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.errors import ModelError
from rag.params import RetrieverParams
from rag.retrieval.encoder import LENGTH_STEP, FloatMatrix
from rag.weights import Weights

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class TorchBackend:
    """A sentence-transformers model in the precision of the params."""

    def __init__(self, params: RetrieverParams, weights: Weights, device: str | None) -> None:
        self._model = load_model(params, weights, params.precision, device)
        self.dimension = dimension_of(self._model, weights)

    def encode(self, texts: Sequence[str]) -> FloatMatrix:
        """Unit vectors (B, D) of texts that have the same padded length."""
        import torch

        features = preprocess(self._model, texts)
        features = {
            name: value.to(self._model.device) if hasattr(value, "to") else value
            for name, value in features.items()
        }
        with torch.inference_mode():
            embedding = self._model(features)["sentence_embedding"].float()
            unit = torch.nn.functional.normalize(embedding, dim=-1)
        vectors: FloatMatrix = unit.cpu().numpy().astype(np.float32, copy=False)
        return vectors


def load_model(
    params: RetrieverParams, weights: Weights, precision: str, device: str | None
) -> SentenceTransformer:
    """The model in evaluation mode, cut at `params.max_tokens`; its code is ours, not the hub's."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(weights.folder),
        device=device,
        trust_remote_code=False,
        model_kwargs={"dtype": getattr(torch, precision)},
    )
    model.max_seq_length = params.max_tokens
    return model.eval()


def preprocess(model: SentenceTransformer, texts: Sequence[str]) -> dict[str, Any]:
    """What the model takes for these texts: token ids and masks (B, L), L a multiple of eight."""
    features: dict[str, Any] = model.preprocess(
        list(texts), processing_kwargs={"text": {"pad_to_multiple_of": LENGTH_STEP}}
    )
    return features


def dimension_of(model: SentenceTransformer, weights: Weights) -> int:
    """D, the length of a vector."""
    size = model.get_embedding_dimension()
    if size is None:
        raise ModelError(f"model {weights.name!r} does not tell its dimension")
    return size
