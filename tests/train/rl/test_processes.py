"""What needs processes of its own: kill -9 and resume, a full disk, two processes equal one, two Ray workers, a dead
worker.
"""

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

torch = pytest.importorskip("torch")

from truing.train.checkpoint import load_torch_file  # noqa: E402
from truing.train.training_log import read_log  # noqa: E402

WORKER = Path(__file__).with_name("worker.py")
pytestmark = pytest.mark.slow


def alone(out: Path, method: str, **given: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(WORKER), str(out), method, json.dumps(given)],
        start_new_session=True,
    )


def two(out: Path, method: str, **given: Any) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--standalone",
        str(WORKER),
        str(out),
        method,
        json.dumps(given),
    ]
    subprocess.run(command, check=True, timeout=900, env={**os.environ, "OMP_NUM_THREADS": "1"})


def rows(out: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in r.items() if "seconds" not in k} for r in read_log(out)]


def same(a: dict[str, Any], b: dict[str, Any], **tolerance: float) -> None:
    assert a.keys() == b.keys()
    for key in a:
        torch.testing.assert_close(a[key], b[key], **tolerance)


@pytest.mark.parametrize("method", ["ppo-lag", "grpo"])
def test_a_killed_run_goes_on_to_the_same_next_step(tmp_path: Path, method: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert alone(whole, method, steps=8).wait(timeout=200) == 0
    for wanted in (2, 5):
        process = alone(cut, method, steps=8, slow=0.3)
        until = time.monotonic() + 200
        while len(rows(cut)) < wanted and time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert alone(cut, method, steps=8).wait(timeout=200) == 0
    assert rows(cut) == rows(whole) and len(rows(whole)) == 8
    states = [load_torch_file(p / "checkpoint-8", "state.pt") for p in (whole, cut)]
    assert (
        states[0]["constraint"] == states[1]["constraint"]
        and states[0]["constraint"]["multiplier"]["costs"]
    )
    for name in ("actor", "reward_critic", "cost_critic") if method == "ppo-lag" else ("actor",):
        same(
            load_torch_file(whole / "checkpoint-8", f"{name}.pt"),
            load_torch_file(cut / "checkpoint-8", f"{name}.pt"),
            rtol=0,
            atol=0,
        )


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert alone(out, "grpo", steps=2).wait(timeout=200) == 0
    kept = sorted(p.name for p in out.glob("checkpoint-*"))
    limited = f"ulimit -f 40; exec {sys.executable} -W ignore {WORKER} {out} grpo '{json.dumps({'steps': 4})}'"
    done = subprocess.run(
        ["bash", "-c", f"trap '' XFSZ; {limited}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode != 0 and "the disk is full" in done.stderr
    assert sorted(p.name for p in out.glob("checkpoint-*")) == kept
    assert alone(out, "grpo", steps=4).wait(timeout=200) == 0
    assert [r["step"] for r in rows(out)] == [1, 2, 3, 4]


@pytest.mark.parametrize("method", ["ppo-lag", "grpo"])
def test_two_processes_take_the_steps_of_one(tmp_path: Path, method: str) -> None:
    assert alone(tmp_path / "one", method, steps=3).wait(timeout=200) == 0
    two(tmp_path / "two", method, steps=3)
    one, a, b = (
        torch.load(tmp_path / n)
        for n in ("one/weights-0.pt", "two/weights-0.pt", "two/weights-1.pt")
    )
    same(a, b, rtol=0, atol=0)
    same(one, a, rtol=1e-7, atol=1e-9)
    for x, y in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert x.keys() == y.keys()
        assert all(
            x[k] == pytest.approx(y[k], rel=1e-6, abs=1e-9) for k in x if isinstance(x[k], float)
        ), (x, y)


@pytest.mark.parametrize(("method", "lora"), [("ppo-lag", 0), ("grpo", 0), ("ppo-lag", 4)])
def test_two_processes_with_weights_in_pieces_take_the_steps_of_one(
    tmp_path: Path, method: str, lora: int
) -> None:
    given = {"steps": 2, "lora": lora}
    assert alone(tmp_path / "one", method, **given).wait(timeout=200) == 0
    two(tmp_path / "two", method, **given, shard=True)
    one, a = (torch.load(tmp_path / n) for n in ("one/weights-0.pt", "two/weights-0.pt"))
    same(one, a, rtol=1e-7, atol=1e-9)
    for x, y in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert all(
            x[k] == pytest.approx(y[k], rel=1e-6, abs=1e-9) for k in x if isinstance(x[k], float)
        ), (x, y)
    held = [
        json.loads((tmp_path / n).read_text())["numbers"]
        for n in ("one/held-0.json", "two/held-0.json")
    ]
    assert held[1] < (0.55 if not lora else 0.9) * held[0]
    # the checkpoint holds whole tensors: one process goes on where two stopped, and two where one did
    assert alone(tmp_path / "two", method, **{**given, "steps": 3}).wait(timeout=200) == 0
    two(tmp_path / "one", method, **{**given, "steps": 3}, shard=True)
    ends = [torch.load(tmp_path / n) for n in ("one/weights-0.pt", "two/weights-0.pt")]
    same(*ends, rtol=1e-6, atol=1e-8)


def test_weights_in_pieces_in_single_precision(tmp_path: Path) -> None:
    """gloo adds float32 up in one way only, and float64 in another."""
    given = {"steps": 2, "single": True}
    assert alone(tmp_path / "one", "ppo-lag", **given).wait(timeout=200) == 0
    two(tmp_path / "two", "ppo-lag", **given, shard=True)
    same(
        *(torch.load(tmp_path / n) for n in ("one/weights-0.pt", "two/weights-0.pt")),
        rtol=1e-2,
        atol=1e-3,
    )


def test_two_ray_workers_take_the_steps_of_one(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    import importlib.util

    from truing.distributed.ray_launcher import on_ray

    spec = importlib.util.spec_from_file_location("rl_worker", WORKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    out, path = str(tmp_path / "two"), str(WORKER)

    def work() -> None:
        import runpy

        runpy.run_path(path)["work"](out, "ppo-lag", {"steps": 3})

    on_ray(work, workers=2, out=tmp_path / "two")
    assert alone(tmp_path / "one", "ppo-lag", steps=3).wait(timeout=200) == 0
    same(
        torch.load(tmp_path / "one" / "weights-0.pt"),
        torch.load(tmp_path / "two" / "weights-1.pt"),
        rtol=1e-7,
        atol=1e-9,
    )


def test_a_ray_worker_that_dies_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from truing.distributed.ray_launcher import on_ray

    out, path, flag = str(tmp_path / "two"), str(WORKER), str(tmp_path / "died")

    def work() -> None:
        import runpy

        module = runpy.run_path(path)
        if not os.path.exists(flag):
            module["work"](out, "grpo", {"steps": 2})
            if int(os.environ.get("RANK", "0")) == 1:
                Path(flag).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        module["work"](out, "grpo", {"steps": 4})

    on_ray(work, workers=2, out=tmp_path / "two", retries=2)
    assert Path(flag).exists()
    assert [r["step"] for r in rows(tmp_path / "two")] == [1, 2, 3, 4]


@pytest.mark.parametrize("lora", [0, 4])
def test_the_command_with_weights_in_pieces_leaves_a_whole_model(
    tmp_path: Path, task: Any, lora: int
) -> None:
    base, data, out = tmp_path / "base", tmp_path / "prompts.jsonl", tmp_path / "out"
    task.model(0).save_pretrained(base)
    task.tokenizer().save_pretrained(base)
    data.write_text(
        "\n".join(
            json.dumps({"prompt": p, "id": p})
            for p in ("ash bay", "bay ash log", "log kit", "kit jam")
        )
    )
    words = [
        "--base",
        str(base),
        "--data",
        f"file:{data}",
        "--reward",
        "rules:refusal",
        "--out",
        str(out),
        "--steps",
        "2",
        "--prompts",
        "4",
        "--max-new",
        "4",
        "--max-prompt",
        "10",
        "--lora",
        str(lora),
        "--template",
        "plain",
        "--no-tensorboard",
        "--shard",
        "--sample-every",
        "1",
        "--sample-data",
        f"file:{data}",
        "--sample-judge",
        "rules:degenerate",
        "--red-model",
        "a test",
    ]
    launch = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--standalone",
        "-m",
        "truing",
    ]
    subprocess.run(
        [*launch, "train", "grpo", *words],
        check=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    from truing.hf.loading import load_causal_lm

    made = dict(load_causal_lm(str(out), dtype="float32").model.named_parameters())
    first = dict(load_causal_lm(str(base), dtype="float32").model.named_parameters())
    assert {k: p.shape for k, p in made.items()} == {k: p.shape for k, p in first.items()}
    assert (out / "samples" / "step-2" / "responses.jsonl").is_file() and len(rows(out)) == 2
