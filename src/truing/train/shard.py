"""Weights, gradients and optimiser state spread over the processes (FSDP2, `torch.distributed.fsdp.fully_shard`).

Every process must make the same forward passes, so a step's rows must divide evenly among them. Checkpoints hold whole
tensors, so that a run may go on with another number of processes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from truing.errors import PlanError


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer: the entries of its largest list of modules."""
    lists: list[nn.Module] = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1]
    if not lists:
        raise PlanError("--shard: this model has no list of layers to spread")
    return list(max(lists, key=lambda m: sum(p.numel() for p in m.parameters())).children())


def shard(model: Any, processes: int, device: torch.device) -> Any:
    """Spreads a model over the processes, layer by layer, in place."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    for layer in layers_of(model):
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def gather(model: Any, optimizer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(trainable weights, optimiser state) as whole tensors on the CPU of the first process; all processes must call."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        get_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return get_model_state_dict(model, options=options), get_optimizer_state_dict(model, optimizer, options=options)


def scatter(model: Any, optimizer: Any, weights: dict[str, Any], state: dict[str, Any]) -> None:
    """Takes back what `gather` gave."""
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        set_model_state_dict,
        set_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True, strict=False, ignore_frozen_params=True)
    set_model_state_dict(model, weights, options=options)
    set_optimizer_state_dict(model, optimizer, state, options=options)
