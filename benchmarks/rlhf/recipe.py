"""A real run on a CPU: SmolLM2-135M, reward and cost models of PKU-SafeRLHF, PPO, PPO-Lagrangian and GRPO under the
constraint.

    TRUING_DATA=... python benchmarks/rlhf/recipe.py --out runs/recipe                 about an hour on two free cores
    python benchmarks/rlhf/recipe.py --out runs/recipe --steps 3 --judge-steps 10      what fits into ten minutes

Each step is a `truing` command, so it resumes: the same command goes on. What a run of this size can show: that the
whole chain
works on one backbone, that λ answers the cost, what a step costs. Not that the model got safer: that needs the report's
paired comparison.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


def truing(*words: str) -> float:
    """Runs a command and gives its seconds."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "truing", *words],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def show(name: str, rows: list[dict[str, Any]]) -> str:
    """A line of the table: the first and the last third of the steps."""
    part = max(1, len(rows) // 3)

    def course(key: str) -> str:
        if key not in rows[-1]:
            return "-"
        first, last = (
            statistics.fmean(r[key] for r in some) for some in (rows[:part], rows[-part:])
        )
        return f"{first:.2f} → {last:.2f}"

    seconds = statistics.median(
        sum(r[k] for k in ("seconds_generate", "seconds_score", "seconds_learn")) for r in rows
    )
    shown = [
        course(k)
        for k in ("reward_mean", "cost_mean", "cost_positive", "lambda", "kl_k1", "length")
    ]
    return f"| {name} | {len(rows)} | {' | '.join(shown)} | {seconds:.0f} |"


def main() -> None:
    """Trains what is not there yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--judge-steps", type=int, default=100)
    parser.add_argument("--methods", nargs="+", default=["ppo", "ppo-lag", "grpo"])
    parser.add_argument("--base", default="smollm2")
    given = parser.parse_args()
    judges = {kind: given.out / kind for kind in ("reward", "cost")}
    for kind, folder in judges.items():
        truing(
            "train",
            kind,
            "--data",
            "pku",
            "--out",
            str(folder),
            "--base",
            given.base,
            "--steps",
            str(given.judge_steps),
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
        "| run | steps | reward | cost | cost > 0 | λ | KL (k1) | tokens | s a step "
        "|\n|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for method in given.methods:
        out = given.out / method
        size = ["--prompts", "4", "--n", "4"] if method == "grpo" else ["--prompts", "16"]
        cost = (
            []
            if method == "ppo"
            else ["--cost", f"cost:{judges['cost']}", "--threshold", "0", "--window", "32"]
        )
        truing(
            "train",
            method,
            "--data",
            "pku",
            "--limit",
            "256",
            "--out",
            str(out),
            "--base",
            given.base,
            "--reward",
            f"reward:{judges['reward']}",
            *cost,
            *size,
            "--steps",
            str(given.steps),
            "--max-new",
            "32",
            "--max-prompt",
            "96",
            "--no-tensorboard",
        )
        print(show(method, log(out)), flush=True)


if __name__ == "__main__":
    main()
