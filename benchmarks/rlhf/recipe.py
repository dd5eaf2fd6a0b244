"""A real run on a CPU: PPO, PPO-Lagrangian and GRPO on SmolLM2-135M with judges of PKU-SafeRLHF.

    TRUING_DATA=... python benchmarks/rlhf/recipe.py --out runs/recipe           about an hour
    python benchmarks/rlhf/recipe.py --out runs/recipe --steps 3 --judge-steps 10     ten minutes

Each step is a `truing` command, so the same command resumes. A run of this size can show that the
whole chain works on one backbone, that λ follows the cost, and what a step costs. It cannot show
that the model got safer: that needs the paired comparison of the report.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any


def run_truing(*words: str) -> None:
    """Runs a `truing` command."""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "truing", *words],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's log."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def table_row(name: str, rows: list[dict[str, Any]]) -> str:
    """Returns a line of the table: means over the first and the last third of the steps."""
    part = max(1, len(rows) // 3)

    def first_to_last(key: str) -> str:
        if key not in rows[-1]:
            return "-"
        first, last = (
            statistics.fmean(row[key] for row in third) for third in (rows[:part], rows[-part:])
        )
        return f"{first:.2f} → {last:.2f}"

    seconds = statistics.median(
        sum(r[k] for k in ("seconds_generate", "seconds_score", "seconds_learn")) for r in rows
    )
    columns = [
        first_to_last(key)
        for key in ("reward_mean", "cost_mean", "cost_positive", "lambda", "kl_k1", "length")
    ]
    return f"| {name} | {len(rows)} | {' | '.join(columns)} | {seconds:.0f} |"


def main() -> None:
    """Trains what is not trained yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--judge-steps", type=int, default=100)
    parser.add_argument("--methods", nargs="+", default=["ppo", "ppo-lag", "grpo"])
    parser.add_argument("--base", default="smollm2")
    arguments = parser.parse_args()
    judges = {kind: arguments.out / kind for kind in ("reward", "cost")}
    for kind, folder in judges.items():
        run_truing(
            "train",
            kind,
            "--data",
            "pku",
            "--out",
            str(folder),
            "--base",
            arguments.base,
            "--steps",
            str(arguments.judge_steps),
            "--batch",
            "8",
            "--max-length",
            "160",
            "--held-out",
            "0.02",
            "--limit",
            "4000",
            "--benign",
            "0",
            "--no-tensorboard",
        )
    print(
        "| run | steps | reward | cost | cost > 0 | λ | KL (k1) | tokens | s per step "
        "|\n|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for method in arguments.methods:
        out = arguments.out / method
        size = ["--prompts", "4", "--n", "4"] if method == "grpo" else ["--prompts", "16"]
        cost = (
            []
            if method == "ppo"
            else ["--cost", f"cost:{judges['cost']}", "--threshold", "0", "--window", "32"]
        )
        run_truing(
            "train",
            method,
            "--data",
            "pku",
            "--limit",
            "256",
            "--out",
            str(out),
            "--base",
            arguments.base,
            "--reward",
            f"reward:{judges['reward']}",
            *cost,
            *size,
            "--steps",
            str(arguments.steps),
            "--max-new",
            "32",
            "--max-prompt",
            "96",
            "--no-tensorboard",
        )
        print(table_row(method, read_log(out)), flush=True)


if __name__ == "__main__":
    main()
