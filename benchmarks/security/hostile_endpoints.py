"""Does a run go on, in bounded memory and time, whatever an endpoint sends?

    python benchmarks/security/hostile_endpoints.py            all behaviours, real bounds
    python benchmarks/security/hostile_endpoints.py --quick    small bodies, short time-outs

For each behaviour of `hostile_behaviours.py` a fresh process evaluates eight samples, of which four
meet the behaviour, all at once. It reports what became of them, the seconds, and by how much its
peak memory grew beyond that of a run on a normal endpoint. The table goes to
`hostile_endpoints.md`. The exit status is 1 if a hostile sample has another outcome than it should,
a normal sample has no answer, or memory grew by more than `--limit` MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostile_behaviours import BEHAVIOURS

HERE = Path(__file__).resolve().parent
SAMPLES = 4


@contextmanager
def hostile_server(megabytes: int) -> Iterator[str]:
    """Runs the server in a process; yields its base URL."""
    command = [sys.executable, str(HERE / "hostile_behaviours.py"), "--megabytes", str(megabytes)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def evaluate_prompts(
    url: str, prompts: Sequence[str], folder: Path, *, options: str, concurrency: int
) -> dict[str, dict[str, Any]]:
    """Returns what became of each prompt in a whole evaluation: the outcome and the message."""
    from truing.evaluation.evaluate import evaluate
    from truing.evaluation.options import EvaluateOptions
    from truing.specs.resolve import resolve

    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"id": p, "prompt": p}) + "\n" for p in prompts))
    run = evaluate(
        resolve(f"openai:m,base_url={url},{options}", "model"),
        resolve(f"file:{rows}", "data"),
        [resolve("rules:refusal", "judge")],
        folder / "run",
        options=EvaluateOptions(concurrency=concurrency),
    )
    return {
        response.sample_id: {
            "outcome": response.failure.kind if response.failure else "answered",
            "message": response.failure.message if response.failure else response.text[:40],
        }
        for response in run.responses()
    }


def measure_one(name: str, url: str, options: str) -> dict[str, Any]:
    """Evaluates samples of one behaviour in this process."""
    if BEHAVIOURS[name].stream:
        options += ",stream=true"
    hostile = [f"hostile {name} {i}" for i in range(SAMPLES)]
    normal = [f"normal {i}" for i in range(SAMPLES)]
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first"), Path(folder, "second")
        first.mkdir()
        second.mkdir()
        evaluate_prompts(url, normal, first, options=options, concurrency=SAMPLES)
        usual_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.monotonic()
        prompts = [p for pair in zip(hostile, normal) for p in pair]
        results = evaluate_prompts(url, prompts, second, options=options, concurrency=2 * SAMPLES)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - usual_peak
    return {
        "name": name,
        "outcomes": sorted({results[p]["outcome"] for p in hostile}),
        "message": results[hostile[0]]["message"],
        "normal_answered": sum(results[p]["outcome"] == "answered" for p in normal),
        "seconds": time.monotonic() - started,
        "grown_mib": grown / 1024,
    }


def measure_in_process(name: str, url: str, options: str) -> dict[str, Any]:
    """Runs `measure_one` in a fresh process."""
    command = [sys.executable, __file__, "--one", name, "--url", url, "--options", options]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    if finished.returncode:
        return {
            "name": name,
            "outcomes": ["crashed"],
            "message": finished.stderr[-300:],
            "normal_answered": 0,
            "seconds": 0.0,
            "grown_mib": 0.0,
        }
    result: dict[str, Any] = json.loads(finished.stdout)
    return result


def is_right(result: dict[str, Any], limit_mib: float) -> bool:
    """Whether the behaviour did no harm."""
    return (
        set(result["outcomes"]) <= BEHAVIOURS[result["name"]].outcomes
        and result["normal_answered"] == SAMPLES
        and result["grown_mib"] <= limit_mib
    )


def write_table(results: Sequence[dict[str, Any]], note: str, limit_mib: float) -> str:
    """Returns the page with the results."""
    lines = [
        "# Hostile endpoints",
        "",
        f"`python benchmarks/security/hostile_endpoints.py`: {note}",
        "",
        "| behaviour | outcome | normal samples answered | s | MiB grown | right | message |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        text = r["message"].replace("|", "\\|")[:90]
        lines.append(
            f"| {r['name']} | {', '.join(r['outcomes'])} | {r['normal_answered']} of {SAMPLES} "
            f"| {r['seconds']:.1f} | {r['grown_mib']:.0f} "
            f"| {'yes' if is_right(r, limit_mib) else 'NO'} | {text} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measures all behaviours, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=list(BEHAVIOURS))
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--limit", type=float, default=200.0, help="MiB that memory may grow")
    parser.add_argument("--out", type=Path, default=HERE / "hostile_endpoints.md")
    parser.add_argument("--one")
    parser.add_argument("--url")
    parser.add_argument("--options")
    flags = parser.parse_args()
    if flags.one:
        print(json.dumps(measure_one(flags.one, flags.url, flags.options)))
        return 0
    megabytes, options = (8, "timeout=2,retries=0,max_bytes=1000000")
    if not flags.quick:
        megabytes, options = (2700, "timeout=60,retries=0")
    with hostile_server(megabytes) as url, ThreadPoolExecutor(flags.processes) as pool:
        results = list(pool.map(lambda name: measure_in_process(name, url, options), flags.only))
    note = (
        f"{len(results)} behaviours, {options}, oversized replies of {megabytes} MB, {SAMPLES} "
        f"hostile and {SAMPLES} normal samples at once; {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}."
    )
    page = write_table(results, note, flags.limit)
    print(page)
    if not flags.quick:
        flags.out.write_text(page, encoding="utf-8")
    return int(not all(is_right(result, flags.limit) for result in results))


if __name__ == "__main__":
    sys.exit(main())
