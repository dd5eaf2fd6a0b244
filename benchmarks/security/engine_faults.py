"""The engine under faults: damaged files, full disks, failing renames, jumping clocks.

    python benchmarks/security/engine_faults.py --seed 0 --corruptions 20
    python benchmarks/engine/kill.py --kills 60 --seed 17      # SIGKILL, the other part

Every case runs or damages an evaluation, repeats the same command, and compares all records and
the summary with those of a run that nothing disturbed. A case is `restored` if they are equal byte
by byte, and `named` if the fault was told (file and line, or the reason) before.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import json
import logging
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from truing.analysis.summary import write_summary
from truing.core.errors import RunError
from truing.core.ids import stream_seed
from truing.core.protocols import Judge
from truing.core.types import Answer, Conversation, Sampling
from truing.evaluation.evaluate import evaluate
from truing.runs.folder import Run
from truing.specs.resolve import resolve

SAMPLES = 60
FAULT_ERRORS = (errno.ENOSPC, errno.EIO, errno.ESTALE, errno.EBUSY, errno.EDQUOT)


class HashModel:
    """Answers by the hash of the prompt, at once and always the same."""

    name = "faults:hash"

    def __init__(self) -> None:
        from truing.core.types import Lineage

        self.lineage = Lineage(name=self.name, hash="f" * 16)

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns one answer, whose length depends on the prompt."""
        seed = stream_seed(sampling.seed, conversation.prompt)
        text = hashlib.sha256(str(seed).encode()).hexdigest() * (1 + seed % 5)
        return (Answer.of(text),)


