"""The task with a known optimum (benchmarks/rlhf/synthetic.py).

One seed of the main claims; all seeds and methods in the slow test.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[3] / "benchmarks" / "rlhf"


@pytest.fixture(scope="module")
def synthetic() -> Any:
    spec = importlib.util.spec_from_file_location("rlhf_synthetic", FOLDER / "synthetic.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(FOLDER))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("task", None)
    torch.set_num_threads(1)
    return module


def test_ppo_finds_the_optimum(synthetic: Any, tmp_path: Path) -> None:
    result = synthetic.run("ppo", 0, str(tmp_path), steps=32, n=4, lr=3e-3)
    assert result["reward"] >= 0.95 * synthetic.BEST_REWARD


def test_ppo_lagrangian_meets_the_constraint(synthetic: Any, tmp_path: Path) -> None:
    changes = {"steps": 110, "n": 4, "lr": 2e-3}
    result = synthetic.run("ppo-lag", 0, str(tmp_path), **changes)
    assert result["cost"] <= 1.2 * synthetic.THRESHOLD
    assert result["reward"] > 6.0
    assert result["lambda_swing"] < 0.4


def test_a_fixed_price_misses_the_threshold(synthetic: Any, tmp_path: Path) -> None:
    result = synthetic.run("shaping ν=0.5", 0, str(tmp_path), steps=32, n=4, lr=3e-3)
    assert result["cost"] > 2 * synthetic.THRESHOLD


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "name",
    [
        "ppo",
        "rloo",
        "ppo-lag",
        "ppo-lag (separate)",
        "ppo-lag (slack)",
        "grpo-lag",
        "shaping ν=0.5",
        "shaping ν=2",
    ],
)
def test_all_five_seeds(synthetic: Any, tmp_path: Path, name: str) -> None:
    results = [synthetic.run(name, seed, str(tmp_path / str(seed))) for seed in range(5)]
    assert all(map(synthetic.meets_expectation, results)), results
