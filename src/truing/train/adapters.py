"""Where the adapters of a run stand: LoRA (Hu et al. 2021, arXiv:2106.09685) on linear layers."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from truing.core.errors import MissingExtra, PlanError

_IN_A_LAYER = re.compile(r"(?:^|\.)(\w+)\.\d+\.")  # "layers" in model.layers.3.mlp.up_proj


def lora_config(
    model: Any, rank: int, first_layer: int = 0, *, task_type: str | None = None
) -> Any:
    """Returns peft's configuration of adapters for a model of transformers.

    Adapters have rank `rank`, scale 2 and no dropout: a model and its reference must differ by what
    was learned alone. Layers below `first_layer` (counted from 0) get none, so that no gradient is
    computed for them. Raises PlanError if the model has no such layer.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise MissingExtra("train", "adapters (package peft)") from error
    common: dict[str, Any] = {
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "task_type": task_type,
    }
    if not first_layer:
        return LoraConfig(target_modules="all-linear", **common)
    count = model.config.get_text_config().num_hidden_layers
    if first_layer >= count:
        raise PlanError(f"lora_from = {first_layer}: the base has {count} layers, 0 to {count - 1}")
    # peft takes a choice of layers only together with the names of the modules in them.
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    matches = {name: _IN_A_LAYER.search(name) for name in linear}
    if not any(matches.values()):
        raise PlanError(f"lora_from = {first_layer}: the base has no linear modules in its layers")
    return LoraConfig(
        target_modules=sorted({n.rpartition(".")[2] for n, match in matches.items() if match}),
        layers_to_transform=list(range(first_layer, count)),
        layers_pattern=sorted({match[1] for match in matches.values() if match}),
        **common,
    )
