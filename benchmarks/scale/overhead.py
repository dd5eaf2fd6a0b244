"""One process against a Ray cluster of one worker on the same machine, and the peer; seconds.

    python benchmarks/scale/overhead.py --rows 200000 --judge keywords:

The start of Ray is measured by a job of one row and taken off. Run it on an
idle machine; with a load it shows that the scripts run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rows import write_rows


def measure(words: list[str]) -> float:
    """Returns the seconds of a command of truing."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "truing", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--judge", default="keywords:")
    parser.add_argument("--shard-mib", type=float, default=8.0)
    parser.add_argument("--peer", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = write_rows(folder / "rows.jsonl", arguments.rows)
        tiny = write_rows(folder / "tiny.jsonl", 1)
        common = ["moderate", "--judge", arguments.judge, "--in"]
        on_ray = ["--on", "ray", "--workers", "1", "--shard-mib", str(arguments.shard_mib)]
        one = measure([*common, str(rows), "--out", str(folder / "one.jsonl")])
        start_one = measure([*common, str(tiny), "--out", str(folder / "tiny-one.jsonl")])
        ray = measure([*common, str(rows), "--out", str(folder / "ray"), *on_ray])
        start_ray = measure([*common, str(tiny), "--out", str(folder / "tiny-ray"), *on_ray])
        figures = {
            "rows": arguments.rows,
            "judge": arguments.judge,
            "one_process_s": round(one - start_one, 2),
            "ray_one_worker_s": round(ray - start_ray, 2),
            "start_of_ray_s": round(start_ray - start_one, 2),
            "load": os.getloadavg()[0],
        }
        if arguments.peer:
            peer = Path(__file__).with_name("peer.py")
            words = [sys.executable, str(peer), str(rows), str(folder / "peer"), "keywords"]
            printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            figures["peer_s"] = json.loads(printed.splitlines()[-1])["seconds"]
        print(json.dumps(figures))


if __name__ == "__main__":
    main()
