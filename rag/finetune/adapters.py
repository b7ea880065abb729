"""LoRA adapters: which modules carry one, and how it is written down the same way every time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rag.errors import ParamsError
from rag.params import LoraParams


def add_lora(
    model: Any,
    lora: LoraParams,
    *,
    task: str,
    name: str,
    seed: int,
    also_trained: tuple[str, ...] = (),
) -> Any:
    """Wraps `model` with an adapter on every linear layer from `frozen_layers` up.

    `task` is peft's task type, `name` the model's for messages; `also_trained` names modules that
    are trained as a whole, such as a new head.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    layers = layer_count(model)
    if lora.frozen_layers >= layers:
        raise ParamsError(
            f"reader.lora.frozen_layers: must be < {layers}, the layers of {name}, "
            f"got {lora.frozen_layers}; reader.lora=null trains all weights"
        )
    torch.manual_seed(seed)
    return get_peft_model(
        model,
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=linear_layers(model, lora.frozen_layers),
            modules_to_save=list(also_trained) or None,
            task_type=task,
        ),
    )


def layer_count(model: Any) -> int:
    """Layers of the deepest stack of a model."""
    numbers = [int(found[1]) for name in _linear_names(model) if (found := _NUMBERED.search(name))]
    return max(numbers, default=-1) + 1


_NUMBERED = re.compile(r"\.(\d+)\.")


def _linear_names(model: Any) -> list[str]:
    import torch
    from transformers.pytorch_utils import Conv1D

    kinds: tuple[type, ...] = (torch.nn.Linear, Conv1D)  # GPT-2 keeps its layers transposed
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]


def linear_layers(model: Any, first: int) -> str:
    """A regular expression over the linear modules of layer `first` and above.

    A pattern rather than a list: peft keeps a list as a set, which is written in another order by
    each process.
    """
    places = set()
    for name in _linear_names(model):
        found = re.fullmatch(r".*?\.(\d+)\.(.+)", name)
        if found and int(found[1]) >= first:
            places.add((int(found[1]), found[2]))
    layers = "|".join(str(layer) for layer in sorted({layer for layer, _ in places}))
    modules = "|".join(re.escape(module) for module in sorted({module for _, module in places}))
    return rf".*\.({layers})\.({modules})"


def save_adapter(model: Any, folder: Path, base: str) -> None:
    """The adapter as safetensors; the base model is named, not copied."""
    # peft would record where the base model lies on this machine.
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)  # safetensors makes it readable by its owner alone
    config = folder / "adapter_config.json"
    tree = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n", encoding="utf-8")
