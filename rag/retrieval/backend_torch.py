"""The encoder run by PyTorch: on a GPU where there is one, otherwise on the CPU.

`sentence_transformers` imports more than twice what a BERT with a mean over its tokens needs
(scikit-learn, scipy, datasets, peft). So a model of that plain make is run by transformers alone,
to the same bytes (tests/retrieval/test_backend_torch.py); every other one, and all training, by
sentence-transformers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from rag.errors import ModelError
from rag.params import RetrieverParams
from rag.retrieval.encoder import LENGTH_STEP, FloatMatrix
from rag.weights import Weights

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

Features = dict[str, Any]


@dataclass(frozen=True)
class Plain:
    """How a model of the plain make gets one vector of its tokens, and whether of length 1."""

    pooling: Literal["mean", "cls"]
    normalised: bool


class TorchBackend:
    """A sentence-transformers model in the precision of the params."""

    def __init__(self, params: RetrieverParams, weights: Weights, device: str | None) -> None:
        make = plain_make(weights.folder)
        self._model: _Model = (
            _AnyModel(params, weights, device)
            if make is None
            else _PlainModel(params, weights, device, make)
        )
        self.dimension = self._model.dimension

    def encode(self, texts: Sequence[str]) -> FloatMatrix:
        """Unit vectors (B, D) of texts that have the same padded length."""
        import torch

        features = {
            name: value.to(self._model.device) if hasattr(value, "to") else value
            for name, value in self._model.preprocess(texts).items()
        }
        with torch.inference_mode():
            embedding = self._model.embed(features).float()
            unit = torch.nn.functional.normalize(embedding, dim=-1)
        vectors: FloatMatrix = unit.cpu().numpy().astype(np.float32, copy=False)
        return vectors


class _Model(Protocol):
    """Texts to features (token ids and masks, (B, L)), and these to vectors of any length."""

    dimension: int
    device: torch.device

    def preprocess(self, texts: Sequence[str]) -> Features: ...

    def embed(self, features: Features) -> torch.Tensor: ...


class _AnyModel:
    """A model as sentence-transformers runs it."""

    def __init__(self, params: RetrieverParams, weights: Weights, device: str | None) -> None:
        self._model = load_model(params, weights, params.precision, device)
        self.dimension = dimension_of(self._model, weights)
        self.device = self._model.device

    def preprocess(self, texts: Sequence[str]) -> Features:
        return preprocess(self._model, texts)

    def embed(self, features: Features) -> torch.Tensor:
        embedding: torch.Tensor = self._model(features)["sentence_embedding"]
        return embedding


class _PlainModel:
    """A BERT whose token vectors (B, L, D) are averaged, or of which the first is taken."""

    def __init__(
        self, params: RetrieverParams, weights: Weights, device: str | None, make: Plain
    ) -> None:
        import torch
        from transformers import AutoTokenizer, BertModel

        folder = str(weights.folder)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model: Any = BertModel.from_pretrained(folder, dtype=getattr(torch, params.precision))
        self._model = model.to(self.device).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._max_tokens = params.max_tokens
        self._make = make
        self.dimension = int(model.config.hidden_size)

    def preprocess(self, texts: Sequence[str]) -> Features:
        return dict(
            self._tokenizer(
                list(texts),
                padding=True,
                pad_to_multiple_of=LENGTH_STEP,
                truncation="longest_first",
                max_length=self._max_tokens,
                return_tensors="pt",
            )
        )

    def embed(self, features: Features) -> torch.Tensor:
        import torch

        tokens: torch.Tensor = self._model(**features).last_hidden_state
        if self._make.pooling == "cls":
            vectors = tokens[:, 0]
        else:
            mask = features["attention_mask"].unsqueeze(-1).to(tokens.dtype)
            # In float32 and rounded once, also where the model works in bfloat16.
            total = (tokens * mask).sum(dim=1, dtype=torch.float32)
            vectors = (total / mask.sum(dim=1, dtype=torch.float32)).to(tokens.dtype)
        return torch.nn.functional.normalize(vectors, dim=-1) if self._make.normalised else vectors


#: The last words of the classes of its parts, which sentence-transformers has moved about.
_PARTS = ["Transformer", "Pooling", "Normalize"]
#: What the settings of the first part may say beside `max_seq_length`, which params decide.
_SETTINGS = {
    "do_lower_case": False,
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}


def plain_make(folder: Path) -> Plain | None:
    """What a model of the plain make does with its tokens; None for any other make."""
    parts = _read(folder / "modules.json", [])
    home, kinds = {str(part["type"]).partition(".")[0] for part in parts}, _kinds(parts)
    if home != {"sentence_transformers"} or kinds not in (_PARTS[:2], _PARTS):
        return None
    settings = _read(folder / "sentence_bert_config.json", {})
    settings.pop("max_seq_length", None)
    pooling = _pooling(_read(folder / parts[1]["path"] / "config.json", {}))
    last = _read(folder / parts[-1]["path"] / "config.json", {}) if kinds == _PARTS else {}
    is_plain = (
        parts[0]["path"] == ""
        and _read(folder / "config.json", {}).get("model_type") == "bert"
        and _read(folder / "tokenizer_config.json", {}).get("padding_side", "right") == "right"
        and not (folder / "adapter_config.json").exists()
        and all(_SETTINGS.get(name) == value for name, value in settings.items())
        and set(last.values()) <= {"sentence_embedding"}
    )
    return Plain(pooling, kinds == _PARTS) if is_plain and pooling else None


def _kinds(parts: Sequence[dict[str, Any]]) -> list[str]:
    return [str(part["type"]).rpartition(".")[2] for part in parts]


def _pooling(settings: dict[str, Any]) -> Literal["mean", "cls"] | None:
    """Of the settings of a pooling part, which earlier versions wrote as a flag for each mode."""
    flags = {name for name, value in settings.items() if "pooling_mode_" in name and value is True}
    mode = settings.get("pooling_mode")
    if mode == "mean" or (mode is None and flags == {"pooling_mode_mean_tokens"}):
        return "mean"
    if mode == "cls" or (mode is None and flags == {"pooling_mode_cls_token"}):
        return "cls"
    return None


def _read(path: Path, default: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default


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


def preprocess(model: SentenceTransformer, texts: Sequence[str]) -> Features:
    """What the model takes for these texts: token ids and masks (B, L), L a multiple of eight."""
    features: Features = model.preprocess(
        list(texts), processing_kwargs={"text": {"pad_to_multiple_of": LENGTH_STEP}}
    )
    return features


def dimension_of(model: SentenceTransformer, weights: Weights) -> int:
    """D, the length of a vector."""
    size = model.get_embedding_dimension()
    if size is None:
        raise ModelError(f"model {weights.name!r} does not tell its dimension")
    return size
