"""The mean of networks gets the scale of its members."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from truing.train.moderation.weight_average import match_logit_scale


def test_the_mean_network_is_scaled_to_its_members() -> None:
    x = np.random.default_rng(0).normal(size=(500, 6))
    head = torch.nn.Linear(6, 3)

    def head_logits() -> np.ndarray:
        return np.asarray(x @ head.weight.detach().numpy().T + head.bias.detach().numpy())

    before = head_logits()
    members = np.stack([2.0 * before + 1.0, 3.0 * before - 1.0])
    network: Any = SimpleNamespace(head=head)
    match_logit_scale(network, before, members)
    assert head_logits().std(0) == pytest.approx(2.5 * before.std(0), rel=1e-4)
    assert head_logits().mean(0) == pytest.approx(2.5 * before.mean(0), rel=1e-3, abs=1e-3)
