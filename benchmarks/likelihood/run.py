"""Ours and lm-evaluation-harness on the same questions, the same model, dtype and threads: seconds, memory, agreement.

    TRUING_DATA=... TRUING_PEERS=... .venv/bin/python benchmarks/likelihood/run.py [--repeat 5] [--bbq 300] ...

`TRUING_PEERS/lm-eval` is a virtual environment with lm-eval and the same torch and transformers. Each side is a process
of its own from start to end, the model's loading included; sides take turns; medians are reported, and the load.
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


def side(command: list[str], out: Path, threads: int) -> dict[str, Any]:
    """Runs one side and reads its figures; RuntimeError with its last words if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{command[1]}: {done.stderr[-1500:]}")
    made: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return {**made, "seconds": seconds}


def compare(
    ours: dict[str, Any], peer: dict[str, Any], rows: list[dict[str, Any]]
) -> dict[str, float]:
    """The greatest difference of a sum over the square root of its tokens, and how often acc and acc_norm differ.

    Where the two best choices lie closer than the tolerance (1e-4 over the root of the tokens) either may come first.
    """
    worst, acc, norm = 0.0, 0, 0
    for at, row in enumerate(rows):
        mine, theirs, tokens = ours["sums"][at], peer["sums"][at], ours["tokens"][at]
        worst = max(worst, *(abs(a - b) / t**0.5 for a, b, t in zip(mine, theirs, tokens)))
        near = 2e-4 * max(tokens) ** 0.5
        sizes = [len(c) for c in row["choices"]]
        acc += _differs(mine, near, row["gold"], bool(peer["acc"][at]))
        norm += _differs(
            [m / n for m, n in zip(mine, sizes)],
            near / min(sizes),
            row["gold"],
            bool(peer["acc_norm"][at]),
        )
    return {"difference": worst, "acc": acc, "acc_norm": norm}


def _differs(scores: list[float], near: float, gold: int, theirs: bool) -> int:
    first, second = sorted(scores, reverse=True)[:2]
    return int(first - second > near and (scores.index(first) == gold) != theirs)


def measure(
    name: str, rows: list[dict[str, Any]], given: argparse.Namespace, python: Path
) -> dict[str, Any]:
    """Both sides in turns; medians, ratio, agreement."""
    folder = Path(tempfile.mkdtemp(prefix="likelihood-"))
    tasks.write(name, rows, folder)
    model = str(find_weights("smollm2").path)
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    for _ in range(given.repeat):
        for who, program in (("ours", sys.executable), ("peer", str(python))):
            out = folder / f"{who}.json"
            command = [
                program,
                str(HERE / f"{who}.py"),
                str(folder),
                name,
                model,
                str(out),
                str(given.batch),
            ]
            runs[who].append(side(command, out, given.threads))
    made: dict[str, Any] = {
        "task": name,
        "questions": len(rows),
        "choices": sum(len(r["choices"]) for r in rows),
    }
    for who, many in runs.items():
        for key in ("seconds", "cpu", "gb"):
            made[f"{who} {key}"] = round(statistics.median(r[key] for r in many), 2)
    made["ratio"] = round(made["peer seconds"] / made["ours seconds"], 2)
    made["cpu ratio"] = round(made["peer cpu"] / made["ours cpu"], 2)
    return {
        **made,
        **compare(runs["ours"][0], runs["peer"][0], rows),
        "lm-eval": runs["peer"][0]["version"],
    }


def main() -> None:
    """Prints a line of JSON a task."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--repeat", type=int, default=5)
    parse.add_argument("--bbq", type=int, default=300)
    parse.add_argument("--truthfulqa", type=int, default=150)
    parse.add_argument("--batch", type=int, default=16, help="lm-eval's batch size")
    parse.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parse.parse_args()
    data = Path(os.environ["TRUING_DATA"])
    python = Path(os.environ["TRUING_PEERS"]) / "lm-eval" / "bin" / "python"
    before = os.getloadavg()[0]
    print(
        f"{platform.processor() or platform.machine()}, {given.threads} threads, load before {before:.1f}",
        file=sys.stderr,
    )
    for name, n in (("bbq", given.bbq), ("truthfulqa", given.truthfulqa)):
        if n:
            made = measure(name, getattr(tasks, name)(data, n), given, python)
            print(
                json.dumps({**made, "load": [round(before, 1), round(os.getloadavg()[0], 1)]}),
                flush=True,
            )


if __name__ == "__main__":
    main()
