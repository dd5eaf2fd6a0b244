"""Helpers of FSDP that need no process group; two processes are in test_processes.py."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from truing.core.errors import PlanError
from truing.train.sharding import gather_tensors, is_sharded, shard_like, transformer_layers


def test_the_layers_are_the_list_with_the_most_parameters() -> None:
    layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
    heads = nn.ModuleList(nn.Linear(2, 2) for _ in range(9))
    assert transformer_layers(nn.ModuleDict({"heads": heads, "layers": layers})) == list(layers)
    with pytest.raises(PlanError, match="no list of layers"):
        transformer_layers(nn.Linear(2, 2))


def test_tensors_that_are_not_sharded_stay_as_they_are() -> None:
    tensor = torch.ones(2)
    assert gather_tensors({"a": [tensor, 3]}) == {"a": [tensor, 3]}
    assert shard_like(tensor, torch.zeros(2)) is tensor
    assert not is_sharded(nn.Linear(2, 2))
