"""Does each method find the known optimum, and hold the constraint? Five seeds of the task in `task.py`.

python benchmarks/rlhf/synthetic.py                   every method, seeds 0-4 (about 15 minutes on one core)
python benchmarks/rlhf/synthetic.py --seeds 0 --methods ppo grpo
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import task

from truing.train.rl.policy_models import CRITICS_BY_METHOD, SeparateModels
from truing.train.rl.reward_signals import FunctionSignal, RewardSignals
from truing.train.rl.settings import RLSettings
from truing.train.rl.trainer import RLTrainer, TrainerOptions

THRESHOLD = 2.0
# The largest reward without a constraint, and under one that holds the cost at THRESHOLD.
BEST_REWARD = 2.0 * task.LENGTH
BEST_CONSTRAINED_REWARD = task.LENGTH + THRESHOLD

COMMON: dict[str, Any] = {
    "prompts": 16,
    "n": 8,
    "epochs": 2,
    "micro": 128,
    "score_micro": 128,
    "max_new": task.LENGTH,
    "lora": 0,
    "save_every": 10_000,
    "tensorboard": False,
    "threshold": THRESHOLD,
    # The best answer has as many words as are allowed: to be cut is no fault here.
    "truncation_penalty": 0.0,
}
RUNS: dict[str, dict[str, Any]] = {
    "ppo": {"method": "ppo", "kl": 0.02, "lr": 2e-3, "critic_lr": 1e-2, "steps": 60},
    "rloo": {"method": "rloo", "kl": 0.02, "lr": 2e-3, "steps": 80},
    "ppo-lag": {
        "method": "ppo-lag",
        "kl": 0.1,
        "lr": 1e-3,
        "critic_lr": 1e-2,
        "steps": 180,
    },
    "ppo-lag (separate)": {
        "method": "ppo-lag",
        "kl": 0.1,
        "lr": 1e-3,
        "critic_lr": 1e-2,
        "steps": 180,
        "surrogate": "separate",
    },
    "grpo-lag": {"method": "grpo", "kl": 0.1, "lr": 2e-3, "steps": 400},
    # No answer of eight words costs more than 8.
    "ppo-lag (slack)": {
        "method": "ppo-lag",
        "threshold": 9.0,
        "kl": 0.02,
        "lr": 2e-3,
        "critic_lr": 1e-2,
        "steps": 150,
    },
    "shaping ν=0.5": {
        "method": "reward-shaping",
        "nu": 0.5,
        "kl": 0.1,
        "lr": 1e-3,
        "critic_lr": 1e-2,
        "steps": 120,
    },
    "shaping ν=2": {
        "method": "reward-shaping",
        "nu": 2.0,
        "kl": 0.1,
        "lr": 1e-3,
        "critic_lr": 1e-2,
        "steps": 120,
    },
}


def run(name: str, seed: int, out: str, **changes: Any) -> dict[str, Any]:
    """Trains once; returns means over the last third of the steps, and the path of λ.

    `lambda_swing` is λ's range over that third, divided by its mean.
    """
    settings = RLSettings(**{**COMMON, **RUNS[name], "seed": seed, "out": out, **changes})
    constrained = settings.method not in ("ppo", "rloo")
    costs = [FunctionSignal("risk", task.cost)] if constrained else []
    rows: list[dict[str, Any]] = []
    models = SeparateModels(task.model(seed), task.tokenizer(), CRITICS_BY_METHOD[settings.method])
    signals = RewardSignals([FunctionSignal("gold", task.reward)], costs)
    options = TrainerOptions(on_log=rows.append)
    started = time.perf_counter()
    RLTrainer(models, task.prompts(), signals, settings, options).run()
    last_third = rows[-len(rows) // 3 :]
    result = {
        "run": name,
        "seed": seed,
        "reward": statistics.fmean(row["reward_mean"] for row in last_third),
        "seconds": time.perf_counter() - started,
    }
    if constrained:
        path = [row["lambda"] for row in rows]
        last = [row["lambda"] for row in last_third]
        result |= {
            "cost": statistics.fmean(row["cost_mean"] for row in last_third),
            "lambda_first": path[0],
            "lambda_most": max(path),
            "lambda_last": statistics.fmean(last),
            "lambda_swing": (max(last) - min(last)) / statistics.fmean(last),
            "path": [round(x, 3) for x in path[:: max(1, len(path) // 24)]],
        }
    return result


def meets_expectation(result: dict[str, Any]) -> bool:
    """Whether a run did what its method should do.

    Without a constraint: 95 % of the optimum. Under an active constraint: the cost within 5 % of
    the threshold, and a swing of λ under 20 %. Under a slack one: 95 % of the optimum, λ below 0.1.
    With a fixed price: the threshold missed.
    """
    name = result["run"]
    if name in ("ppo", "rloo"):
        return bool(result["reward"] >= 0.95 * BEST_REWARD)
    if name.startswith("shaping"):
        return bool(abs(result["cost"] - THRESHOLD) > 0.25 * THRESHOLD)
    if name.endswith("(slack)"):
        return bool(result["reward"] >= 0.95 * BEST_REWARD and result["lambda_last"] < 0.1)
    met = abs(result["cost"] - THRESHOLD) <= 0.05 * THRESHOLD
    return bool(met and result["lambda_swing"] < 0.2)


def table_row(name: str, results: list[dict[str, Any]]) -> str:
    """Returns the line of the table for all seeds of a run."""
    rewards = [result["reward"] for result in results]
    reward = f"{statistics.fmean(rewards):.2f} ({min(rewards):.2f}-{max(rewards):.2f})"
    cost = multiplier = "-"
    if "cost" in results[0]:
        costs = [result["cost"] for result in results]
        cost = f"{statistics.fmean(costs):.2f} ({min(costs):.2f}-{max(costs):.2f})"
        multiplier = " → ".join(
            f"{statistics.fmean(result[key] for result in results):.2f}"
            for key in ("lambda_first", "lambda_most", "lambda_last")
        )
    met = f"{sum(map(meets_expectation, results))} of {len(results)}"
    return f"| {name} | {reward} | {cost} | {multiplier} | {met} |"


def main() -> None:
    """Prints one line per run, and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=list(RUNS))
    parser.add_argument("--json", help="where the figures go")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for name in arguments.methods:
        for seed in arguments.seeds:
            with tempfile.TemporaryDirectory() as out:
                result = run(name, seed, out)
            results.append(result)
            rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}
            line = {**rounded, "ok": meets_expectation(result)}
            print(json.dumps(line, ensure_ascii=False), flush=True)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(results, ensure_ascii=False, indent=1))
    print(
        f"\n| run | reward (best {BEST_REWARD:g}, constrained {BEST_CONSTRAINED_REWARD:g}) "
        f"| cost (threshold {THRESHOLD:g}) | λ first → most → last | as expected |"
    )
    print("|---|---|---|---|---|")
    for name in arguments.methods:
        print(table_row(name, [result for result in results if result["run"] == name]))


if __name__ == "__main__":
    main()
