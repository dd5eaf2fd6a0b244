"""Runs the quick form of every benchmark: does each still run, and what are its figures, roughly?

    make bench      or      python benchmarks/run.py [--only TOPIC...] [--list]

Figures to quote come from the full forms on an idle machine, with the commands in each folder's
README. A benchmark whose data or packages are missing is left out and listed as such. The exit
status is 1 if one fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Quick:
    """A script of a topic with the arguments of its quick form; `{tmp}` is an empty folder.

    `needs` are packages, or environment variables in capitals.
    """

    topic: str
    command: str
    minutes: float
    needs: tuple[str, ...] = ()


QUICK = (
    Quick(
        "alignment",
        "alignment/levers.py --size smoke --out {tmp}/levers",
        4,
        ("torch", "peft", "TRUING_DATA"),
    ),
    Quick("agents", "agents/run.py --samples 360", 0.3),
    Quick("engine", "engine/run.py --parts cost hosted --n 1000 --repeat 1", 0.5),
    Quick("engine", "engine/where.py --n 1000", 0.2),
    Quick("engine", "engine/kill.py --kills 6", 1),
    Quick("first_steps", "first_steps/walk.py --quick", 0.3),
    Quick(
        "likelihood",
        "likelihood/run.py --repeat 1 --bbq 20 --truthfulqa 10",
        2,
        ("torch", "TRUING_DATA", "TRUING_PEERS"),
    ),
    Quick("moderation", "moderation/speed.py --rows 64 --repeat 1", 1, ("torch", "transformers")),
    Quick(
        "rails",
        "rails/run.py --rounds 1 --requests 50 200 200 --systems truing --out {tmp}/rails.json",
        2,
        ("litestar",),
    ),
    Quick(
        "redteam",
        "redteam/load.py --seconds 10 --raters 10 --items 200",
        0.5,
        ("litestar", "sqlalchemy"),
    ),
    Quick("rlhf", "rlhf/synthetic.py --seeds 0 --methods ppo", 2, ("torch",)),
    Quick("scale", "scale/simulate.py --rows 1e6 --workers 10", 0.1),
    Quick("scale", "scale/parts.py --rows 2000 --judge keywords:", 0.2),
    Quick(
        "security",
        "security/hostile_endpoints.py --quick --only gzip_body endless_stream endless_error",
        0.5,
    ),
    Quick(
        "security",
        "security/server_fuzz.py --requests 1000",
        0.7,
        ("litestar", "schemathesis"),
    ),
    Quick(
        "security",
        "security/redteam_attacks.py --flood-seconds 2",
        0.5,
        ("litestar", "sqlalchemy"),
    ),
    Quick("statistics", "statistics/coverage.py --draws 200 --out {tmp}/statistics.json", 2),
    Quick("statistics", "statistics/verdicts.py --draws 100 --out {tmp}/verdicts.json", 1),
    Quick("ui", "ui/rows.py --rows 2000 --pages 60", 0.5, ("litestar", "sqlalchemy")),
)
LONG: dict[str, str] = {"scale": "needs Ray, which runs in an environment of its own"}
"""Topics without a quick form: topic -> reason."""


def missing(needs: tuple[str, ...]) -> list[str]:
    """Returns the packages and environment variables that are missing."""
    return [
        n
        for n in needs
        if (n not in os.environ if n.isupper() else importlib.util.find_spec(n) is None)
    ]


def run(quick: Quick) -> str:
    """Runs one and returns its result: left out, done or FAILED, and the seconds."""
    absent = missing(quick.needs)
    if absent:
        return f"left out ({', '.join(absent)} missing)"
    with tempfile.TemporaryDirectory() as folder:
        script, *arguments = quick.command.replace("{tmp}", folder).split()
        started = time.monotonic()
        process = subprocess.run(
            [sys.executable, str(HERE / script), *arguments], cwd=folder, check=False
        )
        result = "done" if process.returncode == 0 else f"FAILED ({process.returncode})"
        return f"{result} in {time.monotonic() - started:.0f} s"


def main() -> int:
    """Runs them and prints a table at the end; returns 1 if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], help="topics")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    selected = [q for q in QUICK if not arguments.only or q.topic in arguments.only]
    results = []
    for quick in selected:
        if not arguments.list:
            print(f"\n## {quick.command}\n", flush=True)
        results.append((quick, f"about {quick.minutes:g} min" if arguments.list else run(quick)))
    print("\n| benchmark | quick form |\n| --- | --- |")
    for quick, result in results:
        print(f"| {quick.command} | {result} |")
    for topic, reason in LONG.items():
        if not arguments.only:
            print(f"| {topic} | none: {reason} |")
    return 1 if any("FAILED" in result for _, result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
