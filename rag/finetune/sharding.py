"""Weights divided between the training processes (FSDP), so that each holds a part of every layer.

Sharded are the layers of a transformer, which are nearly all of a large model: each is put together
as its turn comes and divided again after it. Embeddings and output matrix stay whole, so that a
reader may call any part of its model by itself. While weights are sharded, every worker has to run
every layer as often as the others do.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rag.errors import TrainingError
from rag.finetune.workers import World

if TYPE_CHECKING:
    import torch


def transformer_layers(models: Sequence[torch.nn.Module]) -> list[torch.nn.Module]:
    """The layers of each model's stacks, in order: the outermost lists of several modules."""
    import torch

    found: dict[torch.nn.Module, None] = {}

    def walk(module: torch.nn.Module) -> None:
        for child in module.children():
            if isinstance(child, torch.nn.ModuleList) and len(child) > 1:
                found.update(dict.fromkeys(child))
            else:
                walk(child)

    for model in models:
        walk(model)
    return list(found)


@contextmanager
def sharded(models: Sequence[torch.nn.Module], workers: World) -> Iterator[None]:
    """Divides the layers' weights between the workers; after it the main worker's are whole.

    The others keep their parts: they have no more to do with the model.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layers = transformer_layers(models)
    if not layers:
        raise TrainingError("shard_weights: this model has no list of layers to divide")
    device = next(layers[0].parameters()).device.type
    mesh = init_device_mesh(device, (workers.size,))
    plain = []
    for layer in layers:
        plain.append(copy.deepcopy(layer).to("meta"))
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
        handle: Any = layer
        # Gradients are summed: the loop divides by the weight of the whole step.
        handle.set_gradient_divide_factor(1.0)
        handle.set_force_sum_reduction_for_comms(True)
        # Buffers that are first used in inference mode could not be used in training.
        handle.unshard()
        handle.reshard()
    yield
    for layer, own in zip(layers, plain, strict=True):
        _make_whole(layer, own, workers)


def _make_whole(layer: torch.nn.Module, plain: torch.nn.Module, workers: World) -> None:
    """Turns `layer` into `plain` with the weights of all workers; it stays the same object."""
    state = {name: whole(value) for name, value in layer.state_dict().items()}
    if not workers.is_main:
        return
    buffers = dict(layer.named_buffers())
    training = layer.training
    plain.load_state_dict(state, strict=False, assign=True)
    for name, buffer in buffers.items():
        owner, _, own = name.rpartition(".")
        setattr(plain.get_submodule(owner), own, buffer)
    layer.__class__ = type(plain)
    layer.__dict__ = plain.__dict__
    layer.train(training)


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this worker holds a part of it only."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, without gradient; every worker has to ask for it at the same time."""
    if not is_sharded(tensor):
        return tensor.detach()
    divided: Any = tensor.detach()
    full: torch.Tensor = divided.full_tensor()
    return full


def local(tensor: Any) -> torch.Tensor:
    """This worker's part of a sharded tensor."""
    part: torch.Tensor = tensor.to_local()
    return part


def placed(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A whole tensor on the device of `like`, and divided as it is."""
    tensor = tensor.to(like.device)
    if not is_sharded(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    divided: Any = like
    part: torch.Tensor = distribute_tensor(
        tensor, divided.device_mesh, divided.placements, src_data_rank=None
    )
    return part
