"""The quick form of every benchmark, one after another: does each still run, and roughly where do its figures stand?

    make bench      or      python benchmarks/run.py [--only TOPIC...] [--list]

Figures to quote come from the full forms on a quiet machine, with the commands in each folder's README. A benchmark whose
data or packages are not here is left out, and said so. Exits 1 if one fails.
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
    Quick("engine", "engine/run.py --parts cost hosted --n 1000 --repeat 1", 0.5),
    Quick("engine", "engine/where.py --n 1000", 0.2),
    Quick("engine", "engine/kill.py --kills 6", 1),
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
    Quick("statistics", "statistics/coverage.py --draws 200 --out {tmp}/statistics.json", 2),
)
LONG: dict[str, str] = {}
"""Topics without a quick form, and why."""


def missing(needs: tuple[str, ...]) -> list[str]:
    """What of `needs` is not here."""
    return [
        n
        for n in needs
        if (n not in os.environ if n.isupper() else importlib.util.find_spec(n) is None)
    ]


def run(quick: Quick) -> str:
    """Runs one and gives its result in a word."""
    lacks = missing(quick.needs)
    if lacks:
        return f"left out ({', '.join(lacks)} not here)"
    with tempfile.TemporaryDirectory() as folder:
        script, *arguments = quick.command.replace("{tmp}", folder).split()
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, str(HERE / script), *arguments], cwd=folder, check=False
        )
        return f"{'done' if done.returncode == 0 else f'FAILED ({done.returncode})'} in {time.monotonic() - started:.0f} s"


def main() -> int:
    """Runs them and prints a table at the end."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--only", nargs="+", default=[], help="topics")
    p.add_argument("--list", action="store_true")
    a = p.parse_args()
    wanted = [q for q in QUICK if not a.only or q.topic in a.only]
    results = []
    for quick in wanted:
        if not a.list:
            print(f"\n## {quick.command}\n", flush=True)
        results.append((quick, f"about {quick.minutes:g} min" if a.list else run(quick)))
    print("\n| benchmark | quick form |\n| --- | --- |")
    for quick, said in results:
        print(f"| {quick.command} | {said} |")
    for topic, why in LONG.items():
        if not a.only:
            print(f"| {topic} | none: {why} |")
    return 1 if any("FAILED" in said for _, said in results) else 0


if __name__ == "__main__":
    sys.exit(main())
