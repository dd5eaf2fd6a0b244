"""Kills runs with SIGKILL at seeded places, resumes them and compares them with unbroken runs.

    python benchmarks/engine/kill.py --kills 30 --seed 0

Places: inside a write of answers or judgements (after a number of bytes, in the middle of a line);
at a random time while requests are in flight; while `judge` adds a judge; while lines are sorted
and the manifest is saved; while the summary is written. Models: scripted, and HTTP with latencies,
429s and 500s (mock.py). Every byte of the run folder must be equal in the end.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
SAMPLES = 120
PLACES = ("write", "write", "clock", "judge", "finish", "summary")


def run_child(arguments: argparse.Namespace) -> None:
    """Runs one step; the process kills itself at `write:BYTES`, `finish:CALL` or `summary:CALL`."""
    place, _, number = (arguments.at or "").partition(":")
    if place in ("write", "judge"):
        die_inside_writes(int(number))
    from truing.analysis.summary import write_summary
    from truing.core.types import Sampling
    from truing.evaluation.evaluate import evaluate, judge_run
    from truing.evaluation.options import EvaluateOptions
    from truing.specs.resolve import resolve

    options = EvaluateOptions(concurrency=8, sampling=Sampling(n=2, max_tokens=64), seed=5)
    if arguments.step == "evaluate":
        if place == "finish":
            die_at_call(int(number))
        judges = [resolve(j, "judge") for j in ("rules:refusal", "rules:degenerate")]
        evaluate(
            resolve(arguments.model, "model"),
            resolve(f"file:{arguments.data}", "data"),
            judges,
            arguments.out,
            options=options,
        )
    elif arguments.step == "judge":
        judge_run(arguments.out, EvenLengthJudge(), options=options)
    if arguments.step in ("evaluate", "judge"):
        print("SUMMARY", flush=True)
        if place == "summary":
            die_at_call(int(number))
        write_summary(arguments.out)


class EvenLengthJudge:
    """A judge without calls, for the step `judge`: whether an answer's length is even."""

    name = "kill:even"
    question = "even"

    def __init__(self) -> None:
        from truing.core.types import Lineage

        self.lineage = Lineage(name=self.name, hash="e" * 16)

    async def judge(self, sample, response):  # type: ignore[no-untyped-def]
        """Returns whether the length is even."""
        from truing.core.types import Judgement

        verdict = len(response.text) % 2 == 0
        return Judgement(
            sample_id=sample.id,
            index=response.index,
            judge=self.name,
            question="even",
            verdict=verdict,
        )


def die() -> None:
    """Ends this process as a crash would: no handler and no buffer flush runs."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_inside_writes(limit: int) -> None:
    """Replaces os.write: the write that exceeds `limit` bytes in all is cut short, then dies."""
    real_write, written = os.write, 0

    def write(fd: int, data: bytes) -> int:
        nonlocal written
        if written + len(data) >= limit:
            real_write(fd, bytes(data[: max(1, limit - written)]))
            die()
        written += len(data)
        return real_write(fd, data)

    os.write = write


def die_at_call(number: int) -> None:
    """Dies at the given call (from 1) of fsync, rename or whole-file write, which is half done.

    These are the calls that sort the lines and save the manifest and the summary.
    """
    real_sync, real_replace, real_write, calls = os.fsync, Path.replace, Path.write_bytes, 0

    def count() -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            die()

    def sync(fd: int) -> None:
        count()
        real_sync(fd)

    def replace(self: Path, target: Path) -> Path:
        count()
        return real_replace(self, target)

    def write_bytes(self: Path, data: bytes) -> int:
        real_write(self, data[: len(data) // 2])
        count()
        return real_write(self, data)

    os.fsync = sync
    Path.replace = replace  # type: ignore[method-assign]
    Path.write_bytes = write_bytes  # type: ignore[method-assign, assignment]


def read_contents(out: Path) -> dict[str, object]:
    """Returns all bytes of a run folder that must be equal: all but the manifest's times."""
    lines: dict[str, object] = {
        str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.jsonl"))
    }
    manifest = json.loads((out / "manifest.json").read_text())
    manifest.pop("created")
    return {**lines, "manifest": manifest, "summary": (out / "summary.json").read_bytes()}


