"""What the commands of supervised training share: flags, progress, the result."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from truing.cli.settings_flags import fields_of, flags_of, setting_values
from truing.cli.tables import print_json, print_next_steps, print_text
from truing.plan.step_inputs import SupervisedInputs
from truing.specs.extras import needs_extra
from truing.train.settings import TrainingSettings

if TYPE_CHECKING:
    from truing.plan.training_steps import StepOptions
    from truing.train.rl.run import RLResult
    from truing.train.rl.settings import RLSettings
    from truing.train.settings import TrainingKind
    from truing.train.step_loop import SliceLimit
    from truing.train.supervised import TrainingResult


# Settings that only some kinds of training have; their commands declare them.
_OF_ONE_KIND = (
    "turns",
    "loss",
    "beta",
    "label_smoothing",
    "sft_weight",
    "target_margin",
    "desirable_weight",
    "undesirable_weight",
    "level",
    "regularization",
    "center",
    "temperature",
    "teacher",
    "benign",
)


_COMMON = (
    "base",
    "steps",
    "epochs",
    "batch",
    "lr",
    "max_length",
    "lora",
    "device",
    "seed",
    "limit",
)


@dataclass(frozen=True)
class SliceFlags:
    """How much of a run one command does."""

    max_steps: Annotated[
        int | None,
        Parameter(help="End this slice of the run after so many steps; the same command goes on."),
    ] = None
    max_minutes: Annotated[
        float | None, Parameter(help="End this slice of the run after so many minutes.")
    ] = None


@dataclass(frozen=True)
class PlannedSliceFlags(SliceFlags):
    """A slice of a run whose memory can be predicted."""

    plan_memory: Annotated[
        bool,
        Parameter(help="Print the predicted memory of the run; train nothing.", negative=""),
    ] = False


@flags_of(
    fields_of(TrainingSettings, without=("kind", "out", *_OF_ONE_KIND)),
    fields_of(SupervisedInputs, without=("data", "chosen", "test")),
    common=_COMMON,
)
class TrainingFlags(PlannedSliceFlags):
    """How to train: the settings and inputs that every kind of supervised training has."""


GOES_ON = "the same command goes on"


@dataclass(frozen=True)
class TrainingJob:
    """What every supervised command gets: kind of training, data specs, output folder, flags."""

    kind: TrainingKind
    data: list[str]
    out: Path
    flags: TrainingFlags | None
    json: bool

    def data_inputs(self) -> dict[str, Any]:
        """Returns the inputs that every kind of training has, by name."""
        from truing.plan.step_inputs import DataInputs

        return {
            "data": tuple(self.data),
            **setting_values(self.flags or TrainingFlags(), DataInputs),
        }


def settings_from_flags(job: TrainingJob, kind_settings: dict[str, Any]) -> TrainingSettings:
    """Returns the checked settings of a job; `kind_settings` are those of its kind of training."""
    fields = setting_values(job.flags or TrainingFlags(), TrainingSettings)
    settings = TrainingSettings(kind=job.kind, out=str(job.out), **fields, **kind_settings)
    return settings.checked()


def run_training(
    job: TrainingJob,
    kind_settings: dict[str, Any],
    *,
    chosen: bool = False,
    test: list[str] | None = None,
) -> int:
    """Reads the data, trains, prints the result and returns exit status 0.

    `kind_settings` are the settings of this kind of training, `chosen` takes the preferred answers
    of pairs as targets, `test` are specs of sets to measure on.
    """
    from truing.plan.training_steps import train_supervised_step

    fields = setting_values(job.flags or TrainingFlags(), SupervisedInputs)
    inputs = SupervisedInputs(data=tuple(job.data), chosen=chosen, test=tuple(test or ()), **fields)
    settings = settings_from_flags(job, kind_settings)
    return show_training(job, settings, partial(train_supervised_step, settings, inputs))


def show_training(
    job: TrainingJob,
    settings: TrainingSettings,
    train: Callable[[StepOptions], TrainingResult],
) -> int:
    """Trains with progress bars, prints the result and returns exit status 0."""
    from truing.cli.progress import ProgressBar
    from truing.plan.training_steps import StepOptions

    flags = job.flags or TrainingFlags()
    if flags.plan_memory:
        return print_memory_plan(settings, as_json=job.json)
    with needs_extra("truing train", "train"):
        from truing.hf.pretrained import silence_transformers
    silence_transformers()
    quiet = job.json or not is_first_process()
    with ProgressBar(job.kind, quiet=quiet) as progress:

        def show_step(row: dict[str, Any]) -> None:
            progress(int(row["step"]), int(row.get("steps", 0)), 0)

        result = train(
            StepOptions(
                on_log=show_step,
                sampling_progress=lambda title: ProgressBar(title, quiet=quiet),
                limit=make_slice_limit(flags.max_steps, flags.max_minutes),
            )
        )
    if is_first_process():
        judge_kind = settings.kind if settings.scalar else "local"
        _print_result(result, judge_kind, as_json=job.json)
    return 0


def is_first_process() -> bool:
    """Whether this process prints: under `accelerate launch` each of them runs the command."""
    return os.environ.get("RANK", "0") == "0"


def print_memory_plan(settings: TrainingSettings | RLSettings, *, as_json: bool) -> int:
    """Prints the predicted memory of a run by its parts; returns exit status 0."""
    with needs_extra("truing train --plan-memory", "train"):
        from truing.hf.loading import select_device
        from truing.train.memory_plan import plan_memory
        from truing.train.trainable_model import find_base_model

    base = find_base_model(settings.base)
    plan = plan_memory(settings, base.weights, select_device(settings.device))
    parts = {name: getattr(plan, name) for name in plan.__struct_fields__}
    if as_json:
        fields = {**parts, "step": plan.step, "total": plan.total}
        print_json(msgspec.json.encode(fields))
        return 0
    for name, size in parts.items():
        print_text(f"{name:<12} {size / 2**20:>10.0f} MiB")
    print_text(f"{'peak':<12} {plan.total / 2**20:>10.0f} MiB")
    return 0


def make_slice_limit(steps: int | None, minutes: float | None) -> SliceLimit | None:
    """Returns the limit of --max-steps and --max-minutes, or None without them."""
    if steps is None and minutes is None:
        return None
    with needs_extra("truing train", "train"):
        from truing.train.step_loop import SliceLimit

    return SliceLimit(steps=steps, minutes=minutes)


def print_training_state(result: TrainingResult | RLResult) -> None:
    """Says if a slice ended before the training did, or if there was nothing left to train."""
    if not result.finished:
        print_text(f"{result.folder}: the slice ends after {result.done_now} steps; {GOES_ON}")
    elif not result.done_now:
        print_text(f"{result.folder}: was trained already ({result.steps} steps)")


def _print_result(result: TrainingResult, judge_kind: str, *, as_json: bool) -> None:
    evaluation_file = result.folder / "evaluation.json"
    evaluation: dict[str, Any] = {}
    if evaluation_file.is_file():
        evaluation = msgspec.json.decode(evaluation_file.read_bytes())
    if as_json:
        fields = {
            "folder": str(result.folder),
            "steps": result.steps,
            "done_now": result.done_now,
            "finished": result.finished,
            "last": result.last,
            "evaluation": evaluation,
            "red_model": result.lineage.red_model,
        }
        print_json(msgspec.json.encode(fields))
        return
    print_training_state(result)
    if not result.finished:
        return
    if result.done_now and result.last:
        metrics = ", ".join(
            f"{name} {value:.4g}"
            for name, value in result.last.items()
            if isinstance(value, float) and name != "seconds"
        )
        print_text(f"step {result.steps}: {metrics}")
    for name, measures in evaluation.items():
        print_text(f"  {name}: {_format_evaluation(measures)}")
    print_text(f"{result.folder}  ({judge_kind}:{result.folder}, log.jsonl, manifest.json)")
    spec = f"{judge_kind}:{result.folder}"
    if judge_kind == "local":
        print_next_steps([("truing", "run", "--model", spec)])
    else:
        print_next_steps([("truing", "card", spec, "--data", "SPEC", "--out", "card.json")])


def _format_evaluation(measures: dict[str, Any]) -> str:
    """Formats how a reward or cost model does on one set of pairs."""
    measures_in_words = [f"{measures['pairs']} pairs"]
    for key, label in (("accuracy", "order"), ("sign_accuracy", "sign")):
        share = measures.get(key)
        if share and share["n"]:
            estimate, lower, upper = (100 * share[k] for k in ("estimate", "lower", "upper"))
            measures_in_words.append(f"{label} {estimate:.1f} % [{lower:.1f}, {upper:.1f}]")
    if measures.get("length_only") is not None:
        measures_in_words.append(f"by length alone {100 * measures['length_only']:.1f} %")
    if measures.get("ece_order") is not None:
        measures_in_words.append(f"calibration error {measures['ece_order']:.3f}")
    return ", ".join(measures_in_words)
