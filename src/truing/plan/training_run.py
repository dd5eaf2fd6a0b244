"""Runs a training plan: its steps in order, then the evaluation and the report.

    result = run_training_plan(read_training_plan("plan.toml"), "runs/safe")

    OUT/sft-1f2e3d4c/ ...        the result of each step, by the hash of what decides it
    OUT/evaluation-5a6b7c8d/     run folders; OUT/report.{html,md,json}

The same call continues where an interrupted one, or a slice, ended. Finished steps are not
repeated, unless they were changed or build on a step that was.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import Struct

from truing.core.errors import PlanError, TruingError, UserError
from truing.core.lineage import digest
from truing.core.private_files import create_folder, replace_file
from truing.evaluation.options import ProgressCallback
from truing.plan.cost_limits import parse_constraint
from truing.plan.evaluation import Plan
from truing.plan.evaluation_run import PlanProgress, PlanProgressCallback, run_plan
from truing.plan.step_cache import (
    StepRecord,
    describe_step,
    evaluation_folder,
    find_earlier_record,
    step_folder,
    write_record,
)
from truing.plan.step_inputs import RLInputs, SampledInputs
from truing.plan.training_plan import (
    StepPlan,
    TrainingPlan,
    find_references,
    replace_references,
)
from truing.plan.training_steps import (
    SamplingProgress,
    StepOptions,
    spec_for_training,
    train_rl_step,
    train_sampled_step,
    train_supervised_step,
)
from truing.report.render import write_report
from truing.report.report_data import Ranking, ReportData
from truing.specs.extras import needs_extra
from truing.specs.parser import parse_spec
from truing.specs.resolve import RoleName, list_kinds, resolve

if TYPE_CHECKING:
    from truing.train.rl.settings import RLSettings
    from truing.train.settings import TrainingSettings
    from truing.train.step_loop import SliceLimit

StepStatus = Literal["finished", "unfinished", "new", "waiting"]
_MODELS_FILE = "models.json"
# These characters end a name in a spec, so the folder of a result, which specs name, has none.
_SPEC_CHARACTERS = ',"()='


class SliceEnded(TruingError):
    """The slice ended while answers were sampled; the stored ones are read by the next call."""


@dataclass(frozen=True)
class TrainingPlanOptions:
    """How a plan runs: the callbacks that show its progress, and where a slice of it ends.

    `tell` takes lines of text. `step_log` takes the name of a step and its number of steps, and
    returns a context manager of the step's log callback; `sampling_progress` takes a title.
    `evaluation_progress` and `rank` are the arguments of `run_plan`.
    """

    tell: Callable[[str], None] = lambda _: None
    step_log: Callable[[str, int | None], AbstractContextManager[Any]] = lambda *_: nullcontext()
    sampling_progress: SamplingProgress = lambda _: nullcontext()
    evaluation_progress: PlanProgressCallback | None = None
    rank: Callable[..., Ranking] | None = None
    limit: SliceLimit | None = None


class StepResult(Struct, frozen=True, kw_only=True):
    """The outcome of a step. `done_now` counts the optimiser steps or rollouts of this call."""

    name: str
    folder: str
    finished: bool
    done_now: int


class TrainingPlanResult(Struct, frozen=True, kw_only=True):
    """The outcome of a call; `finished` is False if the slice ended before the plan did.

    `report` maps the formats of the report to its paths.
    """

    steps: tuple[StepResult, ...]
    finished: bool
    report: dict[str, str] = {}


@dataclass
class FinishedSteps:
    """The finished steps: their folders, and the hashes of their weights, by name."""

    folders: dict[str, Path] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, folder: Path) -> None:
        """Adds a step; raises PlanError if its folder holds no finished model."""
        from truing.train.model_card import read_model_card

        card = read_model_card(folder)
        if card is None:
            raise PlanError(f"steps.{name}: {folder} holds no finished model")
        self.folders[name] = folder
        self.weights[name] = card.lineage.hash

    def locate(self, value: Any) -> Any:
        """Returns a value with references to steps replaced by their folders."""
        return replace_references(value, {name: str(path) for name, path in self.folders.items()})


class StepState(Struct, frozen=True, kw_only=True):
    """The state of a step before it runs.

    `status` is waiting if a step that it builds on is not finished; folder and record are unknown
    then. `changes` lists the differences from the newest earlier result.
    """

    status: StepStatus
    folder: Path | None = None
    record: StepRecord | None = None
    changes: tuple[str, ...] = ()


def run_training_plan(
    plan: TrainingPlan, out: str | Path, options: TrainingPlanOptions | None = None
) -> TrainingPlanResult:
    """Runs or continues a plan under `out`.

    Raises PlanError with the faults of all specs before the first step, and RunError if another
    process runs the plan.
    """
    options = options or TrainingPlanOptions()
    with needs_extra("truing train PLAN.toml", "train"):
        from truing.hf.pretrained import silence_transformers
        from truing.train.run_lock import lock_run_folder

    folder = Path(out)
    if set(str(folder)) & set(_SPEC_CHARACTERS):
        raise PlanError(f"--out {folder}: a path in a spec may hold none of {_SPEC_CHARACTERS}")
    silence_transformers()
    check_specs(plan)
    is_main = os.environ.get("RANK", "0") == "0"  # of `accelerate launch`
    with lock_run_folder(folder) if is_main else nullcontext():
        return _run_plan(plan, folder, options, is_main=is_main)


def _run_plan(
    plan: TrainingPlan, folder: Path, options: TrainingPlanOptions, *, is_main: bool
) -> TrainingPlanResult:
    from truing.train.step_loop import ends_in_any_process

    done = FinishedSteps()
    step_results: list[StepResult] = []
    for step in plan.steps.values():
        state = find_state(step, folder, done)
        step_result = _run_step(step, state, done, options)
        step_results.append(step_result)
        if not step_result.finished:
            options.tell(f"{step.name}: the slice ends here; the same command goes on")
            return TrainingPlanResult(steps=tuple(step_results), finished=False)
        done.add(step.name, Path(step_result.folder))
        gc.collect()  # the models of the step, before those of the next are loaded
        is_last = step.name == list(plan.steps)[-1]
        has_more = plan.evaluate is not None or not is_last
        if has_more and ends_in_any_process(options.limit, step.settings.device):
            options.tell(f"{step.name}: finished; the slice ends here, the same command goes on")
            return TrainingPlanResult(steps=tuple(step_results), finished=False)
    report: dict[str, str] = {}
    if plan.evaluate is not None and is_main:
        try:
            report = _evaluate(plan.evaluate, folder, done, options)
        except SliceEnded:
            options.tell("evaluation: the slice ends here; the same command goes on")
            return TrainingPlanResult(steps=tuple(step_results), finished=False)
    return TrainingPlanResult(steps=tuple(step_results), finished=True, report=report)


def _is_reached(options: TrainingPlanOptions) -> bool:
    return options.limit is not None and options.limit.is_reached


# -- steps


def find_state(step: StepPlan, out: Path, done: FinishedSteps) -> StepState:
    """Returns the state of a step: finished, unfinished, new, or waiting for another step."""
    from truing.train.checkpoint import latest_checkpoint, read_identity
    from truing.train.model_card import is_exported_as_set, read_model_card
    from truing.train.trainable_model import find_base_model

    if any(name not in done.weights for name in step.references):
        return StepState(status="waiting")
    base = find_base_model(done.locate(step.settings.base))
    record = describe_step(step, base.weights.sha256, done.weights, done.folders)
    folder = step_folder(out, step.name, record)
    card, newest = read_model_card(folder), latest_checkpoint(folder)
    steps_done = read_identity(newest).step if newest is not None else 0
    if card is None and not folder.is_dir():
        earlier = find_earlier_record(out, step.name, record)
        changes = tuple(earlier.differences(record)) if earlier is not None else ()
        return StepState(status="new", folder=folder, record=record, changes=changes)
    # The number of RL steps is not part of the hash: a finished run is continued to a larger one.
    more_steps = isinstance(step.inputs, RLInputs) and steps_done < (step.settings.steps or 0)
    is_finished = is_exported_as_set(card, step.settings.export_dtype) and not more_steps
    return StepState(
        status="finished" if is_finished else "unfinished", folder=folder, record=record
    )


def _run_step(
    step: StepPlan, state: StepState, done: FinishedSteps, options: TrainingPlanOptions
) -> StepResult:
    if state.folder is None or state.record is None:
        raise PlanError(f"steps.{step.name}: builds on a step that is not finished")
    if state.status == "finished":
        options.tell(f"{step.name}: finished already ({state.folder})")
        return StepResult(name=step.name, folder=str(state.folder), finished=True, done_now=0)
    if state.changes:
        changes = "; ".join(state.changes)
        options.tell(f"{step.name}: changed since it ran ({changes}); it runs again")
    verb = "goes on in" if state.status == "unfinished" else "trains into"
    options.tell(f"{step.name}: {step.kind} {verb} {state.folder}")
    write_record(state.folder, state.record)
    settings = msgspec.structs.replace(
        step.settings, out=str(state.folder), base=done.locate(step.settings.base)
    )
    with options.step_log(step.name, settings.steps) as on_log:
        step_options = StepOptions(
            on_log=on_log,
            sampling_progress=_limited_progress(options),
            limit=options.limit,
        )
        try:
            result = _train(step, settings, done, step_options)
        except SliceEnded:
            return StepResult(name=step.name, folder=str(state.folder), finished=False, done_now=0)
    return StepResult(
        name=step.name, folder=str(state.folder), finished=result.finished, done_now=result.done_now
    )


def _train(step: StepPlan, settings: Any, done: FinishedSteps, options: StepOptions) -> Any:
    """Trains a step and returns the result of its trainer."""
    inputs = done.locate(step.inputs)
    if isinstance(inputs, RLInputs):
        return train_rl_step(settings, inputs, options)
    if isinstance(inputs, SampledInputs):
        return train_sampled_step(step.kind, settings, inputs, options)
    return train_supervised_step(settings, inputs, options)


def _limited_progress(options: TrainingPlanOptions) -> SamplingProgress:
    """Returns a progress display of sampling that also ends the slice at its limit."""

    @contextmanager
    def show_progress(title: str) -> Any:
        with options.sampling_progress(title) as progress:
            yield _end_at_limit(progress, options.limit)

    return show_progress


def _end_at_limit(
    progress: ProgressCallback | None, limit: SliceLimit | None
) -> ProgressCallback | None:
    """Returns a progress callback that raises SliceEnded at the limit, after one sample or more."""
    if limit is None:
        return progress
    counts: list[int] = []  # the first is that of stored samples, or of the first new one

    def report_progress(done: int, total: int, failures: int) -> None:
        if progress is not None:
            progress(done, total, failures)
        counts.append(done)
        if done > counts[0] and done < total and limit.is_reached:
            raise SliceEnded(f"the slice ended after {done} of {total} samples")

    return report_progress


# -- the evaluation


def _evaluate(
    plan: Plan, plan_folder: Path, done: FinishedSteps, options: TrainingPlanOptions
) -> dict[str, str]:
    """Runs the evaluation plan on the results of the steps; returns the paths of the report.

    A model that is trained anew is measured again, and the runs of the others stay.
    """
    hashes = {name: f"{name}@{sha256}" for name, sha256 in done.weights.items()}
    recorded = replace_references(plan, hashes)
    folder = evaluation_folder(plan_folder, recorded)
    _set_outdated_runs_aside(folder, recorded.models, options.tell)
    options.tell(f"evaluation: {len(plan.models)} models on {len(plan.data)} data sets in {folder}")

    first_done: dict[tuple[str, str], int] = {}

    def report_progress(progress: PlanProgress) -> None:
        if options.evaluation_progress is not None:
            options.evaluation_progress(progress)
        first = first_done.setdefault((progress.variant, progress.data), progress.done)
        if first < progress.done < progress.total and _is_reached(options):
            raise SliceEnded("the slice ended in the evaluation")

    report: ReportData = run_plan(done.locate(plan), folder, report_progress, options.rank)
    return {name: str(path) for name, path in write_report(report, plan_folder).items()}


def _set_outdated_runs_aside(
    folder: Path, models: Mapping[str, str], tell: Callable[[str], None]
) -> None:
    """Moves the runs of models that have been trained anew to `superseded/`.

    `models` maps the names of the plan to specs with the hashes of weights; those of the last call
    are in `models.json`.
    """
    create_folder(folder)
    path = folder / _MODELS_FILE
    earlier: dict[str, str] = {}
    if path.is_file():
        earlier = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    for name, spec in earlier.items():
        runs = folder / name
        if models.get(name, spec) == spec or not runs.is_dir():
            continue
        target = folder / "superseded" / f"{name}-{digest(spec)[:8]}"
        create_folder(target.parent)
        shutil.rmtree(target, ignore_errors=True)
        runs.rename(target)
        tell(f"evaluation: {name} is another model now; its earlier runs are in {target}")
    replace_file(path, msgspec.json.encode({**earlier, **models}))


# -- faults of specs, before the first step


def check_specs(plan: TrainingPlan) -> None:
    """Resolves every spec that refers to no step; raises PlanError with the faults of all of them.

    Of a spec with a reference only grammar and kind are checked, since the folder may not exist
    yet.
    """
    faults: list[str] = []
    for step in plan.steps.values():
        where = f"steps.{step.name}"
        if not find_references(step.settings.base):
            _collect_faults(partial(_check_base, step.settings), f"{where}.base", faults)
        for key, role, specs in _step_specs(step):
            for spec in specs:
                _collect_faults(partial(_check_spec, spec, role), f"{where}.{key}", faults)
    if plan.evaluate is not None:
        for place, role, spec in _evaluation_specs(plan.evaluate):
            _collect_faults(partial(_check_spec, spec, role), f"evaluate.{place}", faults)
    if faults:
        raise PlanError(*dict.fromkeys(faults))


def _collect_faults(check: Callable[[], None], where: str, faults: list[str]) -> None:
    try:
        check()
    except UserError as error:
        faults += [f"{where}: {fault}" for fault in error.faults]


def _check_base(settings: TrainingSettings | RLSettings) -> None:
    from truing.train.trainable_model import find_base_model

    find_base_model(settings.base)


def _check_spec(spec: str, role: RoleName) -> None:
    if not find_references(spec):
        resolve(spec_for_training(spec) if role == "data" else spec, role)
        return
    parsed = parse_spec(replace_references(spec, {name: name for name in find_references(spec)}))
    if parsed.kind not in list_kinds(role):
        resolve(parsed, role)  # raises the error that names the nearest kind


def _step_specs(step: StepPlan) -> list[tuple[str, RoleName, tuple[str, ...]]]:
    """Returns (key, role, specs) of the inputs of a step."""
    inputs = step.inputs
    specs: list[tuple[str, RoleName, tuple[str, ...]]] = [("data", "data", inputs.data)]
    if isinstance(inputs, RLInputs):
        specs += [
            ("reward", "judge", inputs.reward),
            ("cost", "judge", inputs.cost),
            ("ptx_data", "data", inputs.ptx_data),
            ("cost_limit", "judge", _limit_specs(inputs)),
        ]
        if getattr(step.settings, "sample_every", 0):
            specs.append(("sample_data", "data", (inputs.sample_data,)))
            specs.append(("sample_judge", "judge", (inputs.sample_judge,)))
    elif isinstance(inputs, SampledInputs):
        judges = tuple(spec for spec in (inputs.by, inputs.ceiling) if spec)
        specs.append(("by", "judge", judges))
    else:
        specs.append(("test", "data", inputs.test))
    return specs


def _limit_specs(inputs: RLInputs) -> tuple[str, ...]:
    """Returns the cost specs of further constraints, without `length`, which is no judge."""
    costs = (str(parse_constraint(text)[1]) for text in inputs.cost_limit)
    return tuple(spec for spec in costs if spec != "length")


def _evaluation_specs(plan: Plan) -> list[tuple[str, RoleName, str]]:
    """Returns (key path, role, spec) of an evaluation."""
    specs: list[tuple[str, RoleName, str]] = [
        (f"models.{name}", "model", spec) for name, spec in plan.models.items()
    ]
    for name, data in plan.data.items():
        specs.append((f"data.{name}", "data", data.spec))
        if data.attack:
            specs.append((f"data.{name}.attack", "attack", data.attack))
        specs += [(f"data.{name}.judges", "judge", judge) for judge in data.judges]
    specs += [("run.judges", "judge", judge) for judge in plan.run.judges]
    return specs
