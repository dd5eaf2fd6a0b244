"""Predicted against measured memory: `--plan-memory` and the peak resident memory of a run.

Each run takes two steps on rows that fill `--max-length`, in a process of its own.

python benchmarks/rlhf/memory_plan.py --base smollm2 --kinds sft dpo grpo
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WORDS = "turn the spoke nipple slowly and look at the gap between rim and brake pad again "
TOLERANCE = 0.2


def command_of(
    kind: str, base: str, folder: Path, rows: int, length: int, flags: list[str]
) -> list[str]:
    """Returns the command that trains two steps of a kind."""
    data = folder / "rows.jsonl"
    # One repetition has 17 tokens; the template and the prompt take the rest.
    text = WORDS * ((length - 64) // 17)
    pairs = [
        {"prompt": f"{k}: how is a wheel trued?", "chosen": f"{k} {text}", "rejected": f"no {text}"}
        for k in range(4 * rows)
    ]
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    common = ["--base", base, "--out", str(folder / kind), "--steps", "2", "--no-tensorboard"]
    command = [sys.executable, "-W", "ignore", "-m", "truing", "train", kind, "--json", *common]
    if kind in ("grpo", "ppo", "ppo-lag"):
        sizes = ["--prompts", str(rows), "--n", "4", "--micro", str(rows)]
        lengths = ["--max-prompt", "64", "--max-new", str(length - 64)]
        judges = ["--reward", "rules:refusal"]
        if kind == "ppo-lag":
            judges += ["--cost", "rules:degenerate"]
        return [*command, "--data", f"trl:{data}", *sizes, *lengths, *judges, *flags]
    sizes = ["--batch", str(rows), "--micro", str(rows), "--max-length", str(length)]
    chosen = ["--chosen"] if kind == "sft" else []
    return [*command, "--data", f"trl:{data}", *sizes, *chosen, *flags]


def measure(command: list[str]) -> float:
    """Returns the peak resident memory of a command in MiB."""
    with tempfile.NamedTemporaryFile() as figures:
        script = (
            "import resource, subprocess, sys\n"
            "done = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL)\n"
            "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
            "open(sys.argv[1], 'w').write(f'{done.returncode} {peak}')\n"
        )
        subprocess.run([sys.executable, "-c", script, figures.name, *command], check=True)
        status, peak = Path(figures.name).read_text().split()
    if status != "0":
        sys.exit(f"failed: {' '.join(command)}")
    return int(peak) / 1024


def main() -> None:
    """Prints a line for each kind: predicted, measured, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="smollm2")
    parser.add_argument("--kinds", nargs="+", default=["sft", "dpo", "grpo"])
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[])
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as folder:
            command = command_of(
                kind,
                arguments.base,
                Path(folder),
                arguments.rows,
                arguments.length,
                arguments.flags,
            )
            planned = subprocess.run(
                [*command, "--plan-memory"], capture_output=True, text=True, check=True
            )
            parts = json.loads(planned.stdout)
            peak = measure(command)
        predicted = parts["total"] / 2**20
        verdict = "within" if abs(predicted / peak - 1) <= TOLERANCE else "NOT within"
        print(
            f"{kind}: predicted {predicted:.0f} MiB, measured {peak:.0f} MiB, "
            f"ratio {predicted / peak:.2f}, {verdict} {TOLERANCE:.0%}",
            {name: round(size / 2**20) for name, size in parts.items()},
            flush=True,
        )


if __name__ == "__main__":
    main()
