"""Checkpoints of parts: bit by bit in any number of processes, complete or absent, no pickles."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import run_in_processes
from tests.train.builders import make_settings
from tests.train.test_supervised import training_sets
from torch import nn

from truing.core.errors import RunError
from truing.distributed.process_group import ProcessGroup
from truing.train import checkpoint as ck
from truing.train import sharded_checkpoint
from truing.train.optimizer import build_adamw
from truing.train.sharded_checkpoint import (
    TrainedPart,
    is_sharded_checkpoint,
    load_whole_optimizer_state,
    read_sharded_tensors,
    write_sharded_checkpoint,
)
from truing.train.sharding import gather_tensors, shard_model
from truing.train.step_loop import SliceLimit
from truing.train.supervised import train_supervised
from truing.train.training_log import read_log

CPU = torch.device("cpu")
IDENTITY = ck.CheckpointIdentity(step=3, kind="sft", digest="d")


def make_part() -> TrainedPart:
    """Returns a network of which some tensors are smaller than the number of processes."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.ModuleList(nn.Linear(5, 5) for _ in range(3)), nn.Linear(5, 1))
    if ProcessGroup().size > 1:
        shard_model(network, ProcessGroup().size, CPU)
    parameters = dict(network.named_parameters())
    return TrainedPart(parameters, build_adamw(parameters.items(), lr=0.1))


def take_steps(part: TrainedPart, steps: int) -> None:
    """Takes steps with gradients that are functions of the whole weights alone."""
    for _ in range(steps):
        for parameter in part.parameters.values():
            parameter.grad = torch.cos(3 * parameter.detach())
        part.optimizer.step()


def whole_tensors(part: TrainedPart) -> dict[str, Any]:
    """Returns weights and moments as whole tensors."""
    tensors = {}
    for name, parameter in part.parameters.items():
        tensors[name] = gather_tensors(parameter.detach()).clone()
        for slot, value in part.optimizer.state[parameter].items():
            tensors[f"{name} {slot}"] = gather_tensors(value).clone()
    return tensors


def write_after_two_steps(out: str) -> dict[str, Any]:
    part = make_part()
    take_steps(part, 2)
    write_sharded_checkpoint(out, IDENTITY, {"model": part}, {"more": 7}, ProcessGroup())
    return whole_tensors(part)


def read_and_take_one_step(out: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the tensors as they were read, and after one more step."""
    part = make_part()
    folder = ck.latest_checkpoint(out)
    assert folder is not None and is_sharded_checkpoint(folder)
    state = ck.load_torch_file(folder, "state.pt")
    assert state["more"] == 7
    read_sharded_tensors(folder, {"model": part}, state["optimizer_scalars"])
    read = whole_tensors(part)
    take_steps(part, 1)
    return read, whole_tensors(part)


def assert_same_bits(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def test_any_number_of_processes_reads_the_same_bits(tmp_path: Path) -> None:
    out = str(tmp_path)
    written, also_written = run_in_processes(write_after_two_steps, 2, out)
    assert_same_bits(written, also_written)
    names = {path.name for path in (tmp_path / "checkpoint-3").rglob("*") if path.is_file()}
    assert {"mark.json", "state.pt"} < names and len(names) == 4
    assert all(name.endswith(".safetensors") for name in names - {"mark.json", "state.pt"})

    read, after = read_and_take_one_step(out)
    assert_same_bits(read, written)
    for read_by_three, after_by_three in run_in_processes(read_and_take_one_step, 3, out):
        assert_same_bits(read_by_three, written)
        assert_same_bits(after_by_three, after)


def test_one_process_writes_what_it_reads(tmp_path: Path) -> None:
    written = write_after_two_steps(str(tmp_path))
    read, _ = read_and_take_one_step(str(tmp_path))
    assert_same_bits(read, written)


def test_an_older_state_of_whole_tensors_is_read_by_number_or_by_name() -> None:
    part = make_part()
    take_steps(part, 2)
    state = part.optimizer.state_dict()
    grouped = [p for group in part.optimizer.param_groups for p in group["params"]]
    names = {id(parameter): name for name, parameter in part.parameters.items()}
    by_name = {
        "state": {names[id(p)]: state["state"][number] for number, p in enumerate(grouped)},
        "param_groups": [],
    }
    for stored in (state, by_name):
        other = make_part()
        load_whole_optimizer_state(other, stored)
        moments = whole_tensors(part).keys() - part.parameters.keys()
        expected, loaded = whole_tensors(part), whole_tensors(other)
        assert all(torch.equal(expected[name], loaded[name]) for name in moments)


def test_a_disk_that_is_full_leaves_the_checkpoint_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_after_two_steps(str(tmp_path))

    def save(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("torch.distributed.checkpoint.state_dict_saver.save", save)
    later = ck.CheckpointIdentity(step=4, kind="sft", digest="d")
    with pytest.raises(RunError, match=r"checkpoint-4: the disk is full"):
        write_sharded_checkpoint(tmp_path, later, {"model": make_part()}, {}, ProcessGroup())
    assert ck.latest_checkpoint(tmp_path) == tmp_path / "checkpoint-3"


@pytest.mark.parametrize("damage", ["cut short", "missing"])
def test_a_damaged_part_is_named(tmp_path: Path, damage: str) -> None:
    write_after_two_steps(str(tmp_path))
    (file,) = (tmp_path / "checkpoint-3" / sharded_checkpoint.SHARDS_FOLDER).iterdir()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(RunError, match=r"checkpoint-3/shards: cannot be read"):
        read_and_take_one_step(str(tmp_path))


def train(kind: str, out: str, base: str, steps: int | None, lora: int) -> bool:
    """Takes some steps of a sharded run, or all that are left; returns whether it is finished."""
    settings = make_settings(kind, out, base, shard=True, lora=lora, batch=4, micro=1)
    limit = SliceLimit(steps=steps) if steps else None
    return train_supervised(settings, training_sets(kind), limit=limit).finished


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "lora"), [("sft", 0), ("reward", 4), ("dpo", 0), ("cost", 0)])
@pytest.mark.parametrize("sizes", [(2, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(
    kind: str, lora: int, sizes: tuple[int, int], base: str, tmp_path: Path
) -> None:
    """The whole of a run: two steps by some processes, two by others, against one process."""
    one, mixed = str(tmp_path / "one"), str(tmp_path / "mixed")
    train(kind, one, base, None, lora)
    for size, steps in zip(sizes, (2, None)):
        finished = run_in_processes(train, size, kind, mixed, base, steps, lora)
        assert finished == [steps is None] * size
    logs = [
        [value for row in read_log(out) for value in (row["loss"], row["grad_norm"])]
        for out in (one, mixed)
    ]
    # float32; the parts of a sum are added in another order.
    assert logs[1] == pytest.approx(logs[0], rel=1e-3)
    assert (Path(mixed) / "model.safetensors").is_file()
    assert is_sharded_checkpoint(Path(mixed) / "checkpoint-2") == (sizes[0] == 2)
