"""The process group of a run: rank, size, and the collectives that training needs."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from truing.core.errors import UserError

T = TypeVar("T")

# Elements of one message of gradients: 128 MiB in float32, so that the copy to send stays small.
_MESSAGE_ELEMENTS = 1 << 25


def as_float64(values: Tensor, device: torch.device | None = None) -> Tensor:
    """Returns values in float64 on a device (default: their own), or on the CPU if that is MPS.

    MPS has no float64. A run on it has one process, so no exchange needs the values there.
    """
    target = device or values.device
    return values.to("cpu" if target.type == "mps" else target).double()


class ProcessGroup:
    """The initialised `torch.distributed` group (accelerate, torchrun, Ray Train), or one process.

    Every quantity of a training step is a sum over all processes divided by a global count, so that
    two processes compute what one process computes. All collectives of training go through here:
    NCCL exchanges tensors of a GPU alone, and a tensor that the backend does not take is exchanged
    by a copy on the device that it does.
    """

    def __init__(self) -> None:
        initialized = dist.is_available() and dist.is_initialized()
        self.rank: int = dist.get_rank() if initialized else 0
        self.size: int = dist.get_world_size() if initialized else 1
        self._device_types = _exchanged_device_types() if self.size > 1 else ()

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files (rank 0)."""
        return self.rank == 0

    def local_indices(self, count: int) -> range:
        """Returns which of `count` items belong to this process (every size-th, from its rank)."""
        return range(self.rank, count, self.size)

    def gather_rows(self, values: Tensor, index: Sequence[int], count: int) -> Tensor:
        """Returns `[count, ...]` of all processes from the `[b, ...]` rows of this one, as float64.

        `index` holds the global position of each local row.
        """
        values = as_float64(values)
        gathered = values.new_zeros((count, *values.shape[1:]))
        gathered[torch.as_tensor(list(index), device=values.device)] = values
        # Each row is non-zero in one process only, so the sum puts the rows together. Unlike
        # all_gather this needs no equal number of rows per process.
        return self.all_reduce(gathered)

    def all_reduce(self, values: Tensor) -> Tensor:
        """Returns the sum over all processes; changes `values` in place, on whatever device."""
        if self.size == 1:
            return values
        if values.device.type in self._device_types:
            dist.all_reduce(values)
            return values
        copy = values.to(self._device_types[0])
        dist.all_reduce(copy)
        values.copy_(copy)
        return values

    def all_reduce_gradients(self, parameters: Iterable[Any]) -> None:
        """Sums the gradients over all processes, in messages of one dtype and bounded size."""
        if self.size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            # FSDP has already reduced the gradients of sharded parameters in the backward pass.
            if hasattr(parameter, "full_tensor"):
                continue
            if parameter.grad is None and not parameter.requires_grad:
                continue
            if parameter.grad is None:
                # Another process may have a gradient here; messages must have the same length.
                parameter.grad = torch.zeros_like(parameter)
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for same_dtype in by_dtype.values():
            for gradients in _split_by_size(same_dtype, _MESSAGE_ELEMENTS):
                flat = self.all_reduce(torch.cat([gradient.reshape(-1) for gradient in gradients]))
                sizes = [gradient.numel() for gradient in gradients]
                for gradient, summed in zip(gradients, flat.split(sizes)):
                    gradient.copy_(summed.view_as(gradient))

    def any_true(self, flag: bool) -> bool:
        """Returns whether the flag is set in any process; all must call."""
        return bool(self.all_reduce(torch.tensor(float(flag))) > 0)

    def share_text(self, text: str) -> str:
        """Returns the text of the first process; all must call."""
        if self.size == 1:
            return text
        # As numbers, by the one exchange that every backend has.
        lengths = torch.tensor(len(text.encode()) if self.is_main else 0)
        data = torch.zeros(int(self.all_reduce(lengths)), dtype=torch.int64)
        if self.is_main:
            data += torch.tensor(list(text.encode()))
        return bytes(self.all_reduce(data).tolist()).decode()

    def gather_texts(self, text: str) -> list[str]:
        """Returns the texts of all processes in the order of their ranks; all must call."""
        if self.size == 1:
            return [text]
        data = text.encode()
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(data)
        lengths = self.all_reduce(lengths)
        # Each byte is non-zero in one process only, so that the sum does not overflow.
        rows = torch.zeros(self.size, int(lengths.max()), dtype=torch.uint8)
        rows[self.rank, : len(data)] = torch.tensor(list(data), dtype=torch.uint8)
        rows = self.all_reduce(rows)
        return [bytes(row[: int(n)].tolist()).decode() for row, n in zip(rows, lengths)]

    def check_equal(self, parameters: Iterable[Tensor]) -> None:
        """Raises UserError unless each process holds the same values; all must call.

        Weights that no file holds (adapters, new heads) are drawn by each process with one seed.
        Parts of sharded parameters are not compared, for they differ.
        """
        if self.size == 1:
            return
        values_hash = hashlib.sha256()
        for parameter in parameters:
            if not hasattr(parameter, "full_tensor"):
                flat = parameter.detach().cpu().contiguous().reshape(-1)
                values_hash.update(flat.view(torch.uint8).numpy().tobytes())
        hashes = self.gather_texts(values_hash.hexdigest())
        different = [str(rank) for rank, text in enumerate(hashes) if text != hashes[0]]
        if different:
            raise UserError(
                f"the weights of process {', '.join(different)} differ from those of process 0 "
                "before the first step; start all processes with the same devices and versions"
            )

    def barrier(self) -> None:
        """Waits until all processes have reached this call."""
        if self.size > 1:
            dist.barrier()


