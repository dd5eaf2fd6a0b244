"""Where a prompt's CPU time goes: a sampling profiler around one `truing evaluate`.

    python benchmarks/engine/where.py --n 5000

The mock endpoint runs in another process. The profiler samples each millisecond of CPU time and
counts the sample for the innermost part of the stack that is named in PARTS. The shares times the
CPU time of the whole process (start-up included) are milliseconds per prompt.
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
from run import evaluate_command, run_mock, write_prompts

PARTS = (
    ("start-up (imports)", ("<frozen importlib", "importlib/")),
    (
        "summary and terminal output",
        ("truing/analysis/", "truing/report/", "truing/stats/", "cli/progress", "rich/"),
    ),
    ("output filter (withheld content)", ("core/output_filter",)),
    ("the judge, rules:refusal", ("truing/judges/",)),
    ("reading the data set", ("truing/datasets/", "json/decoder", "csv.py")),
    ("storage: lines, order, sync", ("truing/runs/",)),
    (
        "HTTP client (aiohttp)",
        ("aiohttp/", "yarl/", "multidict/", "aiosignal/", "frozenlist/", "propcache/"),
    ),
    ("request and answer as JSON", ("models/openai", "models/openai_format", "core/types")),
    ("retries, window, budget", ("truing/http/",)),
    ("the engine's workers and queue", ("truing/evaluation", "asyncio/queues")),
    ("event loop", ("asyncio/", "selectors.py")),
)


def part_of(frame: FrameType | None) -> str:
    """Returns the innermost named part of a stack."""
    stack = []
    while frame is not None:
        stack.append(frame.f_code.co_filename)
        frame = frame.f_back
    if any(name.startswith("<frozen importlib") for name in stack):
        return PARTS[0][0]
    for name in stack:
        for part, paths in PARTS[1:]:
            if any(path in name for path in paths):
                return part
    return "other"


def profile(command: list[str]) -> tuple[Counter[str], float]:
    """Runs a command; returns samples by part, and the CPU seconds of the whole process."""
    samples: Counter[str] = Counter()
    signal.signal(signal.SIGPROF, lambda number, frame: samples.update((part_of(frame),)))
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    from truing.cli import main

    sys.argv = ["truing", *command]
    try:
        main()
    except SystemExit as exit_:
        if exit_.code:
            raise
    signal.setitimer(signal.ITIMER_PROF, 0)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return samples, usage.ru_utime + usage.ru_stime


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=5000)
    prompts = parser.parse_args().n
    before = resource.getrusage(resource.RUSAGE_SELF)
    cpu_before = before.ru_utime + before.ru_stime  # of the imports of this script
    with tempfile.TemporaryDirectory() as folder, run_mock() as url:
        data = write_prompts(Path(folder) / "rows.jsonl", prompts)
        command = evaluate_command(url, data, Path(folder) / "out", 32)
        samples, cpu_after = profile(command[3:])  # without "python -m truing"
    cpu, total = cpu_after - cpu_before, samples.total()
    print(f"\n{prompts} prompts, {cpu:.2f} s of CPU, load {os.getloadavg()[0]:.1f}\n")
    print("| part | ms a prompt | share |\n| --- | --- | --- |")
    for part, count in samples.most_common():
        milliseconds = 1000 * cpu * count / total / prompts
        print(f"| {part} | {milliseconds:.4f} | {100 * count / total:.0f} % |")
    print(json.dumps({"n": prompts, "cpu_ms": round(1000 * cpu / prompts, 4)}))


if __name__ == "__main__":
    main()
