"""Checkpoints are complete or absent, restore the random generators, and belong to one run."""

from __future__ import annotations

import errno
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from truing.core.errors import PlanError, RunError
from truing.train import checkpoint as ck

IDENTITY = ck.CheckpointIdentity(step=3, kind="dpo", digest="d", base_sha256="b" * 64)


def identity_at(step: int) -> ck.CheckpointIdentity:
    return ck.CheckpointIdentity(step=step, kind="dpo", digest="d")


def test_a_checkpoint_restores_tensors_plain_values_and_generators(tmp_path: Path) -> None:
    ck.seed_all(7)
    state = {"w": torch.arange(3.0), "lambda": 0.25, "rng": ck.rng_state()}
    expected = (random.random(), float(np.random.rand()), float(torch.rand(())))
    path = ck.write_checkpoint(tmp_path, IDENTITY, {"state.pt": ck.torch_writer(state)})
    assert ck.latest_checkpoint(tmp_path) == path == tmp_path / "checkpoint-3"
    loaded = ck.load_torch_file(path, "state.pt")
    ck.seed_all(99)
    ck.set_rng_state(loaded["rng"])
    assert (random.random(), float(np.random.rand()), float(torch.rand(()))) == expected
    assert loaded["w"].tolist() == [0, 1, 2] and loaded["lambda"] == 0.25


def test_the_newest_checkpoints_are_kept_and_sorted_by_number(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        ck.write_checkpoint(tmp_path, identity_at(step), {}, keep=2)
    names = [path.name for path in ck.list_checkpoints(tmp_path)]
    assert names == ["checkpoint-10", "checkpoint-11"]


def test_an_incomplete_checkpoint_is_not_listed(tmp_path: Path) -> None:
    ck.write_checkpoint(tmp_path, IDENTITY, {})

    def fail_on_full_disk(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match="disk is full"):
        ck.write_checkpoint(tmp_path, identity_at(4), {"state.pt": fail_on_full_disk})
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-3"]
    (tmp_path / "checkpoint-9").mkdir()  # without mark.json it is not complete
    assert ck.latest_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


@pytest.mark.parametrize(
    ("error", "is_full"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("[enforce fail] . unexpected pos 64 vs 0"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
    ],
)
def test_a_full_disk_is_told_from_other_write_errors(error: Any, is_full: bool) -> None:
    text = str(ck.describe_write_error(Path("out"), error))
    assert ("the disk is full" in text) == is_full
    assert "the same command resumes" in text


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"kind": "kto"}, "belongs to a dpo run"),
        ({"base_sha256": "c" * 64}, "another base"),
        ({"digest": "e"}, "other settings"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, changed: dict[str, str], reason: str
) -> None:
    path = ck.write_checkpoint(tmp_path, IDENTITY, {})
    assert ck.check_identity(path, IDENTITY) == IDENTITY
    fields: dict[str, Any] = {"step": 1, "kind": "dpo", "digest": "d", "base_sha256": "b" * 64}
    with pytest.raises(PlanError, match=reason):
        ck.check_identity(path, ck.CheckpointIdentity(**(fields | changed)))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    writer = ck.torch_writer({"w": torch.ones(2)})
    path = ck.write_checkpoint(tmp_path, IDENTITY, {"state.pt": writer})
    (path / "state.pt").write_bytes(b"no zip")
    with pytest.raises(RunError, match=r"state\.pt: cannot be read"):
        ck.load_torch_file(path, "state.pt")
    (path / "mark.json").write_bytes(b"{")
    with pytest.raises(RunError, match=r"mark\.json"):
        ck.read_identity(path)