class KillBenchmark:
    """Unbroken runs, and killed ones to compare with them."""

    def __init__(self, work: Path, url: str) -> None:
        self.work = work
        self.models = {"scripted": "scripted:mixed", "http": f"openai:mock,base_url={url}"}
        self.data = work / "rows.jsonl"
        rows = (
            {"prompt": f"Item {i}. Say in two sentences why a policy names this area."}
            for i in range(SAMPLES)
        )
        self.data.write_text("".join(json.dumps(r) + "\n" for r in rows))
        self.unbroken: dict[tuple[str, str], dict[str, object]] = {}

    def start(self, step: str, model: str, out: Path, at: str = "") -> subprocess.Popen[str]:
        """Starts one step in a child process."""
        command = [
            sys.executable,
            str(HERE),
            "--step",
            step,
            "--model",
            self.models[model],
            "--data",
            str(self.data),
            "--out",
            str(out),
            *(["--at", at] if at else []),
        ]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, step: str, model: str, out: Path, at: str = "") -> int:
        """Runs one step to its end; returns the exit status, which may be -SIGKILL."""
        process = self.start(step, model, out, at)
        try:
            _, errors = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        if process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(errors)
        return process.returncode

    def unbroken_contents(self, step: str, model: str) -> dict[str, object]:
        """Returns the contents of a run that was not killed."""
        if (step, model) not in self.unbroken:
            out = self.work / f"whole-{step}-{model}"
            self.run("evaluate", model, out)
            if step == "judge":
                self.run("judge", model, out)
            self.unbroken[step, model] = read_contents(out)
        return self.unbroken[step, model]

    def kill(self, number: int, place: str, model: str, rng: random.Random) -> dict[str, object]:
        """Kills one run up to three times and resumes it; reports whether it ends "equal"."""
        out = self.work / f"killed-{number}"
        step = "judge" if place == "judge" else "evaluate"
        expected = self.unbroken_contents(step, model)
        if step == "judge":
            self.run("evaluate", model, out)
        sizes = {k: len(v) for k, v in expected.items() if isinstance(v, bytes) and k != "summary"}
        kills = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            if place in ("write", "judge"):
                missing = sum(size - file_size(out / file) for file, size in sizes.items())
                place_used = f"{place}:{rng.randrange(1, max(2, missing))}"
                died = self.run(step, model, out, place_used)
            elif place == "clock":
                place_used, died = self.kill_after_delay(model, out, rng)
            else:
                place_used = f"{place}:{rng.randrange(1, 9 if place == 'finish' else 3)}"
                died = self.run(step, model, out, place_used)
            kills.append(place_used if died else f"{place_used} (ended before)")
        # Files that end in the middle of a line.
        torn = sum(
            not p.read_bytes().endswith(b"\n") for p in out.rglob("*.jsonl") if p.stat().st_size
        )
        stored = (
            (out / "responses.jsonl").read_bytes().count(b"\n")
            if (out / "responses.jsonl").exists()
            else 0
        )
        self.run(step, model, out)
        equal = read_contents(out) == expected
        shutil.rmtree(out)
        return {
            "n": number,
            "model": model,
            "place": place,
            "kills": kills,
            "torn_files": torn,
            "answers_kept": stored,
            "equal": equal,
        }

    def kill_after_delay(self, model: str, out: Path, rng: random.Random) -> tuple[str, int]:
        """Kills a run up to 0.25 s after its first answer; returns place and exit status."""
        process = self.start("evaluate", model, out)
        deadline = time.monotonic() + 20
        while (
            not (out / "responses.jsonl").exists()
            and process.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.002)
        wait = rng.uniform(0.0, 0.25)
        time.sleep(wait)
        process.kill()
        process.communicate()
        return f"clock:{1000 * wait:.0f} ms after the first answer", process.returncode


def file_size(path: Path) -> int:
    """Returns the size of a file, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def start_mock() -> tuple[subprocess.Popen[str], str]:
    """Starts the mock endpoint with latencies and failures; returns its process and base URL."""
    command = [
        sys.executable,
        str(HERE.with_name("mock.py")),
        "--port",
        "0",
        "--latency",
        "uniform:1:15",
        "--p429",
        "0.04",
        "--p500",
        "0.02",
        "--retry-after",
        "0",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[1]


def main() -> int:
    """Prints a line for each run and a verdict; returns 1 if any run did not end equal."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--kills", type=int, default=30, help="runs to kill (each once to three times)"
    )
    parser.add_argument("--seed", type=int, default=0)
    for hidden in ("step", "model", "data", "out", "at"):
        parser.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        run_child(arguments)
        return 0
    rng = random.Random(arguments.seed)
    server, url = start_mock()
    rows = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            benchmark = KillBenchmark(Path(folder), url)
            for number in range(arguments.kills):
                place = PLACES[number % len(PLACES)]
                model = "http" if place == "clock" else rng.choice(("http", "scripted"))
                rows.append(benchmark.kill(number, place, model, rng))
                print(json.dumps(rows[-1]), flush=True)
    finally:
        server.terminate()
        server.communicate()
    kills = [kill for row in rows for kill in row["kills"]]  # type: ignore[attr-defined]
    killed = sum(not kill.endswith("before)") for kill in kills)
    all_equal = all(r["equal"] for r in rows)
    print(
        f"{killed} kills in {len(rows)} runs, seed {arguments.seed}: "
        + ("all end byte-equal" if all_equal else "NOT EQUAL")
    )
    return 0 if all_equal else 1


if __name__ == "__main__":
    sys.exit(main())
