"""The encoder as something to train: one transformer, its prompts, and LoRA where asked for.

`rag.retrieval.encoder.Encoder` serves; this trains. Both read the same folder, and what `save`
writes is such a folder again, with the same bytes whenever the weights are the same.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.errors import ModelError
from rag.params import EncoderLoraParams, RetrieverParams
from rag.retrieval.backend_torch import load_model, preprocess
from rag.retrieval.encoder import FloatMatrix, Side, equal_length_batches
from rag.weights import Weights

if TYPE_CHECKING:
    import torch

State = Mapping[str, "torch.Tensor"]
"""Weights by name, on the CPU."""

_ENCODE_TOKENS = 4096
_LAYER = re.compile(r"\blayers?\.(\d+)\.")
#: Of the files that sentence-transformers writes, what a loader does not need.
_VERSIONS = "__version__"


class BiEncoder:
    """Texts to unit vectors with gradient; questions and passages share the weights."""

    def __init__(
        self, params: RetrieverParams, weights: Weights, seed: int, *, device: str | None = None
    ) -> None:
        self._params = params
        self._name = weights.name
        self.model = load_model(params, weights, "float32", device)
        self.base: State = self.state()
        if params.training.lora is not None:
            _add_lora(self.model, params.training.lora, seed)

    def parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """What is trained: everything, or the adapter."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def train_mode(self, training: bool) -> None:
        self.model.train(training)

    def embed(self, texts: Sequence[str], side: Side) -> torch.Tensor:
        """Unit vectors (B, D) in float32, with gradient where it is enabled."""
        import torch

        prompt = getattr(self._params, f"{side}_prompt")
        features = preprocess(self.model, [prompt + text for text in texts])
        device = self.model.device
        features = {k: v.to(device) if hasattr(v, "to") else v for k, v in features.items()}
        mixed = self._params.training.precision == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            vectors = self.model(features)["sentence_embedding"]
        return torch.nn.functional.normalize(vectors.float(), dim=-1)

    def encode(self, texts: Sequence[str], side: Side) -> FloatMatrix:
        """The same without gradient, shape (N, D): a function of each text alone."""
        import torch

        lengths = self._lengths(texts, side)
        rows: list[FloatMatrix | None] = [None] * len(texts)
        with torch.inference_mode():
            for batch in equal_length_batches(lengths, _ENCODE_TOKENS):
                vectors = self.embed([texts[i] for i in batch], side).cpu().numpy()
                for i, vector in zip(batch, vectors, strict=True):
                    rows[i] = vector
        return np.stack([row for row in rows if row is not None]).astype(np.float32, copy=False)

    def _lengths(self, texts: Sequence[str], side: Side) -> list[int]:
        prompt = getattr(self._params, f"{side}_prompt")
        tokenized = self.model.tokenizer([prompt + text for text in texts])["input_ids"]
        return [min(len(ids), self._params.max_tokens) for ids in tokenized]

    def state(self) -> State:
        """A copy of all weights, by name; an adapter has to be merged before."""
        return {
            name: value.detach().cpu().clone()
            for name, value in self.model.state_dict().items()
            if value.is_floating_point()
        }

    def load(self, state: State) -> None:
        """Puts weights in place."""
        missing = self.model.load_state_dict(dict(state), strict=False).missing_keys
        if unknown := [name for name in missing if name in self.base]:
            raise ModelError(f"model {self._name!r}: no weights for {', '.join(unknown)}")

    def merge_adapter(self) -> None:
        """Adds the adapter, where there is one, into the weights."""
        transformer: Any = self.model[0]
        if self._params.training.lora is not None and hasattr(transformer.model, "peft_config"):
            transformer.model = transformer.model.merge_and_unload()

    def save(self, folder: Path) -> None:
        """A sentence-transformers folder with safetensors, and nothing of this machine in it."""
        self.model.tokenizer.backend_tokenizer.no_truncation()
        self.model.tokenizer.backend_tokenizer.no_padding()
        self.model.tokenizer.init_kwargs = {
            key: value
            for key, value in self.model.tokenizer.init_kwargs.items()
            if key not in ("name_or_path", "is_local", "local_files_only")
        }
        self.model.save(str(folder), create_model_card=False)
        for path in sorted(folder.rglob("*.json")):
            if path.name == "tokenizer.json":
                continue
            tree = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(tree, dict):
                for key in (_VERSIONS, "_name_or_path", "transformers_version"):
                    tree.pop(key, None)
            path.write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for path in folder.rglob("*.safetensors"):
            path.chmod(0o644)  # safetensors makes it readable by its owner alone


def interpolate(base: State, tuned: State, share: float) -> dict[str, torch.Tensor]:
    """`base + share (tuned - base)`: what lies between two sets of weights.

    Weights between the original and the tuned ones often do better on what was not trained on than
    either end (Wortsman et al. 2022, WiSE-FT).
    """
    return {name: value + share * (tuned[name] - value) for name, value in base.items()}


def movement(base: State, tuned: State) -> dict[str, float]:
    """Relative movement `|tuned - base| / |base|` (L2): `all`, and each layer's by its name."""
    groups: dict[str, list[str]] = {"all": sorted(base)}
    for name in sorted(base):
        groups.setdefault(_layer_name(name), []).append(name)
    return {
        group: round(
            float(
                np.sqrt(
                    sum(float((tuned[n].double() - base[n].double()).square().sum()) for n in names)
                    / sum(float(base[n].double().square().sum()) for n in names)
                )
            ),
            6,
        )
        for group, names in groups.items()
    }


def _layer_name(name: str) -> str:
    numbered = _LAYER.search(name)
    if numbered:
        return f"layer {int(numbered[1]):02d}"
    return "embeddings" if "embeddings" in name else "other"


def _add_lora(model: Any, lora: EncoderLoraParams, seed: int) -> None:
    """An adapter on every linear layer of the transformer; all its other weights stay."""
    import torch
    from peft import LoraConfig, get_peft_model

    transformer = model[0].model
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="FEATURE_EXTRACTION",
    )
    for parameter in model.parameters():
        parameter.requires_grad = False
    torch.manual_seed(seed)
    model[0].model = get_peft_model(transformer, config)
