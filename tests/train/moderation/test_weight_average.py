"""The mean of networks gets the scale of its members."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.train.moderation.builders import make_settings, make_training_set

from truing.train.moderation.fold_training import compute_logits
from truing.train.moderation.run import train_moderation
from truing.train.moderation.run_context import prepare_run
from truing.train.moderation.weight_average import (
    SHARED_LOGITS_FILE,
    load_final_network,
    match_logit_scale,
)


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


def test_the_network_of_every_row_is_matched_to_the_measured_folds(
    tiny_bert: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings = make_settings(tiny_bert, out, folds=3, held=1, whole=True)
    context = prepare_run(settings, [make_training_set(90)])
    train_moderation(settings, [make_training_set(90)])
    network, note = load_final_network(context)
    logits = compute_logits(network, context.shared_sample, context.pad_id, settings)
    fold_logits, own_logits = (
        np.load(out / "folds" / name / SHARED_LOGITS_FILE) for name in ("fold-0", "whole")
    )
    assert note == "" and not np.allclose(own_logits.mean(0), fold_logits.mean(0), atol=0.01)
    assert logits.mean(0) == pytest.approx(fold_logits.mean(0), abs=0.02)
    assert logits.std(0) == pytest.approx(fold_logits.std(0), rel=0.02)
