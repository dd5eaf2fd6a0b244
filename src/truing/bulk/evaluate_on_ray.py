"""Evaluates and judges the parts of a run on a Ray cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from truing.bulk.part_attempts import count_attempt, forget_attempts
from truing.bulk.part_visits import BudgetedParts, PartFaults, PartOutcome, PartVisit
from truing.bulk.ray_cluster import RayOptions, connect_ray
from truing.bulk.ray_shards import map_shards
from truing.bulk.remote_account import (
    RemoteAccount,
    read_account,
    share_spec_budgets,
    start_counter,
)
from truing.core.errors import RunError, TruingError
from truing.core.protocols import Attack, Dataset, Judge, Model
from truing.core.remote_calls import RemoteCalls
from truing.core.types import DataInfo
from truing.evaluation.budget_waves import plan_waves
from truing.evaluation.evaluate import evaluate_part, judge_run
from truing.evaluation.options import (
    DEFAULT_PART_ROWS,
    EvaluateOptions,
    ProgressCallback,
    RunBudget,
)
from truing.evaluation.run_parts import (
    PartDataset,
    finish_parts,
    prepare_judging,
    prepare_parts,
)
from truing.evaluation.shared_account import (
    AccountVisit,
    PartPass,
    SpendingAccount,
)
from truing.evaluation.spending import read_lost
from truing.http.client import share_budgets
from truing.http.limits import RESERVE_REQUEST
from truing.runs.folder import Run
from truing.runs.parts import list_run_parts
from truing.runs.write_lock import acquire_write_lock
from truing.specs.resolve import resolve


class EvaluationSpecs(Struct, frozen=True, kw_only=True):
    """What workers build for themselves: the specs of the model, the judges and the attack."""

    model: str | None = None
    judges: tuple[str, ...] = ()
    attack: str | None = None


class EvaluationTask(Struct, frozen=True, kw_only=True):
    """What the workers of a run are sent; without a data set, only the judges work."""

    out: str
    specs: EvaluationSpecs
    options: EvaluateOptions
    info: DataInfo | None = None
    sha256: str = ""


class EvaluationWorker:
    """A `ShardWorker` that answers and judges parts of a run.

    `account` has the budget of the run, if there is one, `spec_budgets` those of the specs.
    """

    def __init__(
        self,
        task: EvaluationTask,
        reserve: Callable[[str], Awaitable[float]] | None,
        account: RemoteCalls | None = None,
        spec_budgets: RemoteCalls | None = None,
    ) -> None:
        self._task, self._reserve, self._account = task, reserve, account
        specs = task.specs
        self._model: Model | None = resolve(specs.model, "model") if specs.model else None
        self._attack: Attack | None = resolve(specs.attack, "attack") if specs.attack else None
        self._judges: list[Judge] = [resolve(spec, "judge") for spec in specs.judges]
        share_budgets(spec_budgets, self._model, self._attack, self._judges)

    def work(self, shard: bytes) -> bytes:
        """Returns the `PartOutcome` of a `PartVisit`, both as MessagePack."""
        visit = msgspec.msgpack.decode(shard, type=PartVisit)
        RESERVE_REQUEST.set(self._reserve)
        fault, unanswered = "", []
        try:
            with count_attempt(Path(self._task.out) / "parts" / visit.part):
                unanswered = self._evaluate(visit)
        except TruingError as error:
            fault = str(error)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"
        outcome = PartOutcome(part=visit.part, fault=fault, unanswered=unanswered)
        return msgspec.msgpack.encode(outcome)

    def _evaluate(self, visit: PartVisit) -> list[int]:
        task = self._task
        out = Path(task.out) / "parts" / visit.part
        if task.info is None:
            judge_run(out, self._judges, options=task.options)
            return []
        options = task.options
        if not visit.repeats_failures:
            options = msgspec.structs.replace(options, retry_failures=False)
        part_pass = None
        if visit.positions is not None:
            if self._account is None:
                raise RunError("there is no account of the run's budget")
            part_pass = PartPass(visit.positions, AccountVisit(self._account, visit.part))
        unanswered = evaluate_part(
            self._model,
            PartDataset(task.info, task.sha256),
            self._judges,
            out,
            attack=self._attack,
            options=options,
            part_pass=part_pass,
        )
        return unanswered if part_pass is not None else []


class _BuildWorker(Struct, frozen=True):
    task: EvaluationTask
    account: RemoteAccount | None
    spec_budgets: RemoteAccount | None

    def __call__(self, reserve: Callable[[str], Awaitable[float]] | None) -> EvaluationWorker:
        return EvaluationWorker(self.task, reserve, self.account, self.spec_budgets)


def evaluate_on_ray(
    specs: EvaluationSpecs,
    dataset: Dataset,
    out: Path,
    cluster: RayOptions,
    *,
    options: EvaluateOptions,
    part_rows: int = DEFAULT_PART_ROWS,
) -> Run:
    """Evaluates a model like `evaluate`, in parts that the workers of a cluster work on.

    The folder must be on a disk that all machines see. Raises like `evaluate`; RunError with the
    faults of parts that could not be finished, when all others are.
    """
    # First: what is wrong with the cluster is said before a large data set is written.
    with connect_ray(cluster) as ray, ExitStack() as locks:
        model = resolve(specs.model, "model") if specs.model else None
        attack = resolve(specs.attack, "attack") if specs.attack else None
        judges = [resolve(spec, "judge") for spec in specs.judges]
        is_new = list_run_parts(out) is None  # then there is no folder of parts to lock yet
        if not is_new:
            locks.enter_context(_lock_parts(out))
        prepared = prepare_parts(
            model, dataset, judges, out, attack=attack, options=options, part_rows=part_rows
        )
        if is_new:
            locks.enter_context(_lock_parts(out))
        task = EvaluationTask(
            out=str(out.resolve()),
            specs=specs,
            # The limits hold for all workers together, so that their account has them.
            options=msgspec.structs.replace(options, progress=None, budget=RunBudget()),
            info=dataset.info,
            sha256=dataset.sha256(),
        )
        forget_attempts(out, prepared.parts)
        note = ""
        cluster_parts = _ClusterParts(ray, task, cluster, prepared.rates)
        if options.budget.is_limited:
            actor = _start_account(ray, out, options)
            cluster_parts.account = RemoteAccount(actor)
            plan = plan_waves(out, prepared.parts, options, is_attacked=attack is not None)
            budgeted = BudgetedParts(out, prepared.parts, options, plan)
            note = budgeted.answer(cluster_parts.visit, lambda: read_account(ray, actor))
        else:
            _visit_all(cluster_parts, prepared.parts, options.progress)
        return finish_parts(out, budget_note=note, price=options.price)


def judge_on_ray(
    out: Path, judge_specs: Sequence[str], cluster: RayOptions, *, options: EvaluateOptions
) -> Run:
    """Adds judges to a sharded run, like `judge_run`; raises like `evaluate_on_ray`."""
    with connect_ray(cluster) as ray, ExitStack() as locks:
        if list_run_parts(out) is not None:
            locks.enter_context(_lock_parts(out))
        parts = prepare_judging(out, [resolve(spec, "judge") for spec in judge_specs])
        task = EvaluationTask(
            out=str(out.resolve()),
            specs=EvaluationSpecs(judges=tuple(judge_specs)),
            options=msgspec.structs.replace(options, progress=None),
        )
        forget_attempts(out, parts)
        _visit_all(_ClusterParts(ray, task, cluster, {}), parts, options.progress)
        return finish_parts(out)


def _lock_parts(out: Path) -> AbstractContextManager[object]:
    """Keeps other commands from the parts of a run, from before it is changed until it is finished:
    each would spend a whole budget.

    Raises RunError if another one works on them. The lock of the run itself is held only while its
    manifest is written.
    """
    return acquire_write_lock(out / "parts")


class _ClusterParts:
    """Sends visits to the workers of a cluster; with an `account`, under its budget."""

    def __init__(
        self, ray: Any, task: EvaluationTask, cluster: RayOptions, rates: dict[str, float]
    ) -> None:
        self._ray, self._task, self._cluster, self._rates = ray, task, cluster, rates
        self.account: RemoteAccount | None = None
        # For all waves: each has workers of its own.
        specs = task.specs
        all_specs = (specs.model, specs.attack, *specs.judges)
        self._spec_budgets = share_spec_budgets(ray, all_specs)

    def visit(self, visits: Sequence[PartVisit]) -> Iterator[PartOutcome]:
        """Yields the outcome of each visit as it arrives, in any order."""
        build_worker = _BuildWorker(self._task, self.account, self._spec_budgets)
        shards = [msgspec.msgpack.encode(visit) for visit in visits]
        for result in map_shards(self._ray, shards, build_worker, self._cluster, self._rates):
            yield msgspec.msgpack.decode(result, type=PartOutcome)


def _visit_all(
    cluster_parts: _ClusterParts, parts: Sequence[str], progress: ProgressCallback | None
) -> None:
    """Has all parts worked on; raises RunError with their faults."""
    faults = PartFaults()
    n_done = 0
    for outcome in faults.collect(cluster_parts.visit([PartVisit(part=part) for part in parts])):
        n_done += not outcome.fault
        if progress is not None:
            progress(n_done, len(parts), faults.count)
    faults.raise_any(f"{n_done} of {len(parts)} parts are finished")


def _start_account(ray: Any, out: Path, options: EvaluateOptions) -> Any:
    """Starts the process that counts what all workers spend."""
    sampling = options.sampling
    limits = options.budget, options.price, sampling.n * sampling.max_tokens
    return start_counter(ray, SpendingAccount, *limits, read_lost(Run(out).manifest))
