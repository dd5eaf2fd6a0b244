"""Compares truing with lm-evaluation-harness: seconds, memory and agreement on the same task.

    TRUING_DATA=... TRUING_PEERS=... python benchmarks/likelihood/run.py [--repeat 5] [--bbq 300]

`TRUING_PEERS/lm-eval` is a virtual environment with lm-eval and the same torch and transformers.
Both use the same questions, model, dtype and threads. Each runs in a process of its own, whose
whole time counts, loading included; they take turns; medians are reported, with the load.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import tasks  # noqa: E402

from truing.hf.weights import find_weights  # noqa: E402


def run_side(command: list[str], out: Path, threads: int) -> dict[str, Any]:
    """Runs one process and returns its figures; raises RuntimeError with its stderr if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{command[1]}: {done.stderr[-1500:]}")
    figures: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return {**figures, "seconds": seconds}


def compare(
    ours: dict[str, Any], peer: dict[str, Any], rows: list[dict[str, Any]]
) -> dict[str, float]:
    """Compares the sums of log-probabilities of both, and the acc and acc_norm that follow.

    Returns the greatest difference of a sum, divided by the square root of its tokens (rounding
    errors add up like a random walk), and how often acc and acc_norm differ. Where the two best
    choices are closer than the tolerance (1e-4 times that root, each), either may come first.
    """
    worst, acc, norm = 0.0, 0, 0
    for k, row in enumerate(rows):
        sums, peer_sums, tokens = ours["sums"][k], peer["sums"][k], ours["tokens"][k]
        worst = max(worst, *(abs(a - b) / t**0.5 for a, b, t in zip(sums, peer_sums, tokens)))
        tolerance = 2e-4 * max(tokens) ** 0.5
        sizes = [len(c) for c in row["choices"]]
        acc += correctness_differs(sums, tolerance, row["gold"], bool(peer["acc"][k]))
        norm += correctness_differs(
            [total / size for total, size in zip(sums, sizes)],
            tolerance / min(sizes),
            row["gold"],
            bool(peer["acc_norm"][k]),
        )
    return {"difference": worst, "acc": acc, "acc_norm": norm}


def correctness_differs(
    scores: list[float], tolerance: float, gold: int, peer_correct: bool
) -> int:
    """Returns 1 if the best choice is clear and is correct for one of the two only."""
    first, second = sorted(scores, reverse=True)[:2]
    return int(first - second > tolerance and (scores.index(first) == gold) != peer_correct)


def measure(
    name: str, rows: list[dict[str, Any]], arguments: argparse.Namespace, python: Path
) -> dict[str, Any]:
    """Runs both in turns; returns medians, ratios and agreement."""
    folder = Path(tempfile.mkdtemp(prefix="likelihood-"))
    tasks.write(name, rows, folder)
    model = str(find_weights("smollm2").path)
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    for _ in range(arguments.repeat):
        for who, program in (("ours", sys.executable), ("peer", str(python))):
            out = folder / f"{who}.json"
            command = [
                program,
                str(HERE / f"{who}.py"),
                str(folder),
                name,
                model,
                str(out),
                str(arguments.batch),
            ]
            runs[who].append(run_side(command, out, arguments.threads))
    figures: dict[str, Any] = {
        "task": name,
        "questions": len(rows),
        "choices": sum(len(r["choices"]) for r in rows),
    }
    for who, records in runs.items():
        for key in ("seconds", "cpu", "gb"):
            figures[f"{who} {key}"] = round(statistics.median(r[key] for r in records), 2)
    figures["ratio"] = round(figures["peer seconds"] / figures["ours seconds"], 2)
    figures["cpu ratio"] = round(figures["peer cpu"] / figures["ours cpu"], 2)
    return {
        **figures,
        **compare(runs["ours"][0], runs["peer"][0], rows),
        "lm-eval": runs["peer"][0]["version"],
    }


def main() -> None:
    """Prints a line of JSON for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--bbq", type=int, default=300)
    parser.add_argument("--truthfulqa", type=int, default=150)
    parser.add_argument("--batch", type=int, default=16, help="lm-eval's batch size")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments = parser.parse_args()
    data = Path(os.environ["TRUING_DATA"])
    python = Path(os.environ["TRUING_PEERS"]) / "lm-eval" / "bin" / "python"
    load_before = os.getloadavg()[0]
    print(
        f"{platform.processor() or platform.machine()}, {arguments.threads} threads, "
        f"load before {load_before:.1f}",
        file=sys.stderr,
    )
    for name, n in (("bbq", arguments.bbq), ("truthfulqa", arguments.truthfulqa)):
        if n:
            figures = measure(name, getattr(tasks, name)(data, n), arguments, python)
            print(
                json.dumps(
                    {**figures, "load": [round(load_before, 1), round(os.getloadavg()[0], 1)]}
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