class Engine:
    """Runs the same evaluation into any folder."""

    def __init__(self, work: Path) -> None:
        self.work = work
        rows = (
            {"id": f"r{i}", "prompt": f"Item {i}: what is a kettle for?"} for i in range(SAMPLES)
        )
        (work / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.judges: list[Judge] = [resolve(j, "judge") for j in ("rules:refusal", "keywords")]
        self.run(work / "whole")
        self.expected = read_contents(work / "whole")

    def run(self, out: Path) -> None:
        """Evaluates into a folder, or continues there, and writes the summary."""
        data = resolve(f"file:{self.work / 'rows.jsonl'}", "data")
        evaluate(HashModel(), data, self.judges, out)
        write_summary(out)

    def copy(self, name: str) -> Path:
        """Returns a copy of the undisturbed run."""
        return Path(shutil.copytree(self.work / "whole", self.work / name))


def read_contents(out: Path) -> dict[str, bytes]:
    """Returns the records and the summary of a run."""
    files = [*out.rglob("*.jsonl"), out / "summary.json"]
    return {str(path.relative_to(out)): path.read_bytes() for path in files}


# -- damaged files


def zero_block(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    length = rng.choice((1, 512, 4096))
    return (data[:start] + bytes(length) + data[start + length :])[: len(data)]


def random_block(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    length = min(rng.randint(1, 700), len(data) - start)
    return data[:start] + rng.randbytes(length) + data[start + length :]


def cut_off(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def repeat_block(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[max(0, start - 700) :]


def drop_block(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, 700) :]


CORRUPTIONS = (zero_block, random_block, cut_off)
SPLICES = (repeat_block, drop_block)


def corrupt(engine: Engine, number: int, rng: random.Random) -> dict[str, object]:
    """Overwrites or cuts one file of a finished run, and repeats the command."""
    return damage_file(engine, f"corrupt-{number}", CORRUPTIONS[number % len(CORRUPTIONS)], rng)


def splice(engine: Engine, number: int, rng: random.Random) -> dict[str, object]:
    """Moves or drops a block of bytes of a finished run's file, and repeats the command.

    The halves of two lines then stand in one, which may be a valid record that nobody wrote: without
    a checksum for each line it cannot be told from others. No other line may be lost.
    """
    return damage_file(engine, f"splice-{number}", SPLICES[number % len(SPLICES)], rng)


def damage_file(
    engine: Engine, name: str, damage: Callable[[bytes, random.Random], bytes], rng: random.Random
) -> dict[str, object]:
    """Damages one file of a copy of the finished run, repeats the command and compares."""
    out = engine.copy(name)
    path = rng.choice(sorted(out.rglob("*.jsonl")))
    path.write_bytes(damage(path.read_bytes(), rng))
    engine.run(out)
    note = Run(out).manifest.notes.get("damaged", "")
    restored = read_contents(out) == engine.expected
    return {
        "case": f"{damage.__name__} {path.relative_to(out)}",
        "restored": restored,
        "named": restored or bool(note),
        "lines_that_differ": count_differing_lines(read_contents(out), engine.expected),
        "told": note[:100],
    }


def count_differing_lines(contents: dict[str, bytes], expected: dict[str, bytes]) -> int:
    """Returns how many of the records that were expected are not there."""
    return sum(
        len(set(data.splitlines()) - set(contents.get(name, b"").splitlines()))
        for name, data in expected.items()
        if name.endswith(".jsonl")
    )


# -- calls of the operating system that fail


@contextlib.contextmanager
def failing_call(name: str, number: int, code: int, *, always: bool) -> Iterator[list[int]]:
    """Makes the `number`-th call of write, fsync or rename fail (`always`: and all after it)."""
    owner, attribute = {
        "write": (os, "write"),
        "fsync": (os, "fsync"),
        "rename": (Path, "replace"),
    }[name]
    real_call, calls = getattr(owner, attribute), [0]

    def call(*arguments: object) -> object:
        calls[0] += 1
        if calls[0] == number or (always and calls[0] > number):
            if name == "write":  # a full disk takes a part first
                real_call(arguments[0], bytes(arguments[1])[: len(bytes(arguments[1])) // 2])  # type: ignore[call-overload]
            raise OSError(code, os.strerror(code))
        return real_call(*arguments)

    with mock.patch.object(owner, attribute, call):
        yield calls


def fail_call(engine: Engine, number: int, rng: random.Random) -> dict[str, object]:
    """Lets one call of the operating system fail during a run, then repeats the command."""
    out = engine.work / f"failed-{number}"
    name = ("write", "fsync", "rename")[number % 3]
    code = rng.choice(FAULT_ERRORS)
    at, always = rng.randint(1, {"write": 50, "fsync": 7, "rename": 6}[name]), rng.random() < 0.5
    told = ""
    with failing_call(name, at, code, always=always):
        try:
            engine.run(out)
        except RunError as error:
            told = str(error)
    is_partial_kept = not (out / "responses.jsonl").exists() or all(
        line.endswith(b"\n") for line in (out / "responses.jsonl").read_bytes().splitlines(True)
    )
    ended = (out / "summary.json").exists() and not told
    engine.run(out)
    return {
        "case": f"{errno.errorcode[code]} at {name} {at}{' and after' if always else ''}",
        "restored": read_contents(out) == engine.expected and is_partial_kept,
        "named": ended or str(out) in told,
        "told": told.replace(str(engine.work), "")[:100] or "went on",
    }


def jump_clock(engine: Engine, number: int, rng: random.Random) -> dict[str, object]:
    """Runs while the wall clock jumps by up to ten years at each reading."""
    out = engine.work / f"clock-{number}"
    real_time = time.time

    def jumping_time() -> float:
        return real_time() + rng.uniform(-3e8, 3e8)

    with mock.patch.object(time, "time", jumping_time):
        engine.run(out)
    return {
        "case": "wall clock jumps",
        "restored": read_contents(out) == engine.expected,
        "named": True,
        "told": "",
    }


def run_cases(seed: int, corruptions: int, failures: int, clocks: int) -> list[dict[str, object]]:
    """Runs all cases; returns a row for each."""
    rng = random.Random(seed)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(Path(folder))
        cases = (
            (corrupt, corruptions),
            (splice, corruptions),
            (fail_call, failures),
            (jump_clock, clocks),
        )
        for case, n in cases:
            for number in range(n):
                rows.append({"kind": case.__name__, **case(engine, number, rng)})
    return rows


def main() -> int:
    """Prints a line for each case; returns 1 if one was not restored, or not named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corruptions", type=int, default=20)
    parser.add_argument("--failures", type=int, default=60)
    parser.add_argument("--clocks", type=int, default=5)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = run_cases(arguments.seed, arguments.corruptions, arguments.failures, arguments.clocks)
    for row in rows:
        print(json.dumps(row))
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = [row for row in rows if row["kind"] == kind]
        restored, named = (sum(bool(row[key]) for row in of_kind) for key in ("restored", "named"))
        print(f"{kind}: {len(of_kind)} cases, {restored} restored, {named} named")
    return 0 if all(is_passed(row) for row in rows) else 1


def is_passed(row: dict[str, object]) -> bool:
    """Whether nothing was lost: of a splice, nothing but the line at the seam."""
    if row["kind"] == "splice":
        return int(str(row["lines_that_differ"])) <= 1
    return bool(row["restored"] and row["named"])


if __name__ == "__main__":
    sys.exit(main())
