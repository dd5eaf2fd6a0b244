"""Weights, gradients and optimiser state spread over the processes (FSDP2, `torch.distributed.fsdp.fully_shard`).

Every process must make the same forward passes, so a step's rows must divide evenly among them. Checkpoints hold whole
tensors, so that a run may go on with another number of processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from truing.core.errors import PlanError


def transformer_layers(model: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer: the entries of its largest list of modules."""
    lists: list[nn.Module] = [
        m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1
    ]
    if not lists:
        raise PlanError("--shard: this model has no list of layers to spread")
    return list(max(lists, key=lambda m: sum(p.numel() for p in m.parameters())).children())


def shard_model(
    model: Any, processes: int, device: torch.device, *, keep: Iterable[nn.Parameter] = ()
) -> Any:
    """Spreads a model over the processes, layer by layer, in place; the parameters of `keep` stay whole in every one."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    kept = set(keep) or None
    for layer in transformer_layers(model):
        fully_shard(layer, mesh=mesh, ignored_params=kept)
    return fully_shard(model, mesh=mesh, ignored_params=kept)


def reduce_gradients_by_sum(model: nn.Module) -> None:
    """Lets processes add their gradients up, where FSDP would take the mean."""
    for part in _spread_parts(model):
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)  # gloo has no other reduction in float32


def _spread_parts(model: nn.Module) -> list[Any]:
    from torch.distributed.fsdp import FSDPModule

    return [m for m in model.modules() if isinstance(m, FSDPModule)]


@contextlib.contextmanager
def unsharded(model: nn.Module) -> Iterator[None]:
    """Whole weights in every process for as long as this lasts, so that each may make passes of its own (without gradients);
    all processes must enter.
    """
    parts = _spread_parts(model)
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def gather_tensors(value: Any) -> Any:
    """A tensor in one piece, or a dict or list of such; all processes must call."""
    if isinstance(value, dict):
        return {k: gather_tensors(v) for k, v in value.items()}
    if isinstance(value, list):
        return [gather_tensors(v) for v in value]
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def shard_like(value: Any, like: Any) -> Any:
    """This process's part of a whole tensor, spread as `like` is."""
    if (
        not hasattr(like, "full_tensor")
        or not isinstance(value, torch.Tensor)
        or value.shape != like.shape
    ):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def shard_optimizer_state(optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    """An optimiser's whole state, spread as its parameters are."""
    own = [p for group in optimizer.param_groups for p in group["params"]]
    slots = {
        k: {n: shard_like(v, own[int(k)]) for n, v in one.items()}
        for k, one in state["state"].items()
    }
    return {**state, "state": slots}


def gather_training_state(model: Any, optimizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trainable weights, optimiser state) as whole tensors on the CPU of the first process; all processes must call."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        get_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return get_model_state_dict(model, options=options), get_optimizer_state_dict(
        model, optimizer, options=options
    )


def load_training_state(
    model: Any, optimizer: Any, weights: dict[str, Any], state: dict[str, Any]
) -> None:
    """Takes back what `gather` gave."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        set_model_state_dict,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True, strict=False, ignore_frozen_params=True)
    set_model_state_dict(model, weights, options=options)
    set_optimizer_state_dict(model, optimizer, state, options=options)
