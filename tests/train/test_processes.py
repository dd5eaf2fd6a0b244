"""Real processes: two over gloo are one; killed with SIGKILL at any moment, the run goes on to the same end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")
from safetensors.torch import load_file

from truing.train.training_log import read_log

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RUN = """
import sys, json, time
sys.path.insert(0, {root!r})
from tests.train.parts import settings
from tests.train.test_supervised import data, wrap
from truing.train.supervised import train_supervised
kind, out, base, more, pause = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4]), float(sys.argv[5])
tell = (lambda row: time.sleep(pause)) if pause else None
train_supervised(settings(kind, out, base, **more), data(kind), wrap=wrap if kind == "distil" else None, tell=tell)
"""


@pytest.fixture(scope="module")
def script(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("script") / "run.py"
    path.write_text(RUN.format(root=str(root)))
    return str(path)


def words(
    script: str, kind: str, out: Path, base: str, pause: float = 0.0, **more: Any
) -> list[str]:
    return [script, kind, str(out), base, json.dumps(more), str(pause)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


def numbers(out: Path) -> list[float]:
    return [x for r in read_log(out) for x in (r["loss"], r["grad_norm"])]


@pytest.mark.parametrize("kind", ["sft", "dpo", "cost"])
def test_two_processes_are_one(kind: str, base: str, script: str, tmp_path: Path) -> None:
    more = {
        "steps": 4,
        "batch": 5,
        "micro": 2,
        "lora": 4,
    }  # 5 rows: three for one process, two for the other
    alone, both = tmp_path / "one", tmp_path / "two"
    subprocess.run(
        [sys.executable, *words(script, kind, alone, base, **more)], check=True, env=environment()
    )
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "29611",
    ]
    done = subprocess.run(
        [*launch, *words(script, kind, both, base, **more)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert numbers(both) == pytest.approx(numbers(alone), rel=1e-3)
    left, right = (load_file(p / "model.safetensors") for p in (alone, both))
    assert all(float((left[k] - right[k]).abs().max()) < 2e-4 for k in left)


@pytest.mark.parametrize("kind", ["sft", "reward"])
def test_spread_over_two_processes_it_is_one(
    kind: str, base: str, script: str, tmp_path: Path
) -> None:
    more = {"steps": 4, "batch": 4, "micro": 1, "lora": 0 if kind == "sft" else 4}
    alone, both = tmp_path / "one", tmp_path / "two"
    subprocess.run(
        [sys.executable, *words(script, kind, alone, base, **more)], check=True, env=environment()
    )
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        "29613",
    ]
    done = subprocess.run(
        [*launch, *words(script, kind, both, base, **more, shard=True)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert numbers(both) == pytest.approx(numbers(alone), rel=1e-3)
    left, right = (load_file(p / "model.safetensors") for p in (alone, both))
    assert left.keys() == right.keys() and all(
        float((left[k] - right[k]).abs().max()) < 5e-4 for k in left
    )


def test_killed_at_any_moment_it_ends_the_same(base: str, script: str, tmp_path: Path) -> None:
    more = {"steps": 12, "save_every": 2}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(
        [sys.executable, *words(script, "dpo", whole, base, **more)], check=True, env=environment()
    )
    kills = 0
    for _ in range(6):
        before = len(list(read_log(killed)))
        process = subprocess.Popen(
            [sys.executable, *words(script, "dpo", killed, base, 0.15, **more)], env=environment()
        )
        while process.poll() is None and len(list(read_log(killed))) < min(before + 3, 12):
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        if (killed / "truing.json").exists():
            break
    subprocess.run(
        [sys.executable, *words(script, "dpo", killed, base, **more)], check=True, env=environment()
    )
    assert kills >= 3
    assert [r["step"] for r in read_log(killed)] == list(range(1, 13))
    assert numbers(killed) == pytest.approx(numbers(whole), rel=1e-6)
    left, right = (load_file(p / "model.safetensors") for p in (whole, killed))
    assert all(float((left[k] - right[k]).abs().max()) < 1e-6 for k in left)
