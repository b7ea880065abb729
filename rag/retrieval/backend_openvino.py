"""The encoder run by OpenVINO: exported here, quantised here, faster on CPUs than PyTorch.

The model is traced once and kept as OpenVINO's own two files below `.ragloop/models/`; an export
that does not give the vectors of the model it came from is refused. `int8` stores the weights of
linear layers as 8-bit integers, one scale an output channel, and OpenVINO quantises activations as
it goes, in groups of 32 values: no calibration data, and a row does not depend on its batch.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.errors import InputError, ModelError
from rag.params import RetrieverParams
from rag.records import sorted_json
from rag.retrieval.backend_torch import dimension_of, load_model, preprocess
from rag.retrieval.encoder import FloatMatrix
from rag.weights import Weights

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

_FORMAT = 1
_MODEL = "model.xml"
#: What an export is compared on, and the cosine that it must reach there.
_PROBES = (
    "Where does the night ferry leave?",
    "The museum opens at nine and closes at five; on Mondays it stays shut.",
    "北京是中国的首都。",
)
_MIN_COSINE = {"float32": 0.9999, "bfloat16": 0.995, "int8": 0.98}
#: Values of an activation that share a scale; smaller groups are more exact and a little slower.
_GROUP = "32"


class OpenVinoBackend:
    """A compiled model on the CPU; tokens come from the sentence-transformers tokenizer."""

    def __init__(self, params: RetrieverParams, weights: Weights, cache: Path) -> None:
        openvino = import_openvino()
        # The tokenizer and pooling are read with the model, whose weights are then let go.
        model = load_model(params, weights, "float32", "cpu")
        self.dimension = dimension_of(model, weights)
        path = cache / f"openvino-{_export_key(params, weights)}" / _MODEL
        exported = path.is_file()
        if not exported:
            _export(model, params.precision == "int8", path)
        self._compiled = openvino.Core().compile_model(path, "CPU", _settings(params.precision))
        self._inputs = [port.any_name for port in self._compiled.inputs]
        self._request = self._compiled.create_infer_request()
        self._tokens = model
        if not exported:
            self._check(model, params, path)
        _drop_weights(model)

    def encode(self, texts: Sequence[str]) -> FloatMatrix:
        """Unit vectors (B, D) of texts that have the same padded length."""
        features = preprocess(self._tokens, texts)
        found = self._request.infer({name: features[name].numpy() for name in self._inputs})
        vectors = np.array(found[0], dtype=np.float32)
        unit: FloatMatrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def _check(self, model: SentenceTransformer, params: RetrieverParams, path: Path) -> None:
        import torch

        for text in _PROBES:
            with torch.inference_mode():
                expected = model(preprocess(model, [text]))["sentence_embedding"][0].float().numpy()
            found = self.encode([text])[0]
            cosine = float(found @ expected / np.linalg.norm(expected))
            if not cosine >= _MIN_COSINE[params.precision]:
                shutil.rmtree(path.parent)
                raise ModelError(
                    f"model {params.model!r}: its OpenVINO export in {params.precision} gives "
                    f"other vectors (cosine {cosine:.4f}, expected at least "
                    f"{_MIN_COSINE[params.precision]}); set retriever.backend to torch"
                )


def import_openvino() -> Any:
    """The module `openvino`, silent: it reports its use over the network unless this is blocked."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ModuleNotFoundError as error:
        if error.name != "openvino":
            raise
        raise InputError(
            "retriever.backend: openvino is not installed",
            hint='run: pip install "ragloop[openvino]", or set retriever.backend to torch',
        ) from None
    return openvino


def _settings(precision: str) -> dict[str, str]:
    import torch

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": str(torch.get_num_threads()),
    }
    if precision == "int8":
        settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = _GROUP
    return settings


def _export_key(params: RetrieverParams, weights: Weights) -> str:
    parts = {
        "weights": weights.sha256,
        "int8": params.precision == "int8",
        "format": _FORMAT,
        "openvino": import_openvino().__version__,
    }
    return hashlib.sha256(sorted_json(parts).encode()).hexdigest()[:16]


def _export(model: SentenceTransformer, quantised: bool, path: Path) -> None:
    """Traces the model and writes it; another process may be doing the same."""
    import copy

    openvino = import_openvino()
    features = preprocess(model, ["one", "two"])
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in features]
    source = copy.deepcopy(model) if quantised else model
    if quantised:
        quantise_linears(source)
    with warnings.catch_warnings():
        # The tracer warns of every Python condition; what came out is compared with the model.
        warnings.simplefilter("ignore")
        graph = openvino.convert_model(
            _graph(source), example_input={name: features[name] for name in names}
        )
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    temporary = path.parent.with_name(f"{path.parent.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    openvino.save_model(graph, temporary / path.name, compress_to_fp16=False)
    try:
        temporary.rename(path.parent)
    except OSError:
        shutil.rmtree(temporary)
        if not path.is_file():
            raise


def _graph(model: SentenceTransformer) -> torch.nn.Module:
    """The model as a function of plain tensors, which is what can be traced."""
    import torch

    class Graph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(
            self,
            input_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            token_type_ids: torch.Tensor | None = None,
        ) -> torch.Tensor:
            features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
            if token_type_ids is not None:
                features["token_type_ids"] = token_type_ids
            embedding: torch.Tensor = self.model(features)["sentence_embedding"]
            return embedding

    return Graph().eval()


def quantise_linears(model: torch.nn.Module) -> None:
    """Replaces every linear layer by one with int8 weights (out, in) and a scale for each row.

    OpenVINO recognises the pattern `int8 -> float -> times scale` and keeps the weights small.
    """
    import torch

    class Int8Linear(torch.nn.Module):
        def __init__(self, linear: torch.nn.Linear) -> None:
            super().__init__()
            weight = linear.weight.detach().float()
            scale = (weight.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-12)
            rounded = torch.round(weight / scale).clamp(-127, 127)
            self.register_buffer("weight", rounded.to(torch.int8))
            self.register_buffer("scale", scale)
            self.bias = linear.bias

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            weight = self.get_buffer("weight").to(torch.float32) * self.get_buffer("scale")
            return torch.nn.functional.linear(values, weight, self.bias)

    for name, child in list(model.named_children()):
        if isinstance(child, torch.nn.Linear):
            setattr(model, name, Int8Linear(child))
        else:
            quantise_linears(child)


def _drop_weights(model: SentenceTransformer) -> None:
    """Frees the parameters: from here on only the tokenizer is used."""
    import torch

    for parameter in model.parameters():
        parameter.data = torch.empty(0)
