"""Moderates the shards of a job on a Ray cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec import Struct

from truing.bulk.input_shards import InputShard
from truing.bulk.moderation_job import (
    MAX_FAULTS,
    Manifest,
    ModerationJob,
    ShardOutcome,
    ShardRunner,
    begin_job,
    finish_job,
)
from truing.bulk.ray_cluster import RayOptions, connect_ray
from truing.bulk.ray_shards import map_shards
from truing.bulk.remote_account import RemoteAccount, share_spec_budgets
from truing.bulk.shard_store import ShardStore
from truing.core.errors import DataError
from truing.core.remote_calls import RemoteCalls
from truing.evaluation.options import ProgressCallback
from truing.http.client import share_budgets
from truing.http.limits import RESERVE_REQUEST
from truing.specs.resolve import resolve


class ModerationWorker:
    """A `ShardWorker` that judges rows; the judge is built from its spec in this process."""

    def __init__(
        self,
        job: ModerationJob,
        judge_spec: str,
        out: str,
        reserve: Callable[[str], Awaitable[float]] | None,
        spec_budgets: RemoteCalls | None = None,
    ) -> None:
        judge = resolve(judge_spec, "judge")
        share_budgets(spec_budgets, judge)
        self._runner = ShardRunner(job, judge, out)
        self._runner.run_in_loop(lambda: RESERVE_REQUEST.set(reserve))

    def work(self, shard: bytes) -> bytes:
        """Returns the `ShardOutcome` of an `InputShard`, both as MessagePack."""
        outcome = self._runner.run(msgspec.msgpack.decode(shard, type=InputShard))
        return msgspec.msgpack.encode(outcome)


class _BuildWorker(Struct, frozen=True):
    """Sent to the workers: builds the one of a process."""

    job: bytes
    judge_spec: str
    out: str
    spec_budgets: RemoteAccount | None

    def __call__(self, reserve: Callable[[str], Awaitable[float]] | None) -> ModerationWorker:
        job = msgspec.msgpack.decode(self.job, type=ModerationJob)
        return ModerationWorker(job, self.judge_spec, self.out, reserve, self.spec_budgets)


def moderate_on_ray(
    job: ModerationJob,
    shards: Sequence[InputShard],
    judge_spec: str,
    out: str,
    options: RayOptions,
    progress: ProgressCallback,
) -> tuple[Manifest, int]:
    """Judges the shards that are not finished; returns the manifest, and how many were finished.

    `progress` is called with shards, and with rows without a verdict. Raises DataError with the
    faults of the input once all other shards are done, or as soon as there are `MAX_FAULTS`;
    RunError if another command writes to `out`, which only a disk can tell.
    """
    store = ShardStore(out)
    with store.lock():
        return _moderate(job, shards, judge_spec, store, options, progress)


def _moderate(
    job: ModerationJob,
    shards: Sequence[InputShard],
    judge_spec: str,
    store: ShardStore,
    options: RayOptions,
    progress: ProgressCallback,
) -> tuple[Manifest, int]:
    commits = begin_job(store, job)
    n_before = len(commits)
    pending = [shard for shard in shards if shard.number not in commits]
    unscored = sum(commit.totals.unscored for commit in commits.values())
    progress(n_before, len(shards), unscored)
    faults: list[str] = []
    if pending:
        encoded = [msgspec.msgpack.encode(shard) for shard in pending]
        with connect_ray(options) as ray:
            spec_budgets = share_spec_budgets(ray, [judge_spec])
            encoded_job = msgspec.msgpack.encode(job)
            build_worker = _BuildWorker(encoded_job, judge_spec, store.url, spec_budgets)
            for result in map_shards(ray, encoded, build_worker, options):
                outcome = msgspec.msgpack.decode(result, type=ShardOutcome)
                faults += outcome.faults
                if outcome.commit is not None:
                    commits[outcome.shard] = outcome.commit
                    unscored += outcome.commit.totals.unscored
                    progress(len(commits), len(shards), unscored)
                if len(faults) >= MAX_FAULTS:
                    break
    if faults:
        rest = f"{len(commits)} of {len(shards)} shards are finished; the same command continues"
        raise DataError(*sorted(faults)[:MAX_FAULTS], rest)
    return finish_job(store, job, len(shards), commits), n_before
