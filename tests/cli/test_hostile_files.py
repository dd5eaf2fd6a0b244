"""Commands on received run folders and on files of any kind: they work, or say what is wrong."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.run_folders import build_run

from truing.analysis.label_draws import draw_rows
from truing.cli import main
from truing.core.types import Conversation, Sample

VALUES = (
    b"null",
    b"-1",
    b"9999",
    b"1e308",
    b"9" * 30,
    b"[]",
    b"{}",
    b"true",
    b"1e999",
    b"NaN",
    b'""',
    b'"\\u001b]52;c;x\\u0007<script>"',
    b'"../../x"',
    b"0.5",
)
RULES = '[[rule]]\nname = "harm"\ncheck = "harmful.raw.upper < 0.9"\nallow = ["uncarded"]\n'
MAX_SECONDS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    samples = [
        Sample(
            id=f"s{i}",
            conversation=Conversation.of(f"question {i}"),
            harms=("violence",) if i % 2 else (),
            expect="refuse" if i % 2 else "comply",
        )
        for i in range(12)
    ]
    verdicts = {
        "harmful": [[i % 3 == 0, False] for i in range(12)],
        "refused": [[i % 2 == 0, True] for i in range(12)],
        "harmful@human:review": [[i % 3 == 1, None] for i in range(12)],
    }
    for name in ("run", "other"):
        draw_rows(build_run(folder / name, samples, verdicts), 5)
    (folder / "rules.toml").write_text(RULES)
    return folder


@pytest.fixture(autouse=True)
def watchdog() -> Iterator[None]:
    """A command that hangs fails its test, also where it waits in a system call."""

    def fail(*_: object) -> None:
        raise AssertionError("the command hangs")

    before = signal.signal(signal.SIGALRM, fail)
    umask = os.umask(0o022)  # the commands restrict it
    signal.alarm(MAX_SECONDS)
    yield
    signal.alarm(0)
    os.umask(umask)
    signal.signal(signal.SIGALRM, before)


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["truing", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def mutate(folder: Path, rng: random.Random) -> str:
    """Damages one file of a run folder at random; returns what was done to it."""
    files = sorted(p for p in folder.rglob("*.json*") if p.is_file())
    path = rng.choice(files)
    data, kind = path.read_bytes(), rng.choice(sorted(MUTATIONS))
    if kind == "swap":
        other = rng.choice(files)
        content = other.read_bytes()
        other.write_bytes(data)
        path.write_bytes(content)
    elif data:
        path.write_bytes(MUTATIONS[kind](data, rng))
    return f"{kind} {path.relative_to(folder)}"


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def zero_block(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.randint(1, 600))
    return data[:start] + bytes(end - start) + data[end:]


def cut_off(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def repeat_line(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    return b"".join([*lines[:at], *[lines[at]] * 3, *lines[at:]])


def shuffle_lines(data: bytes, rng: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    rng.shuffle(lines)
    return b"".join(lines[: rng.randint(0, len(lines))])


def change_value(data: bytes, rng: random.Random) -> bytes:
    values = list(re.finditer(rb':\s*("[^"]*"|-?[0-9.]+|null|true|false)', data))
    if not values:
        return data
    match = rng.choice(values)
    return data[: match.start(1)] + rng.choice(VALUES) + data[match.end(1) :]


def change_key(data: bytes, rng: random.Random) -> bytes:
    keys = list(re.finditer(rb'"(\w+)":', data))
    match = rng.choice(keys) if keys else None
    return data if match is None else data[: match.start(1)] + b"x" + data[match.end(1) :]


MUTATIONS: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "flip": flip_bits,
    "zero": zero_block,
    "cut": cut_off,
    "repeat": repeat_line,
    "shuffle": shuffle_lines,
    "value": change_value,
    "key": change_key,
    "swap": lambda data, rng: data,
}


def faults_on_damaged_folders(
    folder: Path,
    tmp_path: Path,
    seeds: range,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[tuple[object, ...]]:
    """Runs a command on a damaged copy of a run for each seed; returns what went wrong."""
    faults: list[tuple[object, ...]] = []
    for seed in seeds:
        rng = random.Random(seed)
        run = tmp_path / str(seed)
        shutil.copytree(folder / "run", run)
        damage = [mutate(run, rng) for _ in range(rng.choice((1, 1, 2)))]
        commands = (
            ["show", str(run)],
            ["show", str(run), "--json"],
            ["gate", str(run), str(folder / "rules.toml")],
            ["view", str(run), "--with-text", "--out", str(tmp_path / "view.html")],
            ["compare", str(folder / "other"), str(run), "--out", str(tmp_path / "r.html")],
            ["judge", str(run), "--judge", "rules:refusal"],
            ["rank", "by", str(run), "--judge", "rules:refusal"],
            ["label", str(run), "--n", "1", "--draw-only"],
        )
        words = rng.choice(commands)
        files = {p for p in tmp_path.rglob("*") if p.is_file()}
        status = run_command(words, monkeypatch)
        output = "".join(capsys.readouterr())
        checks = {
            "exit status": status in (0, 1, 2, 3),
            "error without a message": status != 1 or "truing: " in output,
            "terminal escape": "\x1b" not in output,
            "deleted file": files <= {p for p in tmp_path.rglob("*") if p.is_file()},
        }
        faults += [(name, words, damage, output) for name, holds in checks.items() if not holds]
        shutil.rmtree(run)
    return faults


def test_commands_on_damaged_run_folders(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert faults_on_damaged_folders(folder, tmp_path, range(25), monkeypatch, capsys) == []


@pytest.mark.slow
def test_commands_on_many_damaged_run_folders(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    signal.alarm(0)
    seeds = range(1000, 3000)
    assert faults_on_damaged_folders(folder, tmp_path, seeds, monkeypatch, capsys) == []


def write_sparse(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 30)


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "empty": Path.touch,
    "binary": lambda path: path.write_bytes(random.Random(1).randbytes(4000)),
    "not UTF-8": lambda path: path.write_bytes('größe = "ä"\n'.encode("latin-1")),
    "deep": lambda path: path.write_bytes(b"[" * 100_000),
    "sparse": write_sparse,
    "missing": lambda path: None,
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_commands_on_files_of_any_kind(
    kind: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad, run = tmp_path / "bad", str(folder / "run")
    BAD_FILES[kind](bad)
    file, out = str(bad), str(tmp_path / "out")
    for words in (
        ["gate", run, file],
        ["gate", run, str(folder / "rules.toml"), "--card", file],
        ["show", file],
        ["show", run, "--card", file],
        ["view", file],
        ["label", run, "--labels", file],
        ["moderate", "--judge", "rules:refusal", "--in", file, "--out", out],
        [
            "evaluate",
            "--model",
            "scripted:x",
            "--data",
            f"file:{file}",
            "--judge",
            "rules:refusal",
            "--out",
            out,
        ],
        ["run", file],
        ["import", "garak", file, "--out", out],
        ["judge", file, "--judge", "rules:refusal"],
        ["rank", "report", file, "--out", out],
    ):
        status = run_command(words, monkeypatch)
        output = "".join(capsys.readouterr())
        assert status in (0, 1), words
        assert status == 0 or str(bad) in output or "truing: " in output, (words, output)
        shutil.rmtree(out, ignore_errors=True)
        for left_over in tmp_path.glob("out*"):
            left_over.unlink()
