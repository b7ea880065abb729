"""How a tuned reader is written down: its adapter alone, or a folder that needs nothing else.

    adapter/    a peft folder of a few megabytes, which names its base model
    weights/    config, safetensors, generation config and tokenizer: all that a loader needs

Files are a function of the weights: no date, no path and no version of this machine is in them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rag.errors import InputError
from rag.finetune.adapters import save_adapter
from rag.params import ReaderParams
from rag.reading.reader import load_reader
from rag.reading.tuned import ADAPTER, WEIGHTS, whole_weights

#: What transformers adds to its files about the machine that wrote them.
_OF_THIS_MACHINE = frozenset(
    {"_name_or_path", "name_or_path", "transformers_version", "is_local", "local_files_only"}
)


def save_tuned(
    model: Any, folder: Path, params: ReaderParams, tokenizers: Mapping[str, Any]
) -> None:
    """Writes `adapter/` or `weights/` below `folder`, as params say, and removes the other.

    `tokenizers` are by folder below `weights/`, the one that reads by "". An adapter that is merged
    is used up: the model has its weights afterwards, and no adapter.
    """
    for name in (ADAPTER, WEIGHTS):
        shutil.rmtree(folder / name, ignore_errors=True)
    if params.lora is not None and params.export == "adapter":
        save_adapter(model, folder / ADAPTER, params.model)
    else:
        save_whole(merged(model), folder / WEIGHTS, tokenizers)


def merged(model: Any) -> Any:
    """The model with its adapter, where it has one, folded into the weights, in the same precision.

    The sum is made in float32 and rounded once. In bfloat16 that rounding is of the size of the one
    that the base weights had before: `benchmarks/reader_export.py` prints what it does to answers.
    """
    if not hasattr(model, "peft_config"):
        return model
    precision = model.get_base_model().dtype
    return model.float().merge_and_unload(safe_merge=True).to(precision)


def save_whole(model: Any, folder: Path, tokenizers: Mapping[str, Any]) -> None:
    """A complete transformers folder: the same bytes whenever weights and tokenizers are equal."""
    model.save_pretrained(str(folder))
    for name, tokenizer in tokenizers.items():
        # What was cut or padded last is a state of the tokenizer, and would be written with it.
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is not None:
            backend.no_truncation()
            backend.no_padding()
        tokenizer.save_pretrained(str(folder / name))
    for path in sorted(folder.rglob("*.json")):
        if path.name != "tokenizer.json":
            tree = _plain(json.loads(path.read_text(encoding="utf-8")))
            path.write_text(
                json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False) + "\n",
                encoding="utf-8",
            )
    for path in folder.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors makes it readable by its owner alone


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _plain(own) for key, own in tree.items() if key not in _OF_THIS_MACHINE}
    return [_plain(own) for own in tree] if isinstance(tree, list) else tree


def export_reader(
    params: ReaderParams, cache: Path, folder: Path, target: Path, *, merge: bool
) -> str:
    """Copies the tuned reader in `folder` to `target`, which must not exist; says what it is now.

    Whole weights are a transformers folder as they are; an adapter is a peft folder, or with
    `merge` folded into its base model. Raises InputError where `target` exists.
    """
    if target.exists():
        raise InputError([f"{target} exists already; name a folder that does not"])
    if (whole := whole_weights(folder)) is not None:
        shutil.copytree(whole, target)
        return "weights"
    if not merge:
        shutil.copytree(folder / ADAPTER, target)
        return "adapter"
    reader: Any = load_reader(params.model_copy(update={"quantize": "none"}), cache, folder)
    save_whole(merged(reader.model), target, reader.tokenizers)
    return "weights"
