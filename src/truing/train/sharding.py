"""FSDP2: weights, gradients and optimiser state split over the processes (`fully_shard`).

Every process must make the same forward passes, so the rows of a step must divide evenly among
them. Each process loads and saves its own parts alone: `sharded_model`, `sharded_checkpoint`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from truing.core.errors import PlanError


def transformer_layers(model: nn.Module) -> list[nn.Module]:
    """Returns the blocks of a transformer: its ModuleList with the most parameters."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    if not lists:
        raise PlanError("--shard: this model has no list of layers to split over the processes")
    return list(max(lists, key=lambda m: sum(p.numel() for p in m.parameters())).children())


def shard_model(
    model: Any, processes: int, device: torch.device, *, keep: Iterable[nn.Parameter] = ()
) -> Any:
    """Shards a model in place, layer by layer, and returns it.

    The parameters in `keep` stay whole in every process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    unsharded_parameters = set(keep) or None
    for layer in transformer_layers(model):
        fully_shard(layer, mesh=mesh, ignored_params=unsharded_parameters)
    return fully_shard(model, mesh=mesh, ignored_params=unsharded_parameters)


def reduce_gradients_by_sum(model: nn.Module) -> None:
    """Lets the processes add up their gradients; FSDP's default is the mean."""
    for module in _fsdp_modules(model):
        module.set_gradient_divide_factor(1.0)
        # gloo has no other reduction in float32
        module.set_force_sum_reduction_for_comms(True)


def _fsdp_modules(model: nn.Module) -> list[Any]:
    from torch.distributed.fsdp import FSDPModule

    return [m for m in model.modules() if isinstance(m, FSDPModule)]


def is_sharded(model: nn.Module) -> bool:
    """Whether weights of a model are split over the processes."""
    return bool(_fsdp_modules(model))


@contextlib.contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Holds the whole weights in every process, for passes without gradients (e.g. generation).

    Each process may then make another number of passes than the others. All processes must enter.
    """
    modules = _fsdp_modules(model)
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()


def gather_tensors(value: Any) -> Any:
    """Returns a tensor, dict or list with its sharded tensors whole. All processes must call."""
    if isinstance(value, dict):
        return {key: gather_tensors(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [gather_tensors(entry) for entry in value]
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def shard_like(value: Any, like: Any) -> Any:
    """Returns this process's shard of a whole tensor, split in the way that `like` is.

    Anything that is not split, or of another shape than `like`, is returned as it is.
    """
    is_whole_tensor = isinstance(value, torch.Tensor) and hasattr(like, "full_tensor")
    if not is_whole_tensor or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
