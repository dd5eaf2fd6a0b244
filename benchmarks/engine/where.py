"""Where a prompt's CPU time goes: a sampling profiler (a tick each millisecond of CPU) around one `truing evaluate`.

    python benchmarks/engine/where.py --n 5000

The mock runs beside it. Each tick goes to the innermost part of the stack that has a name here; the shares times the
CPU time of the whole process (start-up and the last moments included) give milliseconds a prompt.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent))
from run import mock, ours, rows

PARTS = (
    ("start-up (imports)", ("<frozen importlib", "importlib/")),
    (
        "summary and what is printed",
        ("truing/analysis/", "truing/report/", "truing/stats/", "cli/progress", "rich/"),
    ),
    ("the floor (withheld content)", ("core/output_filter",)),
    ("the judge, rules:refusal", ("truing/judges/",)),
    ("reading the data set", ("truing/datasets/", "json/decoder", "csv.py")),
    ("storage: lines, order, sync", ("truing/runs/")),
    (
        "HTTP client (aiohttp)",
        ("aiohttp/", "yarl/", "multidict/", "aiosignal/", "frozenlist/", "propcache/"),
    ),
    ("request and answer as JSON", ("models/openai", "models/openai_format", "core/types")),
    ("retries, window, budget", ("truing/http/")),
    ("the engine's workers and queue", ("truing/evaluation", "asyncio/queues")),
    ("event loop", ("asyncio/", "selectors.py")),
)


def part_of(frame: FrameType | None) -> str:
    """The innermost named part of a stack."""
    stack = []
    while frame is not None:
        stack.append(frame.f_code.co_filename)
        frame = frame.f_back
    if any(name.startswith("<frozen importlib") for name in stack):
        return PARTS[0][0]
    for name in stack:
        for part, marks in PARTS[1:]:
            if any(mark in name for mark in marks):
                return part
    return "other"


def profile(command: list[str]) -> tuple[Counter[str], float]:
    """Ticks by part, and the CPU seconds of the whole process."""
    ticks: Counter[str] = Counter()
    signal.signal(signal.SIGPROF, lambda number, frame: ticks.update((part_of(frame),)))
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    from truing.cli import main

    sys.argv = ["truing", *command]
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    signal.setitimer(signal.ITIMER_PROF, 0)
    use = resource.getrusage(resource.RUSAGE_SELF)
    return ticks, use.ru_utime + use.ru_stime


def main() -> None:
    """Prints the table."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--n", type=int, default=5000)
    a = p.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF)
    own = before.ru_utime + before.ru_stime  # of this script's own imports
    with tempfile.TemporaryDirectory() as folder, mock() as url:
        data = rows(Path(folder) / "rows.jsonl", a.n)
        ticks, cpu = profile(ours(url, data, Path(folder) / "out", 32)[3:])
    total = sum(ticks.values())
    print(f"\n{a.n} prompts, {cpu - own:.2f} s of CPU, load {os.getloadavg()[0]:.1f}\n")
    print("| part | ms a prompt | share |\n| --- | --- | --- |")
    for part, count in ticks.most_common():
        print(
            f"| {part} | {1000 * (cpu - own) * count / total / a.n:.4f} | {100 * count / total:.0f} % |"
        )
    print(json.dumps({"n": a.n, "cpu_ms": round(1000 * (cpu - own) / a.n, 4)}))


if __name__ == "__main__":
    main()
