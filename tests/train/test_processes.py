"""Real processes: two over gloo train what one trains, and a killed run ends as if it was not."""

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
import torch
from safetensors.torch import load_file
from tests.distributed.processes import run_in_processes
from tests.train.builders import make_settings
from tests.train.test_supervised import add_teacher_prompt, training_sets

from truing.train.step_loop import SliceLimit
from truing.train.supervised import train_supervised
from truing.train.training_log import read_log

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# argv: kind, output folder, base, settings as JSON, seconds to wait after each step
SCRIPT = """
import json, sys, time
sys.path.insert(0, {root!r})
from tests.train.builders import make_settings
from tests.train.test_supervised import add_teacher_prompt, training_sets
from truing.train.supervised import train_supervised

kind, out, base, fields, pause = sys.argv[1:]
train_supervised(
    make_settings(kind, out, base, **json.loads(fields)),
    training_sets(kind),
    wrap=add_teacher_prompt if kind == "distil" else None,
    on_log=lambda row: time.sleep(float(pause)),
)
"""
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}


@pytest.fixture(scope="module")
def script(root: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("script") / "run.py"
    path.write_text(SCRIPT.format(root=str(root)))
    return str(path)


class Runner:
    """Runs the script for a kind and a base in one process or in several."""

    def __init__(self, script: str, kind: str, base: str) -> None:
        self.script, self.kind, self.base = script, kind, base

    def arguments(self, out: Path, fields: dict[str, Any], pause: float = 0.0) -> list[str]:
        return [self.script, self.kind, str(out), self.base, json.dumps(fields), str(pause)]

    def run(self, out: Path, **fields: Any) -> None:
        command = [sys.executable, *self.arguments(out, fields)]
        subprocess.run(command, check=True, env=ENVIRONMENT)

    def run_two_processes(self, out: Path, port: int, **fields: Any) -> None:
        launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
        command = [*launch, "--master_port", str(port), *self.arguments(out, fields)]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    def start(self, out: Path, pause: float, **fields: Any) -> subprocess.Popen[bytes]:
        command = [sys.executable, *self.arguments(out, fields, pause)]
        return subprocess.Popen(command, env=ENVIRONMENT)


def logged_numbers(out: Path) -> list[float]:
    return [value for row in read_log(out) for value in (row["loss"], row["grad_norm"])]


def largest_weight_difference(one: Path, other: Path) -> float:
    left, right = (load_file(path / "model.safetensors") for path in (one, other))
    assert left.keys() == right.keys()
    return max(float((left[key] - right[key]).abs().max()) for key in left)


@pytest.mark.parametrize("kind", ["sft", "dpo", "cost"])
def test_two_processes_train_what_one_trains(
    kind: str, base: str, script: str, tmp_path: Path
) -> None:
    # 5 rows: three for one process, two for the other.
    fields = {"steps": 4, "batch": 5, "micro": 2, "lora": 4}
    runner, one, two = Runner(script, kind, base), tmp_path / "one", tmp_path / "two"
    runner.run(one, **fields)
    runner.run_two_processes(two, 29611, **fields)
    assert logged_numbers(two) == pytest.approx(logged_numbers(one), rel=1e-3)
    assert largest_weight_difference(one, two) < 2e-4


@pytest.mark.parametrize("kind", ["sft", "reward"])
def test_two_shards_train_what_one_process_trains(
    kind: str, base: str, script: str, tmp_path: Path
) -> None:
    fields = {"steps": 4, "batch": 4, "micro": 1, "lora": 0 if kind == "sft" else 4}
    runner, one, two = Runner(script, kind, base), tmp_path / "one", tmp_path / "two"
    runner.run(one, **fields)
    runner.run_two_processes(two, 29613, **fields, shard=True)
    assert logged_numbers(two) == pytest.approx(logged_numbers(one), rel=1e-3)
    assert largest_weight_difference(one, two) < 5e-4


def train_three_steps(kind: str, lora: int, out: str, base: str, device: str) -> dict[str, Any]:
    """Returns the weights. A slice: the model folder is written from the memory of the CPU."""
    fields = {"steps": 4, "batch": 5, "micro": 2, "lora": lora, "save_every": 3}
    train_supervised(
        make_settings(kind, out, base, device=device, **fields),
        training_sets(kind),
        wrap=add_teacher_prompt if kind == "distil" else None,
        limit=SliceLimit(steps=3),
    )
    # Tensors of the device are of a class of the tests.
    state = torch.load(Path(out) / "checkpoint-3" / "state.pt", weights_only=False)
    return {
        name: value if type(value) is torch.Tensor else value.inner
        for name, value in state["weights"].items()
    }


@pytest.mark.parametrize(
    ("kind", "lora"),
    [("sft", 0), ("dpo", 4), ("reward", 4), ("cost", 0), ("kto", 4), ("distil", 4)],
)
def test_processes_on_a_device_exchange_none_of_the_cpu(
    kind: str, lora: int, base: str, tmp_path: Path
) -> None:
    """The backend of the device refuses tensors of the CPU, as NCCL does."""
    one, two = tmp_path / "one", tmp_path / "two"
    if kind == "kto":
        # Its KL term is that of a micro-batch: another number of processes has other ones.
        expected, _ = run_in_processes(train_three_steps, 2, kind, lora, str(one), base, "cpu")
    else:
        expected = train_three_steps(kind, lora, str(one), base, "cpu")
    weights, _ = run_in_processes(
        train_three_steps, 2, kind, lora, str(two), base, "standin", backend="standin"
    )
    assert logged_numbers(two) == pytest.approx(logged_numbers(one), rel=1e-3)
    assert weights.keys() == expected.keys()
    assert max(float((weights[k] - expected[k]).abs().max()) for k in weights) < 2e-4


LAUNCHERS = {
    "accelerate": "accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 "
    "--mixed_precision no --dynamo_backend no --main_process_port 0",
    "torchrun": "torch.distributed.run --nproc_per_node 2 --standalone",
}


@pytest.mark.parametrize("launcher", sorted(LAUNCHERS))
def test_the_command_in_two_processes_of_a_launcher(
    launcher: str, base: str, tmp_path: Path
) -> None:
    """The whole command; one model folder, the log of one process, one line of output."""
    rows = tmp_path / "rows.jsonl"
    pairs = [
        {"prompt": f"How do I true wheel {k}?", "response": "Turn it. " * (1 + k % 3)}
        for k in range(12)
    ]
    rows.write_text("\n".join(json.dumps(row) for row in pairs))
    flags = f"train sft --base {base} --data file:{rows} --steps 3 --batch 4 --lora 4 --json"
    flags += " --dtype float32 --max-length 128 --no-tensorboard --device cpu"
    one, two = tmp_path / "one", tmp_path / "two"
    launch = [sys.executable, "-W", "ignore", "-m", *LAUNCHERS[launcher].split()]
    for out, command in ((one, [sys.executable]), (two, launch)):
        words = [*command, "-m", "truing", *flags.split(), "--out", str(out)]
        done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert json.loads(done.stdout)["steps"] == 3
    assert logged_numbers(two) == pytest.approx(logged_numbers(one), rel=1e-3)
    assert largest_weight_difference(one, two) < 2e-4


def test_a_run_that_is_killed_at_any_moment_ends_the_same(
    base: str, script: str, tmp_path: Path
) -> None:
    fields = {"steps": 12, "save_every": 2}
    runner, uninterrupted, killed = Runner(script, "dpo", base), tmp_path / "a", tmp_path / "b"
    runner.run(uninterrupted, **fields)
    kills = 0
    for _ in range(6):
        logged_before = len(list(read_log(killed)))
        process = runner.start(killed, 0.15, **fields)
        while process.poll() is None and len(list(read_log(killed))) < min(logged_before + 3, 12):
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        if (killed / "truing.json").exists():
            break
    runner.run(killed, **fields)
    assert kills >= 3
    assert [row["step"] for row in read_log(killed)] == list(range(1, 13))
    assert logged_numbers(killed) == pytest.approx(logged_numbers(uninterrupted), rel=1e-6)
    assert largest_weight_difference(uninterrupted, killed) < 1e-6
