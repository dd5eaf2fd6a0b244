"""Ranks the items of a data set on a Ray cluster; the run folder is that of one process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from types import GenericAlias
from typing import Any

import msgspec
from msgspec import Struct

from truing.bulk.ray_cluster import RayOptions, connect_ray
from truing.bulk.ray_shards import map_shards
from truing.core.batches import split_batches
from truing.core.errors import RunError, TruingError, UserError
from truing.core.protocols import Model
from truing.http.limits import RESERVE_REQUEST, close_connections
from truing.rankers import RankingOptions
from truing.rankers.item_ranking import (
    ITEM_TYPES,
    ROW_TYPES,
    ItemRanker,
    MapItems,
    RankedItem,
    RankingItem,
)
from truing.rankers.text_likelihood import map_in_batches
from truing.specs.resolve import resolve

DEFAULT_SHARD_ITEMS = 64


class RankingTask(Struct, frozen=True, kw_only=True):
    """What the workers are sent: the spec of the model, the method, and how to rank."""

    model: str
    method: str
    options: RankingOptions


class RankingOutcome(Struct, frozen=True, kw_only=True):
    """What a worker returns of a shard: encoded rows, or why there are none."""

    rows: msgspec.Raw = msgspec.Raw(b"\x90")
    fault: str = ""


class RankingWorker:
    """A `ShardWorker` that ranks items."""

    def __init__(
        self, task: RankingTask, reserve: Callable[[str], Awaitable[float]] | None
    ) -> None:
        self._task, self._reserve = task, reserve
        model: Model = resolve(task.model, "model")
        self._ranker = ItemRanker(model, task.method, task.options)
        items = GenericAlias(list, (ITEM_TYPES[task.method],))
        self._decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(items)

    def work(self, shard: bytes) -> bytes:
        """Returns the `RankingOutcome` of encoded items, as MessagePack."""
        RESERVE_REQUEST.set(self._reserve)
        try:
            rows = asyncio.run(self._rank(self._decoder.decode(shard)))
            outcome = RankingOutcome(rows=msgspec.Raw(msgspec.msgpack.encode(rows)))
        except TruingError as error:
            outcome = RankingOutcome(fault=str(error))
        except Exception as error:
            outcome = RankingOutcome(fault=f"{type(error).__name__}: {error}")
        return msgspec.msgpack.encode(outcome)

    async def _rank(self, items: Sequence[RankingItem]) -> list[RankedItem]:
        try:
            together = self._task.options.together
            return await map_in_batches(items, self._ranker.rank, together=together)
        finally:
            await close_connections()


class _BuildWorker(Struct, frozen=True):
    task: RankingTask

    def __call__(self, reserve: Callable[[str], Awaitable[float]] | None) -> RankingWorker:
        return RankingWorker(self.task, reserve)


@contextmanager
def rank_on_ray(
    model: str,
    options: RankingOptions,
    cluster: RayOptions,
    *,
    shard_items: int = DEFAULT_SHARD_ITEMS,
) -> Iterator[MapItems]:
    """Yields what `rank_choices` and `rank_perplexity` take as `map_items`.

    `model` is a spec, which each worker resolves for itself; a worker ranks `shard_items` items at
    a time. The rows arrive in any order; the same command ranks what is missing. Raises UserError
    for a cluster that is not there; what is ranked raises RunError where a worker cannot rank.
    """
    if shard_items < 1:
        raise UserError(f"--shard-items {shard_items}: give 1 or more")
    with connect_ray(cluster) as ray:

        def map_items(method: str, items: Sequence[RankingItem]) -> Iterator[list[RankedItem]]:
            build_worker = _BuildWorker(RankingTask(model=model, method=method, options=options))
            shards = [msgspec.msgpack.encode(batch) for batch in split_batches(items, shard_items)]
            for result in map_shards(ray, shards, build_worker, cluster):
                yield read_outcome(result, method)

        yield map_items


def read_outcome(result: bytes, method: str) -> list[RankedItem]:
    """Returns the rows in a worker's result; raises RunError with its fault."""
    outcome = msgspec.msgpack.decode(result, type=RankingOutcome)
    if outcome.fault:
        raise RunError(f"{outcome.fault}; finished rows are stored, and the same command continues")
    rows = GenericAlias(list, (ROW_TYPES[method],))
    decoded: list[RankedItem] = msgspec.msgpack.decode(outcome.rows, type=rows)
    return decoded
