"""One process: collectives are the identity. Several processes: tests/train/rl/test_processes.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.distributed.processes import run_in_processes

from truing.core.errors import UserError
from truing.distributed import process_group
from truing.distributed.process_group import (
    Lockstep,
    ProcessGroup,
    as_float64,
    launched_processes,
)


class OtherProcessMakesPasses(ProcessGroup):
    """A group whose other process makes `passes` forward passes."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.passes_left = passes

    def all_reduce(self, values: Any) -> Any:
        self.passes_left -= 1
        return values + float(self.passes_left >= 0)


class TwoProcesses(ProcessGroup):
    """A group of two processes that hold the same values, without communication."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 2
        self._device_types = ("cpu",)


def test_one_process() -> None:
    group = ProcessGroup()
    assert (group.rank, group.size, group.is_main) == (0, 1, True)
    assert list(group.local_indices(3)) == [0, 1, 2]
    values = torch.tensor([1.0, 2.0])
    assert group.all_reduce(values) is values
    group.barrier()


@pytest.mark.parametrize(("name", "calls"), [("cpu", []), ("cuda", []), ("cuda:1", ["cuda:1"])])
def test_a_process_takes_the_gpu_that_its_device_names(
    name: str, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a launcher the device has no number, and torch refuses to set such a one."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    devices: list[str] = []

    def set_device(device: Any) -> None:
        torch.cuda._utils._get_device_index(device)  # raises as the real one without a number
        devices.append(str(device))

    monkeypatch.setattr(torch.cuda, "set_device", set_device)
    with launched_processes(torch.device(name)) as group:
        assert group.size == 1
    assert devices == calls


def test_two_processes_on_one_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["GPU a of left", "GPU b of left", "GPU a of left"]

    def all_gather_object(result: list[str], name: str) -> None:
        assert name == names[0]
        result[:] = names

    monkeypatch.setattr(process_group.dist, "get_world_size", lambda: len(names))
    monkeypatch.setattr(process_group.dist, "all_gather_object", all_gather_object)
    with pytest.raises(UserError, match=r"2 processes share the GPU a of left.*_per_node 2"):
        process_group._check_own_gpus(names[0])
    names[2] = "GPU a of right"  # the first GPU of another machine
    process_group._check_own_gpus(names[0])


def test_items_are_dealt_to_the_processes_in_turn() -> None:
    group = ProcessGroup()
    group.rank, group.size = 1, 3
    assert list(group.local_indices(7)) == [1, 4]


def test_gathered_rows_go_to_their_global_positions() -> None:
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    gathered = ProcessGroup().gather_rows(rows, [2, 0], 4)
    assert gathered.dtype == torch.float64
    assert gathered.tolist() == [[3.0, 4.0], [0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]


def test_gradients_are_summed_in_one_message_per_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[Any] = []

    def all_reduce(values: Any) -> None:
        messages.append((values.dtype, values.numel()))
        values.mul_(2)

    monkeypatch.setattr("truing.distributed.process_group.dist.all_reduce", all_reduce)
    matrix = torch.nn.Parameter(torch.zeros(2, 2))
    without_gradient = torch.nn.Parameter(torch.zeros(3))
    frozen = torch.nn.Parameter(torch.zeros(5), requires_grad=False)
    double = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    matrix.grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    double.grad = torch.tensor([7.0], dtype=torch.float64)

    TwoProcesses().all_reduce_gradients([matrix, without_gradient, frozen, double])

    assert messages == [(torch.float32, 7), (torch.float64, 1)]
    assert matrix.grad.tolist() == [[2.0, 4.0], [6.0, 8.0]]
    assert without_gradient.grad is not None
    assert without_gradient.grad.tolist() == [0.0, 0.0, 0.0]
    assert frozen.grad is None
    assert double.grad.tolist() == [14.0]


def test_lockstep_without_a_group_yields_the_items() -> None:
    assert list(Lockstep().iterate([1, 2])) == [1, 2]


def test_lockstep_yields_none_while_another_process_has_items() -> None:
    assert list(Lockstep(OtherProcessMakesPasses(3)).iterate([1])) == [1, None, None]


def test_float64_is_kept_off_a_device_without_it() -> None:
    values = torch.tensor([1, 2**40 + 1])
    for device in (None, torch.device("cpu"), torch.device("mps")):
        converted = as_float64(values, device)
        assert converted.dtype is torch.float64 and converted.device.type == "cpu"
        assert converted.tolist() == [1.0, 2.0**40 + 1]


def test_training_has_one_way_to_float64(root: Path) -> None:
    """`Tensor.double` fails on MPS; `as_float64` does not."""
    sources = [
        *(root / "src/truing/train").rglob("*.py"),
        *(root / "src/truing/distributed").glob("*.py"),
    ]
    calls = {path.name for path in sources if ".double()" in path.read_text()}
    assert calls == {"process_group.py"}


# One of two processes whose tensors are on a device, without a backend for the CPU.
ON_A_DEVICE = """
import sys
sys.path.insert(0, {root!r})
from tests.distributed import stand_in_device
stand_in_device.install()
import torch, torch.distributed as dist
from truing.distributed.process_group import Lockstep, ProcessGroup
from truing.train.rl.advantages import whiten_over_processes

