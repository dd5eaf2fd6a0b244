"""Runs in processes of their own: kill and resume, full disk, two processes, FSDP, Ray."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.requirements import require_package

from truing.distributed.ray_launcher import run_on_ray  # noqa: E402
from truing.hf.loading import load_causal_lm  # noqa: E402
from truing.train.checkpoint import load_torch_file  # noqa: E402
from truing.train.training_log import read_log  # noqa: E402

WORKER = Path(__file__).with_name("worker.py")
TIMEOUT = 600
pytestmark = [
    pytest.mark.slow,
    # Ray's own, of its settings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


def start_worker(out: Path, method: str, **changes: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "ignore", str(WORKER), str(out), method, json.dumps(changes)]
    return subprocess.Popen(command, start_new_session=True)


def run_one_process(out: Path, method: str, **changes: Any) -> None:
    assert start_worker(out, method, **changes).wait(timeout=TIMEOUT) == 0


def two_process_launcher() -> list[str]:
    launcher = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run"]
    return [*launcher, "--nproc_per_node", "2", "--standalone"]


def run_two_processes(out: Path, method: str, *, stand_in: bool = False, **changes: Any) -> None:
    command = [*two_process_launcher(), str(WORKER), str(out), method, json.dumps(changes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "STAND_IN": str(int(stand_in))}
    subprocess.run(command, check=True, timeout=900, env=environment)


def log_rows(out: Path) -> list[dict[str, Any]]:
    """The log without its times."""
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in read_log(out)]


def load_weights(out: Path, rank: int = 0) -> dict[str, Any]:
    weights: dict[str, Any] = torch.load(out / f"weights-{rank}.pt")
    return weights


def assert_equal_weights(
    left: dict[str, Any], right: dict[str, Any], *, rtol: float, atol: float
) -> None:
    assert left.keys() == right.keys()
    for name in left:
        torch.testing.assert_close(left[name], right[name], rtol=rtol, atol=atol)


def assert_equal_logs(left: Path, right: Path) -> None:
    for a, b in zip(log_rows(left), log_rows(right), strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            if isinstance(value, float):
                assert value == pytest.approx(b[key], rel=1e-6, abs=1e-9), key


@pytest.mark.parametrize("method", ["ppo-lag", "grpo"])
def test_a_killed_run_resumes_to_the_same_end(tmp_path: Path, method: str) -> None:
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    run_one_process(uninterrupted, method, steps=8)
    for steps_before_kill in (2, 5):
        process = start_worker(killed, method, steps=8, slow=0.3)
        deadline = time.monotonic() + TIMEOUT
        while len(log_rows(killed)) < steps_before_kill and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    run_one_process(killed, method, steps=8)

    assert len(log_rows(uninterrupted)) == 8
    assert log_rows(killed) == log_rows(uninterrupted)
    checkpoints = [folder / "checkpoint-8" for folder in (uninterrupted, killed)]
    constraints = [load_torch_file(path, "state.pt")["constraint"] for path in checkpoints]
    assert constraints[0] == constraints[1]
    assert constraints[0]["multiplier"]["costs"]
    roles = ("actor", "reward_critic", "cost_critic") if method == "ppo-lag" else ("actor",)
    for role in roles:
        weights = [load_torch_file(path, f"{role}.pt") for path in checkpoints]
        assert_equal_weights(*weights, rtol=0, atol=0)


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run_one_process(out, "grpo", steps=2)
    before = sorted(path.name for path in out.glob("checkpoint-*"))
    arguments = f"{WORKER} {out} grpo '{json.dumps({'steps': 4})}'"
    # Files of more than 40 KiB cannot be written; without the trap the process would be killed.
    script = f"trap '' XFSZ; ulimit -f 40; exec {sys.executable} -W ignore {arguments}"
    limited = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert limited.returncode != 0
    assert "the disk is full" in limited.stderr
    assert sorted(path.name for path in out.glob("checkpoint-*")) == before
    run_one_process(out, "grpo", steps=4)
    assert [row["step"] for row in log_rows(out)] == [1, 2, 3, 4]


@pytest.mark.parametrize("method", ["ppo-lag", "grpo"])
def test_two_processes_take_the_steps_of_one(tmp_path: Path, method: str) -> None:
    run_one_process(tmp_path / "one", method, steps=3)
    run_two_processes(tmp_path / "two", method, steps=3)
    first, second = (load_weights(tmp_path / "two", rank) for rank in (0, 1))
    assert_equal_weights(first, second, rtol=0, atol=0)
    assert_equal_weights(load_weights(tmp_path / "one"), first, rtol=1e-7, atol=1e-9)
    assert_equal_logs(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("method", ["ppo-lag", "grpo", "rloo"])
def test_processes_on_a_device_exchange_none_of_the_cpu(tmp_path: Path, method: str) -> None:
    """The backend of the device refuses tensors of the CPU, as NCCL does."""
    run_one_process(tmp_path / "one", method, steps=2, ptx=0.1)
    run_two_processes(tmp_path / "two", method, steps=2, ptx=0.1, stand_in=True)
    weights = [load_weights(tmp_path / name) for name in ("one", "two")]
    assert_equal_weights(*weights, rtol=1e-7, atol=1e-9)
    assert_equal_logs(tmp_path / "one", tmp_path / "two")


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("method", "lora"), [("ppo-lag", 0), ("grpo", 0), ("ppo-lag", 4)])
def test_sharded_processes_take_the_steps_of_one(tmp_path: Path, method: str, lora: int) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    # Each token and each batch gathers all layers of the sharded models: few of both.
    changes = {"lora": lora, "epochs": 1, "max_new": 4}
    run_one_process(one, method, steps=2, **changes)
    run_two_processes(two, method, steps=2, **changes, shard=True)
    assert_equal_weights(load_weights(one), load_weights(two), rtol=1e-7, atol=1e-9)
    assert_equal_logs(one, two)
    held = [json.loads((out / "held-0.json").read_text())["numbers"] for out in (one, two)]
    assert held[1] < (0.55 if not lora else 0.9) * held[0]
    # Checkpoints hold whole tensors, so that a run resumes with another number of processes.
    run_one_process(two, method, steps=3, **changes)
    run_two_processes(one, method, steps=3, **changes, shard=True)
    assert_equal_weights(load_weights(one), load_weights(two), rtol=1e-6, atol=1e-8)


def test_sharded_processes_in_single_precision(tmp_path: Path) -> None:
    """gloo reduces float32 in another way than float64."""
    run_one_process(tmp_path / "one", "ppo-lag", steps=2, single=True)
    run_two_processes(tmp_path / "two", "ppo-lag", steps=2, single=True, shard=True)
    weights = [load_weights(tmp_path / name) for name in ("one", "two")]
    assert_equal_weights(*weights, rtol=1e-2, atol=1e-3)


def test_two_ray_workers_take_the_steps_of_one(tmp_path: Path) -> None:
    require_package("ray")
    out, worker = str(tmp_path / "two"), str(WORKER)

    def train() -> None:
        runpy.run_path(worker)["train"](out, "ppo-lag", {"steps": 3})

    run_on_ray(train, workers=2, out=out)
    run_one_process(tmp_path / "one", "ppo-lag", steps=3)
    weights = load_weights(tmp_path / "one"), load_weights(tmp_path / "two", rank=1)
    assert_equal_weights(*weights, rtol=1e-7, atol=1e-9)


@pytest.mark.timeout(900)
def test_a_run_with_a_dead_ray_worker_resumes_from_the_checkpoint(tmp_path: Path) -> None:
    require_package("ray")
    out, worker, died = str(tmp_path / "two"), str(WORKER), str(tmp_path / "died")

    def train() -> None:
        train_task = runpy.run_path(worker)["train"]
        if not os.path.exists(died):
            train_task(out, "grpo", {"steps": 2})
            if int(os.environ.get("RANK", "0")) == 1:
                Path(died).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        train_task(out, "grpo", {"steps": 4})

    run_on_ray(train, workers=2, out=out, retries=2)
    assert Path(died).exists()
    assert [row["step"] for row in log_rows(tmp_path / "two")] == [1, 2, 3, 4]


def write_prompts(path: Path) -> None:
    prompts = ("ash bay", "bay ash log", "log kit", "kit jam")
    path.write_text("\n".join(json.dumps({"prompt": p, "id": p}) for p in prompts))


def grpo_flags(base: str, data: str, out: str, *, lora: int = 0) -> list[str]:
    options = {
        "--base": base,
        "--data": f"file:{data}",
        "--reward": "rules:refusal",
        "--out": out,
        "--steps": "2",
        "--prompts": "4",
        "--max-new": "4",
        "--max-prompt": "10",
        "--lora": str(lora),
        "--template": "plain",
        "--sample-every": "1",
        "--sample-data": f"file:{data}",
        "--sample-judge": "rules:degenerate",
        "--red-model": "a test",
    }
    return [*(word for option in options.items() for word in option), "--no-tensorboard"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("base_exists", [True, False])
def test_the_command_with_ray_workers_takes_relative_paths(
    tmp_path: Path, base_folder: Path, base_exists: bool
) -> None:
    """The driver trains nothing itself, whether the workers train or fail."""
    require_package("ray")
    shutil.copytree(base_folder, tmp_path / "base")
    write_prompts(tmp_path / "prompts.jsonl")
    base = "./base" if base_exists else "./gone"
    flags = grpo_flags(base, "prompts.jsonl", "runs/out")
    workers = ["--workers", "2", "--device", "cpu", "--json"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "truing", "train", "grpo", *flags, *workers],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    out = tmp_path / "runs" / "out"
    if not base_exists:
        assert done.returncode == 1
        assert "gone" in done.stderr and "Traceback" not in done.stderr
        assert not (out / "log.jsonl").exists()
        return
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout)
    assert result["folder"] == str(out) and result["done_now"] == 2 and result["finished"]
    assert (out / "truing.json").is_file() and len(log_rows(out)) == 2
    assert not list((out / "ray").glob("result-*"))


@pytest.mark.parametrize("lora", [0, 4])
def test_the_command_with_sharded_weights_exports_a_whole_model(
    tmp_path: Path, base_folder: Path, lora: int
) -> None:
    data, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    flags = grpo_flags(str(base_folder), str(data), str(out), lora=lora)
    command = ["-m", "truing", "train", "grpo", *flags, "--shard"]
    write_prompts(data)
    subprocess.run(
        [*two_process_launcher(), *command],
        check=True,
        timeout=TIMEOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    shapes = [
        {
            name: parameter.shape
            for name, parameter in load_causal_lm(
                str(folder), dtype="float32"
            ).model.named_parameters()
        }
        for folder in (out, base_folder)
    ]
    assert shapes[0] == shapes[1]
    assert (out / "samples" / "step-2" / "responses.jsonl").is_file()
    assert len(log_rows(out)) == 2
