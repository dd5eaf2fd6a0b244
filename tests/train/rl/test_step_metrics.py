"""The metrics of a step by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from truing.distributed.process_group import ProcessGroup
from truing.train.rl.advantages import Advantages
from truing.train.rl.reward_signals import GlobalScores, RolloutScores
from truing.train.rl.settings import RLSettings
from truing.train.rl.step_metrics import (
    compute_step_metrics,
    explained_variance,
    pearson_correlation,
)


def test_metrics_of_a_step(make_rollout: Any) -> None:
    settings = RLSettings(method="ppo", out="", prompts=3)
    rollout = make_rollout(
        ("a", "a", "b"),
        answer_mask=torch.tensor([[1, 1], [1, 0], [1, 1]]),
        log_probs=torch.tensor([[-1.0, -2.0], [-3.0, 0.0], [-1.0, -1.0]]),
        ref_log_probs=torch.tensor([[-2.0, -2.0], [-3.0, 0.0], [-1.0, -1.0]]),
        ended=(True, False, True),
    )
    reward = torch.tensor([1.0, 5.0, 3.0], dtype=torch.float64)
    scored = torch.tensor([True, False, True])
    parts = {"reward/judge": torch.tensor([1.0, math.nan, 3.0], dtype=torch.float64)}
    local_scores = RolloutScores(reward, None, scored, parts)
    scores = GlobalScores(reward, {}, scored)
    metrics = compute_step_metrics(settings, rollout, local_scores, scores, ProcessGroup())

    assert metrics["reward_mean"] == 2.0
    assert metrics["reward_std"] == pytest.approx(2**0.5)
    assert metrics["kl_k1"] == pytest.approx(1 / 3)
    assert metrics["kl_k3"] == pytest.approx((math.exp(-1) - 1 + 1) / 3)
    assert metrics["entropy"] == pytest.approx((1 + 2 + 3 + 1 + 1) / 5)
    assert metrics["length"] == pytest.approx(5 / 3)
    assert metrics["truncated"] == pytest.approx(1 / 3)
    assert metrics["distinct"] == pytest.approx(2 / 3)
    assert metrics["unscored"] == pytest.approx(1 / 3)
    assert metrics["reward/judge"] == 2.0


def test_a_signal_without_numbers_has_no_mean(make_rollout: Any) -> None:
    settings = RLSettings(method="ppo", out="", prompts=1)
    unscored = torch.tensor([False])
    zero = torch.zeros(1, dtype=torch.float64)
    parts = {"reward/judge": torch.tensor([math.nan], dtype=torch.float64)}
    metrics = compute_step_metrics(
        settings,
        make_rollout(("a",)),
        RolloutScores(zero, {}, unscored, parts),
        GlobalScores(zero, {}, unscored),
        ProcessGroup(),
    )
    assert metrics["reward/judge"] is None
    assert math.isnan(float(metrics["reward_mean"] or 0))


def test_pearson_correlation_equals_numpy() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 20))
    expected = np.corrcoef(x, y)[0, 1]
    actual = pearson_correlation(torch.from_numpy(x), torch.from_numpy(y))
    assert actual == pytest.approx(expected, rel=1e-12)


def test_a_constant_has_no_correlation() -> None:
    assert pearson_correlation(torch.ones(5), torch.arange(5.0)) == 0.0
    assert pearson_correlation(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0])) == 0.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [([[1.0, 2.0], [3.0, 9.0]], 1.0), ([[2.0, 2.0], [2.0, 9.0]], 0.0)],
)
def test_explained_variance(make_rollout: Any, values: Any, expected: float) -> None:
    rollout = make_rollout(("a", "b"), answer_mask=torch.tensor([[1, 1], [1, 0]]))
    returns = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    side = Advantages(returns, torch.tensor(values), returns)
    explained = explained_variance(side, rollout, ProcessGroup())
    assert explained == pytest.approx(expected, abs=1e-12)


def test_explained_variance_of_a_critic_that_is_worse_than_a_constant(make_rollout: Any) -> None:
    rollout = make_rollout(("a", "b", "c"))
    returns = torch.tensor([[1.0], [2.0], [3.0]])
    side = Advantages(returns, -returns, returns)
    assert explained_variance(side, rollout, ProcessGroup()) == pytest.approx(1 - 4)
