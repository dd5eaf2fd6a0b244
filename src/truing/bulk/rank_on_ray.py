"""Ranks the items of a data set on a Ray cluster.

The workers return rows and store nothing; the driver writes them into an ordinary run folder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import GenericAlias
from typing import Any

import msgspec
from msgspec import Struct

from truing.bulk.ray_cluster import RayOptions, connect_ray
from truing.bulk.ray_shards import map_shards
from truing.bulk.remote_account import RemoteAccount, share_spec_budgets
from truing.core.batches import split_batches
from truing.core.errors import RunError, TruingError, UserError
from truing.core.protocols import Model
from truing.core.remote_calls import RemoteCalls
from truing.http.client import share_budgets
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


_MAX_FAULTS = 20


class RankingTask(Struct, frozen=True, kw_only=True):
    """What the workers are sent: the spec of the model, the method, and how to rank.

    `model_name` and `model_hash` are those of the driver's model: a worker whose model differs
    ranks nothing.
    """

    model: str
    model_name: str
    model_hash: str
    method: str
    options: RankingOptions


class RankingOutcome(Struct, frozen=True, kw_only=True):
    """What a worker returns of a shard: encoded rows, or why there are none."""

    rows: msgspec.Raw = msgspec.Raw(b"\x90")
    fault: str | None = None


class RankingWorker:
    """A `ShardWorker` that ranks items."""

    def __init__(
        self,
        task: RankingTask,
        reserve: Callable[[str], Awaitable[float]] | None,
        spec_budgets: RemoteCalls | None = None,
    ) -> None:
        self._task, self._reserve = task, reserve
        model: Model = resolve(task.model, "model")
        share_budgets(spec_budgets, model)
        if (model.name, model.lineage.hash) != (task.model_name, task.model_hash):
            raise UserError(
                f"{task.model} is another model here ({model.name}, {model.lineage.hash}) than "
                f"where the command runs ({task.model_name}, {task.model_hash})"
            )
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
            outcome = RankingOutcome(fault=str(error) or type(error).__name__)
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
    spec_budgets: RemoteAccount | None

    def __call__(self, reserve: Callable[[str], Awaitable[float]] | None) -> RankingWorker:
        return RankingWorker(self.task, reserve, self.spec_budgets)


@contextmanager
def open_ranking_workers(
    model: str, cluster: RayOptions, *, shard_items: int = DEFAULT_SHARD_ITEMS
) -> Iterator[MapItems]:
    """Yields what `rank_choices` and `rank_perplexity` take as `map_items`.

    `model` is a spec, which each worker resolves for itself; a worker ranks `shard_items` items at
    a time. Raises UserError for a cluster that is not there. Where shards fail, the rows of all
    others are yielded, then RunError is raised with the faults.
    """
    if shard_items < 1:
        raise UserError(f"--shard-items {shard_items}: give 1 or more")
    with connect_ray(cluster) as ray:
        spec_budgets = share_spec_budgets(ray, [model])

        def map_items(
            item_ranker: ItemRanker, items: Sequence[RankingItem]
        ) -> Iterator[list[RankedItem]]:
            build_worker = _BuildWorker(make_task(model, item_ranker), spec_budgets)
            shards = [msgspec.msgpack.encode(batch) for batch in split_batches(items, shard_items)]
            results = map_shards(ray, shards, build_worker, cluster)
            yield from decode_results(results, item_ranker.method)

        yield map_items


def make_task(model: str, item_ranker: ItemRanker) -> RankingTask:
    """Returns what workers need to do the work of an `ItemRanker`; `model` is its model's spec."""
    return RankingTask(
        model=model,
        model_name=item_ranker.model.name,
        model_hash=item_ranker.model.lineage.hash,
        method=item_ranker.method,
        options=item_ranker.options,
    )


def decode_results(results: Iterable[bytes], method: str) -> Iterator[list[RankedItem]]:
    """Yields the rows in workers' results; then raises RunError if some had a fault."""
    rows = GenericAlias(list, (ROW_TYPES[method],))
    faults: dict[str, int] = {}
    for result in results:
        outcome = msgspec.msgpack.decode(result, type=RankingOutcome)
        if outcome.fault is None:
            yield msgspec.msgpack.decode(outcome.rows, type=rows)
            continue
        faults[outcome.fault] = faults.get(outcome.fault, 0) + 1
        if sum(faults.values()) >= _MAX_FAULTS:
            break
    if faults:
        raise RunError(
            *(f"{fault} ({count} shards)" for fault, count in faults.items()),
            "the rows of all other shards are stored; the same command ranks what is missing",
        )
