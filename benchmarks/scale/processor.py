"""Runs a command and prints the processor seconds of all its processes, which a load disturbs least.

    sudo python benchmarks/scale/processor.py python -m truing moderate ... --on ray

The kernel counts them in a control group (version 1, `cpuacct`), so that processes that Ray starts
in sessions of their own, and kills, are counted too. The line of JSON goes to standard error.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GROUPS = Path("/sys/fs/cgroup/cpuacct")


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds by the clock, and of the processor in all its processes."""

    seconds: float
    processor: float

    def less(self, other: Cost) -> Cost:
        """Returns the difference of two costs."""
        return Cost(self.seconds - other.seconds, self.processor - other.processor)


def run_counted(words: list[str], **options: Any) -> tuple[subprocess.CompletedProcess[Any], Cost]:
    """Runs a command; `options` are those of `subprocess.run`."""
    group = GROUPS / f"truing-{os.getpid()}-{next(_NUMBERS)}"
    group.mkdir()
    started = time.perf_counter()
    try:
        in_group = ["sh", "-c", f'echo $$ > {group}/tasks && exec "$@"', "sh", *words]
        process = subprocess.run(in_group, check=False, **options)
        seconds = time.perf_counter() - started
        # Ray's processes end a moment after the command.
        time.sleep(1)
        processor = int((group / "cpuacct.usage").read_text()) / 1e9
    finally:
        if not (group / "tasks").read_text().strip():
            group.rmdir()
    return process, Cost(seconds, processor)


_NUMBERS = itertools.count()


def main() -> None:
    """Prints one line of JSON and exits with the status of the command."""
    words = sys.argv[1:]
    if not words:
        sys.exit(__doc__)
    process, cost = run_counted(words)
    figures = {"processor_s": round(cost.processor, 2), "seconds": round(cost.seconds, 1)}
    print(json.dumps(figures), file=sys.stderr)
    sys.exit(process.returncode)


if __name__ == "__main__":
    main()
