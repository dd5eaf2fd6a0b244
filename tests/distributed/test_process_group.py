"""One process: collectives are the identity. Several processes: tests/train/rl/test_processes.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from truing.distributed.process_group import Lockstep, ProcessGroup, as_float64  # noqa: E402


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


def test_one_process() -> None:
    group = ProcessGroup()
    assert (group.rank, group.size, group.is_main) == (0, 1, True)
    assert list(group.local_indices(3)) == [0, 1, 2]
    values = torch.tensor([1.0, 2.0])
    assert group.all_reduce(values) is values
    group.barrier()


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
