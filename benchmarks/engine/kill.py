"""Kills runs with SIGKILL at seeded places, runs the same command again, and compares every byte with an untouched run.

    python benchmarks/engine/kill.py --kills 30 --seed 0

Places: inside a write of answers or judgements (after so many bytes, in the middle of a line), at a moment of the clock
while requests are in flight, while `judge` adds a judge, while lines are put in order and the manifest is saved, and
while the summary is made. Models: scripted, and HTTP with latencies, 429s and 500s (the mock beside this file).
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


def child(a: argparse.Namespace) -> None:
    """One command, in a process that may kill itself: `--at write:BYTES`, `finish:CALL` or `summary:CALL`."""
    place, _, number = (a.at or "").partition(":")
    if place in ("write", "judge"):
        _die_inside_writes(int(number))
    from truing.analysis.summary import write_summary
    from truing.core.types import Sampling
    from truing.evaluation.evaluate import evaluate, judge_run
    from truing.evaluation.options import EvaluateOptions
    from truing.specs.resolve import resolve

    options = EvaluateOptions(concurrency=8, sampling=Sampling(n=2, max_tokens=64), seed=5)
    if a.step == "evaluate":
        if place == "finish":
            _die_at_call(int(number))
        judges = [resolve(j, "judge") for j in ("rules:refusal", "rules:degenerate")]
        evaluate(
            resolve(a.model, "model"),
            resolve(f"file:{a.data}", "data"),
            judges,
            a.out,
            options=options,
        )
    elif a.step == "judge":
        judge_run(a.out, Even(), options=options)
    if a.step in ("evaluate", "judge"):
        print("SUMMARY", flush=True)
        if place == "summary":
            _die_at_call(int(number))
        write_summary(a.out)


class Even:
    """A judge of its own for the judging step: whether an answer's length is even."""

    name = "kill:even"
    question = "even"

    def __init__(self) -> None:
        from truing.core.types import Lineage

        self.lineage = Lineage(name=self.name, hash="e" * 16)

    async def judge(self, sample, response):  # type: ignore[no-untyped-def]
        """Asks nobody."""
        from truing.core.types import Judgement

        verdict = len(response.text) % 2 == 0
        return Judgement(
            sample_id=sample.id,
            index=response.index,
            judge=self.name,
            question="even",
            verdict=verdict,
        )


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_inside_writes(limit: int) -> None:
    """Lets so many bytes through to files, cuts the write that passes the limit, and dies."""
    real, seen = os.write, 0

    def write(fd: int, data: bytes) -> int:
        nonlocal seen
        if seen + len(data) >= limit:
            real(fd, bytes(data[: max(1, limit - seen)]))
            _die()
        seen += len(data)
        return real(fd, data)

    os.write = write


def _die_at_call(number: int) -> None:
    """Dies at the so-manyth sync, rename or half-written file from now on (putting in order, manifest, summary)."""
    real_sync, real_replace, real_write, seen = os.fsync, Path.replace, Path.write_bytes, 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            _die()

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


def contents(out: Path) -> dict[str, object]:
    """Every byte of a run folder that counts: the lines, the summary, the manifest without its times."""
    found: dict[str, object] = {
        str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.jsonl"))
    }
    manifest = json.loads((out / "manifest.json").read_text())
    manifest.pop("created")
    return {**found, "manifest": manifest, "summary": (out / "summary.json").read_bytes()}


class Bench:
    """The untouched runs, and the killed ones beside them."""

    def __init__(self, work: Path, url: str) -> None:
        self.work = work
        self.models = {"scripted": "scripted:mixed", "http": f"openai:mock,base_url={url}"}
        self.data = work / "rows.jsonl"
        rows = (
            {"prompt": f"Item {i}. Say in two sentences why a policy names this area."}
            for i in range(SAMPLES)
        )
        self.data.write_text("".join(json.dumps(r) + "\n" for r in rows))
        self.whole: dict[tuple[str, str], dict[str, object]] = {}

    def start(self, step: str, model: str, out: Path, at: str = "") -> subprocess.Popen[str]:
        """Starts one command."""
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
        """Runs one command to its end."""
        process = self.start(step, model, out, at)
        try:
            _, errors = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        if process.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(errors)
        return process.returncode

    def untouched(self, step: str, model: str) -> dict[str, object]:
        """What an uninterrupted run leaves."""
        if (step, model) not in self.whole:
            out = self.work / f"whole-{step}-{model}"
            self.run("evaluate", model, out)
            if step == "judge":
                self.run("judge", model, out)
            self.whole[step, model] = contents(out)
        return self.whole[step, model]

    def kill(self, number: int, place: str, model: str, rng: random.Random) -> dict[str, object]:
        """One run, killed once, twice or three times; True under "equal" if it ends as an untouched one."""
        out = self.work / f"killed-{number}"
        step = "judge" if place == "judge" else "evaluate"
        expected = self.untouched(step, model)
        if step == "judge":
            self.run("evaluate", model, out)
        wanted = {k: len(v) for k, v in expected.items() if isinstance(v, bytes) and k != "summary"}
        kills = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            if place in ("write", "judge"):
                left = sum(size - _size(out / file) for file, size in wanted.items())
                at = f"{place}:{rng.randrange(1, max(2, left))}"
                died = self.run(step, model, out, at)
            elif place == "clock":
                at, died = self._by_the_clock(model, out, rng)
            else:
                at = f"{place}:{rng.randrange(1, 9 if place == 'finish' else 3)}"
                died = self.run(step, model, out, at)
            kills.append(at if died else f"{at} (ended before)")
        torn = sum(
            not p.read_bytes().endswith(b"\n") for p in out.rglob("*.jsonl") if p.stat().st_size
        )
        stored = (
            (out / "responses.jsonl").read_bytes().count(b"\n")
            if (out / "responses.jsonl").exists()
            else 0
        )
        self.run(step, model, out)
        equal = contents(out) == expected
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

    def _by_the_clock(self, model: str, out: Path, rng: random.Random) -> tuple[str, int]:
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


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def serve() -> tuple[subprocess.Popen[str], str]:
    """The mock with latencies and failures."""
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
    """Prints a line for each run and a verdict; 1 if any run did not end as an untouched one."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--kills", type=int, default=30, help="runs to kill (each once to three times)")
    p.add_argument("--seed", type=int, default=0)
    for hidden in ("step", "model", "data", "out", "at"):
        p.add_argument(f"--{hidden}", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.step:
        child(a)
        return 0
    rng = random.Random(a.seed)
    server, url = serve()
    rows = []
    try:
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder), url)
            for number in range(a.kills):
                place = PLACES[number % len(PLACES)]
                model = "http" if place == "clock" else rng.choice(("http", "scripted"))
                rows.append(bench.kill(number, place, model, rng))
                print(json.dumps(rows[-1]), flush=True)
    finally:
        server.terminate()
    killed = sum(not k.endswith("before)") for r in rows for k in r["kills"])  # type: ignore[attr-defined]
    good = all(r["equal"] for r in rows)
    print(
        f"{killed} kills in {len(rows)} runs, seed {a.seed}: "
        + ("all end byte-equal" if good else "NOT EQUAL")
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
