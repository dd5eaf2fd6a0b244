"""Checkpoints and logs: whole or not at all, the same after a resume, refused where they are of another run."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from truing.core.errors import PlanError, RunError
from truing.train import checkpoint as ck
from truing.train.optimizer import build_adamw, clip_gradients, learning_rate
from truing.train.training_log import TrainingLog, read_last_step, read_log

MARK = ck.CheckpointIdentity(step=3, kind="dpo", digest="d", base_sha256="b" * 64)


def test_a_checkpoint_holds_tensors_plain_values_and_the_generators(tmp_path: Path) -> None:
    ck.seed_all(7)
    state = {"w": torch.arange(3.0), "lambda": 0.25, "rng": ck.rng_state()}
    expected = (random.random(), float(np.random.rand()), float(torch.rand(())))
    path = ck.write_checkpoint(tmp_path, MARK, {"state.pt": ck.torch_writer(state)})
    assert ck.latest_checkpoint(tmp_path) == path == tmp_path / "checkpoint-3"
    got = ck.load_torch_file(path, "state.pt")
    ck.seed_all(99)
    ck.set_rng_state(got["rng"])
    assert (random.random(), float(np.random.rand()), float(torch.rand(()))) == expected
    assert got["w"].tolist() == [0, 1, 2] and got["lambda"] == 0.25


def test_only_the_newest_are_kept_in_order_of_their_number(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        ck.write_checkpoint(
            tmp_path, ck.CheckpointIdentity(step=step, kind="sft", digest="d"), {}, keep=2
        )
    assert [p.name for p in ck.list_checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-11"]


def test_a_half_written_one_is_not_there(tmp_path: Path) -> None:
    ck.write_checkpoint(tmp_path, MARK, {})

    def full(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match="disk is full"):
        ck.write_checkpoint(
            tmp_path, ck.CheckpointIdentity(step=4, kind="dpo", digest="d"), {"state.pt": full}
        )
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-3"]
    (tmp_path / "checkpoint-9").mkdir()  # a folder without a mark is none
    assert ck.latest_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"kind": "kto"}, "is of a dpo run"),
        ({"base_sha256": "c" * 64}, "another base"),
        ({"digest": "e"}, "other settings"),
    ],
)
def test_of_another_run(tmp_path: Path, other: dict[str, str], word: str) -> None:
    path = ck.write_checkpoint(tmp_path, MARK, {})
    assert ck.check_identity(path, MARK) == MARK
    wanted = ck.CheckpointIdentity(
        **({"step": 1, "kind": "dpo", "digest": "d", "base_sha256": "b" * 64} | other)
    )
    with pytest.raises(PlanError, match=word):
        ck.check_identity(path, wanted)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    path = ck.write_checkpoint(tmp_path, MARK, {"state.pt": ck.torch_writer({"w": torch.ones(2)})})
    (path / "state.pt").write_bytes(b"no zip")
    with pytest.raises(RunError, match=r"state\.pt: cannot be read"):
        ck.load_torch_file(path, "state.pt")


def test_the_log_has_every_step_once(tmp_path: Path) -> None:
    heard: list[dict[str, object]] = []
    log = TrainingLog(tmp_path, tell=heard.append)
    for step in (1, 2, 3):
        log.write(step, {"loss": 1 / step, "bad": float("nan"), "none": None})
    log.close()
    with (tmp_path / "log.jsonl").open("ab") as stream:
        stream.write(b'{"step":4,"lo')
    again = TrainingLog(tmp_path, first=3, tensorboard=False)  # the checkpoint was of step 2
    again.write(3, {"loss": 9.0})
    again.close()
    rows = list(read_log(tmp_path))
    assert (
        [r["step"] for r in rows] == [1, 2, 3]
        and rows[2]["loss"] == 9.0
        and rows[0]["bad"] == "nan"
    )
    assert read_last_step(tmp_path) == 3 and len(heard) == 3
    assert rows[2]["seconds"] >= rows[1]["seconds"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(tmp_path / "tb"))
    seen.Reload()
    assert [s.step for s in seen.Scalars("loss")] == [1, 2, 3]


def test_rates() -> None:
    kind = {"lr": 1.0, "warmup": 0.2}
    assert [round(learning_rate(s, 10, schedule="linear", **kind), 4) for s in (1, 2, 3, 10)] == [
        0.5,
        1.0,
        1.0,
        0.125,
    ]
    assert learning_rate(10, 10, schedule="constant", **kind) == 1.0
    assert (
        learning_rate(3, 10, schedule="cosine", **kind) == 1.0
        and learning_rate(10, 10, schedule="cosine", **kind) < 0.05
    )
    assert learning_rate(1, 10, lr=1.0, warmup=0.0) == 1.0


def test_biases_are_not_decayed_and_clipping_tells_the_norm() -> None:
    layer = torch.nn.Linear(2, 2)
    groups = build_adamw(layer.named_parameters(), lr=0.1, weight_decay=0.5).param_groups
    assert [(len(g["params"]), g["weight_decay"]) for g in groups] == [(1, 0.5), (1, 0.0)]
    layer.weight.grad = torch.full((2, 2), 2.0)
    assert clip_gradients(layer.parameters(), 1.0) == pytest.approx(4.0)
    assert float(layer.weight.grad.norm()) == pytest.approx(1.0, abs=1e-5)
    layer.weight.grad = torch.full((2, 2), float("nan"))
    assert clip_gradients(layer.parameters(), 1.0) != clip_gradients(layer.parameters(), 1.0)
