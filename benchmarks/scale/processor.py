"""Runs a command and prints the processor seconds of all its processes, which a load disturbs least.

    sudo python benchmarks/scale/processor.py python -m truing moderate ... --on ray

The kernel counts them in a control group (version 1, `cpuacct`), so that processes that Ray starts
in sessions of their own, and kills, are counted too. The line of JSON goes to standard error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup/cpuacct")


def main() -> None:
    """Prints one line of JSON and exits with the status of the command."""
    words = sys.argv[1:]
    if not words:
        sys.exit(__doc__)
    group = GROUPS / f"truing-{os.getpid()}"
    group.mkdir()
    started = time.perf_counter()
    try:
        in_group = ["sh", "-c", f'echo $$ > {group}/tasks && exec "$@"', "sh", *words]
        status = subprocess.run(in_group, check=False).returncode
        seconds = time.perf_counter() - started
        # Ray's processes end a moment after the command.
        time.sleep(1)
        processor = int((group / "cpuacct.usage").read_text()) / 1e9
    finally:
        if not (group / "tasks").read_text().strip():
            group.rmdir()
    figures = {"processor_s": round(processor, 2), "seconds": round(seconds, 1)}
    print(json.dumps(figures), file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
