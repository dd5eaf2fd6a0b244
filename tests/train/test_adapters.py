"""Adapters on some layers: names, gradients, errors."""

from __future__ import annotations

import pytest
import torch

from truing.core.errors import PlanError
from truing.train.adapters import lora_config


def tiny_model():
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=32,
    )
    return LlamaForCausalLM(config)


def adapted_layers(model, **kwargs):
    from peft import get_peft_model

    network = get_peft_model(model, lora_config(model, 2, **kwargs))
    return {
        int(name.split(".layers.")[1].split(".")[0])
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }, network


def test_all_layers_have_adapters_of_scale_two_without_dropout():
    layers, network = adapted_layers(tiny_model())
    config = network.peft_config["default"]
    assert layers == {0, 1, 2}
    assert (config.r, config.lora_alpha, config.lora_dropout) == (2, 4, 0.0)


def test_layers_below_the_first_get_no_adapter_and_no_gradient():
    model = tiny_model()
    layers, network = adapted_layers(model, first_layer=2)
    assert layers == {2}
    seen = []
    first = model.model.layers[0].mlp.down_proj
    first.register_forward_hook(lambda module, args, output: seen.append(output.requires_grad))
    ids = torch.tensor([[1, 2, 3]])
    network(input_ids=ids, labels=ids).loss.backward()
    assert seen == [False]
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    # 7 linear layers of a block, each with two matrices; the head gets none.
    assert len(trained) == 14
    assert all(p.grad is not None for p in trained.values())


def test_the_body_of_a_model_has_adapters_too():
    _, network = adapted_layers(tiny_model().model, first_layer=1)
    names = {n for n, p in network.named_parameters() if p.requires_grad}
    assert len(names) == 28 and all(".layers.1." in n or ".layers.2." in n for n in names)


def test_a_layer_that_the_model_lacks_is_named():
    with pytest.raises(PlanError, match="lora_from = 3: the base has 3 layers, 0 to 2"):
        lora_config(tiny_model(), 2, first_layer=3)