dist.init_process_group("standin")
group = ProcessGroup()
try:
    dist.all_reduce(torch.ones(2))
except RuntimeError as error:
    assert "No backend type associated with device type cpu" in str(error)
else:
    raise AssertionError("the stand-in takes tensors of the CPU")
for device in ("cpu", "standin"):
    values = torch.tensor([1.0 + group.rank, 2.0], device=device)
    assert group.all_reduce(values) is values
    assert values.device.type == device and values.tolist() == [3.0, 4.0]
    rows = group.gather_rows(torch.tensor([[5.0 + group.rank]], device=device), [group.rank], 2)
    assert rows.device.type == device and rows.tolist() == [[5.0], [6.0]]
    parameter = torch.nn.Parameter(torch.zeros(2, device=device))
    parameter.grad = torch.ones(2, device=device)
    group.all_reduce_gradients([parameter])
    assert parameter.grad.tolist() == [2.0, 2.0]
    whitened = whiten_over_processes(
        torch.full((1, 2), 1.0 + group.rank, device=device), torch.ones(1, 2, device=device), group
    )
    assert abs(whitened.abs().sum().item() - 2 * 0.75**0.5) < 1e-6
assert group.any_true(group.rank == 1) and not group.any_true(False)
passes = list(Lockstep(group).iterate(range(1 + group.rank)))
assert passes == [[0, None], [0, 1]][group.rank]
group.barrier()
dist.destroy_process_group()
"""


def test_collectives_on_a_device_without_a_cpu_backend(tmp_path: Path, root: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(ON_A_DEVICE.format(root=str(root)))
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *launcher, str(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]


def check_weights(offset_of_rank_1: float, dtype: torch.dtype) -> str:
    processes = ProcessGroup()
    weights = [torch.arange(3, dtype=dtype), torch.ones((), dtype=dtype)]
    weights[1] += offset_of_rank_1 * processes.rank
    try:
        processes.check_equal(weights)
    except UserError as error:
        return str(error)
    return "equal"


def test_weights_that_differ_between_processes_are_refused() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert run_in_processes(check_weights, 2, 0.0, dtype) == ["equal", "equal"]
    messages = run_in_processes(check_weights, 2, 0.5, torch.float32)
    assert messages[0] == messages[1]
    assert "process 1 differ from those of process 0" in messages[0]


def test_collectives_are_called_in_one_module(root: Path) -> None:
    """Only there tensors are brought to a device that the backend exchanges."""
    collective = re.compile(r"\bdist(ributed)?\.(all_|reduce|broadcast|gather|scatter|barrier)")
    modules = {
        path.name
        for path in (root / "src/truing").rglob("*.py")
        if collective.search(path.read_text())
    }
    assert modules == {"process_group.py"}
