"""Learning-rate schedules, weight-decay groups and gradient clipping by hand."""

from __future__ import annotations

import math

import pytest
import torch

from truing.train.optimizer import build_adamw, clip_gradients, learning_rate, set_learning_rate


def test_the_linear_schedule_rises_and_falls() -> None:
    rates = [learning_rate(step, 10, lr=1.0, warmup=0.2) for step in (1, 2, 3, 10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.125])
    assert learning_rate(1, 10, lr=1.0, warmup=0.0) == 1.0


def test_the_constant_and_cosine_schedules() -> None:
    assert learning_rate(10, 10, lr=1.0, warmup=0.2, schedule="constant") == 1.0
    cosine = [learning_rate(step, 10, lr=2.0, warmup=0.2, schedule="cosine") for step in (3, 7, 10)]
    assert cosine == pytest.approx([2.0, 1.0, 1 + math.cos(math.pi * 7 / 8)])


def test_biases_are_not_decayed() -> None:
    layer = torch.nn.Linear(2, 2)
    optimizer = build_adamw(layer.named_parameters(), lr=0.1, weight_decay=0.5)
    groups = [(len(g["params"]), g["weight_decay"]) for g in optimizer.param_groups]
    assert groups == [(1, 0.5), (1, 0.0)]
    set_learning_rate(optimizer, 0.2)
    assert [g["lr"] for g in optimizer.param_groups] == [0.2, 0.2]


def test_frozen_parameters_are_not_optimised() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    optimizer = build_adamw(layer.named_parameters(), lr=0.1)
    assert [len(g["params"]) for g in optimizer.param_groups] == [1]


def test_clipping_returns_the_norm_before() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.weight.grad = torch.full((2, 2), 2.0)
    assert clip_gradients(layer.parameters(), 0.0) == pytest.approx(4.0)
    assert float(layer.weight.grad.norm()) == pytest.approx(4.0)
    assert clip_gradients(layer.parameters(), 1.0) == pytest.approx(4.0)
    assert float(layer.weight.grad.norm()) == pytest.approx(1.0, abs=1e-5)
    layer.weight.grad = torch.full((2, 2), float("nan"))
    assert math.isnan(clip_gradients(layer.parameters(), 1.0))
