"""Does each method find the known optimum, and hold the constraint? Five seeds of the task in `task.py`.

python benchmarks/rlhf/synthetic.py                   every method, seeds 0-4 (about 15 minutes on one core)
python benchmarks/rlhf/synthetic.py --seeds 0 --methods ppo grpo
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import task

from truing.train.rl.policy_models import CRITICS, SeparateCrew
from truing.train.rl.reward_signals import FunctionSignal, Signals
from truing.train.rl.settings import RLSettings
from truing.train.rl.trainer import Extras, Trainer

THRESHOLD = 2.0
BEST, HELD = 2.0 * task.LENGTH, task.LENGTH + THRESHOLD

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
    "lambda_init": 0.3,
    "lambda_max": 10.0,
    "window": 128,
}
RUNS: dict[str, dict[str, Any]] = {
    "ppo": {"method": "ppo", "kl": 0.02, "lr": 2e-3, "critic_lr": 1e-2, "steps": 60},
    "rloo": {"method": "rloo", "kl": 0.02, "lr": 2e-3, "steps": 80},
    "ppo-lag": {
        "method": "ppo-lag",
        "kl": 0.1,
        "lr": 1e-3,
        "critic_lr": 1e-2,
        "lambda_lr": 0.009,
        "steps": 180,
    },
    "ppo-lag (separate)": {
        "method": "ppo-lag",
        "kl": 0.1,
        "lr": 1e-3,
        "critic_lr": 1e-2,
        "lambda_lr": 0.009,
        "steps": 180,
        "surrogate": "separate",
    },
    "grpo-lag": {"method": "grpo", "kl": 0.1, "lr": 2e-3, "lambda_lr": 0.004, "steps": 400},
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


def run(name: str, seed: int, out: str, **more: Any) -> dict[str, Any]:
    """One run; figures are means over the last quarter of the steps, λ also as a path."""
    settings = RLSettings(**{**COMMON, **RUNS[name], "seed": seed, "out": out, **more})
    constrained = settings.method not in ("ppo", "rloo")
    costs = [FunctionSignal("risk", task.cost)] if constrained else []
    rows: list[dict[str, Any]] = []
    crew = SeparateCrew(task.model(seed), task.tokenizer(), CRITICS[settings.method])
    began = time.perf_counter()
    Trainer(
        crew,
        task.prompts(),
        Signals([FunctionSignal("gold", task.reward)], costs),
        settings,
        Extras(tell=rows.append),
    ).run()
    tail = rows[-len(rows) // 4 :]
    made = {
        "run": name,
        "seed": seed,
        "reward": statistics.fmean(r["reward_mean"] for r in tail),
        "seconds": time.perf_counter() - began,
    }
    if constrained:
        path = [r["lambda"] for r in rows]
        last = [r["lambda"] for r in tail]
        made |= {
            "cost": statistics.fmean(r["cost_mean"] for r in tail),
            "lambda_first": path[0],
            "lambda_most": max(path),
            "lambda_last": statistics.fmean(last),
            "lambda_spread": statistics.pstdev(last),
            "path": [round(x, 3) for x in path[:: max(1, len(path) // 24)]],
        }
    return made


def verdict(made: dict[str, Any]) -> bool:
    """What the run should have done: 95 % of the optimum; the constraint met (at most 5 % above the threshold, and not idle), λ
    risen and settled; or missed.
    """
    name = made["run"]
    if name in ("ppo", "rloo"):
        return bool(made["reward"] >= 0.95 * BEST)
    if name.startswith("shaping"):
        return bool(abs(made["cost"] - THRESHOLD) > 0.25 * THRESHOLD)
    settled = (
        made["lambda_spread"] < 0.15 * made["lambda_last"]
        and made["lambda_last"] > 1.3 * made["lambda_first"]
    )
    return bool(0.75 * THRESHOLD <= made["cost"] <= 1.05 * THRESHOLD and settled)


def main() -> None:
    """Prints one line a run and a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=list(RUNS))
    parser.add_argument("--json", help="where the figures go")
    given = parser.parse_args()
    torch.set_num_threads(1)
    every = []
    for name in given.methods:
        for seed in given.seeds:
            with tempfile.TemporaryDirectory() as out:
                made = run(name, seed, out)
            every.append(made)
            print(
                json.dumps(
                    {
                        **{k: round(v, 3) if isinstance(v, float) else v for k, v in made.items()},
                        "ok": verdict(made),
                    },
                    ensure_ascii=False,
                ),
                flush=True,
            )
    if given.json:
        Path(given.json).write_text(json.dumps(every, ensure_ascii=False, indent=1))
    print(
        f"\n| run | reward (best {BEST:g}, held {HELD:g}) | cost (threshold {THRESHOLD:g}) | λ first → most → last | as expected |"
    )
    print("|---|---|---|---|---|")
    for name in given.methods:
        some = [m for m in every if m["run"] == name]
        mean = {
            k: statistics.fmean(m.get(k, math.nan) for m in some)
            for k in ("reward", "cost", "lambda_first", "lambda_most", "lambda_last")
        }
        cost = (
            f"{mean['cost']:.2f} ({min(m['cost'] for m in some):.2f}-{max(m['cost'] for m in some):.2f})"
            if "cost" in some[0]
            else "-"
        )
        path = (
            " → ".join(f"{mean[k]:.2f}" for k in ("lambda_first", "lambda_most", "lambda_last"))
            if "cost" in some[0]
            else "-"
        )
        spread = f"{min(m['reward'] for m in some):.2f}-{max(m['reward'] for m in some):.2f}"
        print(
            f"| {name} | {mean['reward']:.2f} ({spread}) | {cost} | {path} | {sum(map(verdict, some))} of {len(some)} |"
        )


if __name__ == "__main__":
    main()
