"""Evaluates and judges the parts of a run on a Ray cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from truing.bulk.ray_cluster import RayOptions, connect_ray
from truing.bulk.ray_shards import map_shards
from truing.core.errors import RunError, TruingError
from truing.core.protocols import Attack, Dataset, Judge, Model
from truing.core.types import DataInfo
from truing.evaluation.evaluate import evaluate, judge_run
from truing.evaluation.options import DEFAULT_PART_ROWS, EvaluateOptions, ProgressCallback
from truing.evaluation.run_parts import (
    PartDataset,
    finish_parts,
    prepare_judging,
    prepare_parts,
)
from truing.http.limits import RESERVE_REQUEST
from truing.runs.folder import Run
from truing.specs.resolve import resolve

_MAX_FAULTS = 20


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


class PartOutcome(Struct, frozen=True, kw_only=True):
    """What a worker returns of a part; `fault` says why it is not finished."""

    part: str
    fault: str = ""


class EvaluationWorker:
    """A `ShardWorker` that answers and judges parts of a run."""

    def __init__(
        self, task: EvaluationTask, reserve: Callable[[str], Awaitable[float]] | None
    ) -> None:
        self._task, self._reserve = task, reserve
        specs = task.specs
        self._model: Model | None = resolve(specs.model, "model") if specs.model else None
        self._attack: Attack | None = resolve(specs.attack, "attack") if specs.attack else None
        self._judges: list[Judge] = [resolve(spec, "judge") for spec in specs.judges]

    def work(self, shard: bytes) -> bytes:
        """Returns the `PartOutcome` of the part with that name, as MessagePack."""
        part = shard.decode()
        RESERVE_REQUEST.set(self._reserve)
        fault = ""
        try:
            self._evaluate(Path(self._task.out) / "parts" / part)
        except TruingError as error:
            fault = str(error)
        except Exception as error:
            fault = f"{part}: {type(error).__name__}: {error}"
        return msgspec.msgpack.encode(PartOutcome(part=part, fault=fault))

    def _evaluate(self, part: Path) -> None:
        task = self._task
        if task.info is None:
            judge_run(part, self._judges, options=task.options)
            return
        dataset = PartDataset(task.info, task.sha256)
        evaluate(
            self._model, dataset, self._judges, part, attack=self._attack, options=task.options
        )


class _BuildWorker(Struct, frozen=True):
    task: EvaluationTask

    def __call__(self, reserve: Callable[[str], Awaitable[float]] | None) -> EvaluationWorker:
        return EvaluationWorker(self.task, reserve)


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
    with connect_ray(cluster) as ray:
        model = resolve(specs.model, "model") if specs.model else None
        attack = resolve(specs.attack, "attack") if specs.attack else None
        judges = [resolve(spec, "judge") for spec in specs.judges]
        prepared = prepare_parts(
            model, dataset, judges, out, attack=attack, options=options, part_rows=part_rows
        )
        task = EvaluationTask(
            out=str(out.resolve()),
            specs=specs,
            options=msgspec.structs.replace(options, progress=None),
            info=dataset.info,
            sha256=dataset.sha256(),
        )
        _work_on_parts(ray, prepared.parts, task, cluster, options.progress, prepared.rates)
    return finish_parts(out)


def judge_on_ray(
    out: Path, judge_specs: Sequence[str], cluster: RayOptions, *, options: EvaluateOptions
) -> Run:
    """Adds judges to a sharded run, like `judge_run`; raises like `evaluate_on_ray`."""
    with connect_ray(cluster) as ray:
        parts = prepare_judging(out, [resolve(spec, "judge") for spec in judge_specs])
        task = EvaluationTask(
            out=str(out.resolve()),
            specs=EvaluationSpecs(judges=tuple(judge_specs)),
            options=msgspec.structs.replace(options, progress=None),
        )
        _work_on_parts(ray, parts, task, cluster, options.progress, {})
    return finish_parts(out)


def _work_on_parts(
    ray: Any,
    parts: Sequence[str],
    task: EvaluationTask,
    cluster: RayOptions,
    progress: ProgressCallback | None,
    rates: dict[str, float],
) -> None:
    n_done = n_failed = 0
    faults: dict[str, str] = {}
    encoded = [part.encode() for part in parts]
    for result in map_shards(ray, encoded, _BuildWorker(task), cluster, rates):
        outcome = msgspec.msgpack.decode(result, type=PartOutcome)
        n_done += not outcome.fault
        if outcome.fault:
            n_failed += 1
            # Equal faults are named once, with the first of their parts.
            faults.setdefault(outcome.fault, outcome.part)
        if progress is not None:
            progress(n_done, len(parts), n_failed)
        if n_failed >= _MAX_FAULTS:
            break
    if faults:
        raise RunError(
            *(f"{part}: {fault}" for fault, part in faults.items()),
            f"{n_done} of {len(parts)} parts are finished; the same command continues",
        )
