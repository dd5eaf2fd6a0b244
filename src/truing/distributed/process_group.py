"""Which process this is, and the few things that processes tell one another: scores, sums, gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


class World:
    """One process, or those of an initialised `torch.distributed` group (accelerate, torchrun, Ray Train).

    Every quantity of a step is a sum over all processes, so that two processes compute what one computes.
    """

    def __init__(self) -> None:
        on = dist.is_available() and dist.is_initialized()
        self.rank: int = dist.get_rank() if on else 0
        self.size: int = dist.get_world_size() if on else 1

    @property
    def first(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def mine(self, count: int) -> range:
        """The prompts of this process among `count`."""
        return range(self.rank, count, self.size)

    def gather(self, values: Tensor, index: Sequence[int], count: int) -> Tensor:
        """`[count, ...]` of all processes from `[b, ...]` of this one, each row put at its place."""
        whole = torch.zeros((count, *values.shape[1:]), dtype=torch.float64, device=values.device)
        whole[torch.as_tensor(list(index), device=values.device)] = values.double()
        return self.sum(whole)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Iterable[Any]) -> None:
        """Adds up gradients over processes, in one message a dtype; those of weights in pieces were added on the way."""
        if self.size == 1:
            return
        by_dtype: dict[torch.dtype, list[Tensor]] = {}
        for p in parameters:
            if not hasattr(p, "full_tensor") and (p.requires_grad or p.grad is not None):
                if p.grad is None:
                    p.grad = torch.zeros_like(p)
                by_dtype.setdefault(p.grad.dtype, []).append(p.grad)
        for grads in by_dtype.values():
            flat = torch.cat([g.reshape(-1) for g in grads])
            dist.all_reduce(flat)
            at = 0
            for g in grads:
                g.copy_(flat[at : at + g.numel()].view_as(g))
                at += g.numel()

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


class Pace:
    """Keeps processes at the same number of passes where a pass needs all of them: their weights are in pieces."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world

    def each(self, items: Iterable[T]) -> Iterator[T | None]:
        """The items, then None for every pass that another process still makes."""
        for item in items:
            self._any(True)
            yield item
        while self._any(False):
            yield None

    def _any(self, busy: bool) -> bool:
        return self.world is not None and bool(self.world.sum(torch.tensor(float(busy))) > 0)