def _split_by_size(tensors: Sequence[Tensor], elements: int) -> Iterator[list[Tensor]]:
    """Yields the tensors in lists of at most `elements` elements, or of one larger tensor."""
    part: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if part and size + tensor.numel() > elements:
            yield part
            part, size = [], 0
        part.append(tensor)
        size += tensor.numel()
    if part:
        yield part


def _exchanged_device_types() -> tuple[str, ...]:
    """Returns the types of devices whose tensors the default group exchanges, e.g. ("cuda",)."""
    # "cuda:nccl", or "cpu:gloo,cuda:nccl": one backend for each type of device.
    return tuple(entry.partition(":")[0] for entry in dist.get_backend_config().split(","))


@contextmanager
def launched_processes(device: torch.device) -> Iterator[ProcessGroup]:
    """Joins the processes that `accelerate launch` or `torchrun` started, if any.

    A group that the caller has initialised (Ray Train) is used and left as it is. `device` is the
    one of this process.
    """
    if device.type == "cuda" and device.index is not None:
        # Also for a group of the caller: NCCL's barrier runs on the current device. A process that
        # no launcher started has "cuda" alone, which is the current device.
        torch.cuda.set_device(device)
    launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not launched or not dist.is_available() or dist.is_initialized():
        yield ProcessGroup()
        return
    # gloo for the tensors of the CPU, which NCCL does not exchange.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        if device.type == "cuda":
            _check_own_gpus(_gpu_name(device))
        yield ProcessGroup()
        # No process may leave the group while another still has a message under way. Not after an
        # error: the others may never reach the barrier.
        dist.barrier()
    finally:
        dist.destroy_process_group()


def _gpu_name(device: torch.device) -> str:
    """Returns a name of the GPU that no other GPU of the run has: its UUID and the machine."""
    return f"GPU {torch.cuda.get_device_properties(device).uuid} of {socket.gethostname()}"


def _check_own_gpus(name: str) -> None:
    """Raises UserError if two processes of the group compute on one GPU; all must call.

    NCCL reports it at the first collective at best. The number of a GPU does not tell: each process
    may see its own GPU alone, as number 0.
    """
    names: list[str] = [""] * dist.get_world_size()
    dist.all_gather_object(names, name)
    shared = sorted({other for other in names if names.count(other) > 1})
    if shared:
        raise UserError(
            f"{names.count(shared[0])} processes share the {shared[0]}: start one process for each "
            f"GPU (--nproc_per_node {len(set(names))} on one machine)"
        )


class Lockstep:
    """Makes all processes take the same number of forward passes over sharded weights.

    With FSDP each forward pass is a collective: a process with fewer micro-batches than another
    has to take part in the remaining passes, or the others would wait for it for ever.
    Without a process group (weights are replicated) it changes nothing.
    """

    def __init__(self, processes: ProcessGroup | None = None) -> None:
        self.processes = processes

    def iterate(self, items: Iterable[T]) -> Iterator[T | None]:
        """Yields the items, then None for each pass that another process still makes."""
        for item in items:
            self._any_has_items(True)
            yield item
        while self._any_has_items(False):
            yield None

    def _any_has_items(self, has_items: bool) -> bool:
        if self.processes is None:
            return False
        return bool(self.processes.all_reduce(torch.tensor(float(has_items))) > 0)
