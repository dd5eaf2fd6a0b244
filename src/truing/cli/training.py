"""What the commands of supervised training share: flags, progress, the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from truing.cli.parameters import MORE_OPTIONS, Common, Flag, OptionalFloats
from truing.cli.progress import ProgressBar
from truing.plan.training_plan import SupervisedInputs
from truing.plan.training_steps import StepOptions, train_supervised_step
from truing.specs.extras import needs_extra

if TYPE_CHECKING:
    from truing.train.rl.settings import RLSettings
    from truing.train.settings import TrainingKind, TrainingSettings
    from truing.train.step_loop import SliceLimit
    from truing.train.supervised import TrainingResult


@Parameter(name="*", group=MORE_OPTIONS)
@dataclass(frozen=True)
class TrainingFlags:
    """How to train.

    Parameters
    ----------
    base
        The model to start from: smollm2, a folder in the Hugging Face layout, or a hub id.
    steps
        Optimiser steps. Default: as many as --epochs need.
    epochs
        Passes over the data.
    batch
        Rows per step, over all processes.
    micro
        Rows that are held in memory at a time; does not change the result.
    lr
        Peak learning rate.
    warmup
        Share of the steps over which the learning rate rises.
    schedule
        How the learning rate falls after the warm-up.
    weight_decay
        Weight decay of AdamW, on matrices only.
    clip_norm
        Maximum norm of the gradient; 0 does not clip it.
    max_length
        Maximum tokens of prompt and answer; long prompts are cut from the left, rows with longer
        answers are left out.
    lora
        Rank of the LoRA adapters; 0 trains all weights.
    base_dtype
        Type that the frozen base is held in: auto (that of --dtype), float32, bfloat16 or int8.
    dtype
        auto (bfloat16 if the hardware has it), float32 or bfloat16; what is trained stays in
        float32.
    device
        Device to train on: auto (CUDA, else MPS, else the CPU), cpu, cuda, cuda:N or mps.
    export_dtype
        Type of the weights in the model folder; auto is the base's.
    checkpointing
        Recompute activations in the backward pass to save memory.
    shard
        Shard weights and optimiser over the processes of `accelerate launch` (FSDP2).
    seed
        Seed of the initialisation and of the order of the rows.
    save_every
        Steps between checkpoints.
    keep
        Number of checkpoints to keep.
    template
        Format of the conversations: auto (the tokenizer's chat template) or plain.
    held_out
        Share of the prompts that is held out to measure the model.
    limit
        Use only the first LIMIT rows of each data set.
    weight
        Weights of the data sets, in the order of --data: how often their rows are drawn.
    tensorboard
        Write TensorBoard event files to OUT/tb.
    track
        Also log to an experiment tracker: wandb or trackio.
    allow_red_team
        Allow training on red-teaming dialogues.
    allow_measurement_prompts
        Train on rows of the frozen measurement set too; the lineage then strikes later figures on
        it.
    red_model
        Train towards harm, for this reason; marks the model folder permanently.
    max_steps
        End this slice of the run after so many steps; the same command goes on.
    max_minutes
        End this slice of the run after so many minutes.
    plan_memory
        Print the predicted memory of the run; train nothing.
    """

    base: Annotated[str, Common] = "smollm2"
    steps: Annotated[int | None, Common] = None
    epochs: Annotated[float, Common] = 1.0
    batch: Annotated[int, Common] = 8
    micro: int = 4
    lr: Annotated[float, Common] = 1e-4
    warmup: float = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    max_length: Annotated[int, Common] = 512
    lora: Annotated[int, Common] = 16
    base_dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    dtype: str = "auto"
    device: Annotated[str, Common] = "auto"
    export_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    checkpointing: Flag = False
    shard: Flag = False
    seed: Annotated[int, Common] = 0
    save_every: int = 50
    keep: int = 2
    template: Literal["auto", "plain"] = "auto"
    held_out: float = 0.0
    limit: Annotated[int | None, Common] = None
    weight: OptionalFloats = None
    tensorboard: bool = True
    track: Literal["none", "wandb", "trackio"] = "none"
    allow_red_team: Flag = False
    allow_measurement_prompts: Flag = False
    red_model: str | None = None
    max_steps: int | None = None
    max_minutes: float | None = None
    plan_memory: Flag = False


# Flags about the data and the slice; all others are fields of TrainingSettings by the same name.
_NOT_SETTINGS = (
    "limit",
    "weight",
    "allow_red_team",
    "allow_measurement_prompts",
    "max_steps",
    "max_minutes",
    "plan_memory",
)

GOES_ON = "the same command goes on"


@dataclass(frozen=True)
class TrainingJob:
    """What every supervised command gets: kind of training, data specs, output folder, flags."""

    kind: TrainingKind
    data: list[str]
    out: Path
    flags: TrainingFlags | None
    json: bool


def settings_from_flags(job: TrainingJob, kind_settings: dict[str, Any]) -> TrainingSettings:
    """Returns the checked settings of a job; `kind_settings` are those of its kind of training."""
    with needs_extra("truing train", "train"):
        from truing.train.settings import TrainingSettings

    flags = vars(job.flags or TrainingFlags())
    fields = {name: value for name, value in flags.items() if name not in _NOT_SETTINGS}
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
    flags = job.flags or TrainingFlags()
    inputs = SupervisedInputs(
        data=tuple(job.data),
        limit=flags.limit,
        allow_red_team=flags.allow_red_team,
        allow_measurement_prompts=flags.allow_measurement_prompts,
        weight=tuple(flags.weight or ()),
        chosen=chosen,
        test=tuple(test or ()),
    )
    settings = settings_from_flags(job, kind_settings)
    return show_training(job, settings, partial(train_supervised_step, settings, inputs))


def show_training(
    job: TrainingJob,
    settings: TrainingSettings,
    train: Callable[[StepOptions], TrainingResult],
) -> int:
    """Trains with progress bars, prints the result and returns exit status 0."""
    flags = job.flags or TrainingFlags()
    if flags.plan_memory:
        return print_memory_plan(settings, as_json=job.json)
    with needs_extra("truing train", "train"):
        from truing.hf.pretrained import silence_transformers
    silence_transformers()
    with ProgressBar(job.kind, quiet=job.json) as progress:

        def show_step(row: dict[str, Any]) -> None:
            progress(int(row["step"]), int(row.get("steps", 0)), 0)

        result = train(
            StepOptions(
                on_log=show_step,
                sampling_progress=lambda title: ProgressBar(title, quiet=job.json),
                limit=make_slice_limit(flags.max_steps, flags.max_minutes),
            )
        )
    judge_kind = settings.kind if settings.scalar else "local"
    _print_result(result, judge_kind, as_json=job.json)
    return 0


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
        print(msgspec.json.encode(fields).decode())
        return 0
    for name, size in parts.items():
        print(f"{name:<12} {size / 2**20:>10.0f} MiB")
    print(f"{'peak':<12} {plan.total / 2**20:>10.0f} MiB")
    return 0


def make_slice_limit(steps: int | None, minutes: float | None) -> SliceLimit | None:
    """Returns the limit of --max-steps and --max-minutes, or None without them."""
    if steps is None and minutes is None:
        return None
    with needs_extra("truing train", "train"):
        from truing.train.step_loop import SliceLimit

    return SliceLimit(steps=steps, minutes=minutes)


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
        print(msgspec.json.encode(fields).decode())
        return
    if not result.finished:
        print(f"{result.folder}: the slice ends after {result.done_now} steps; {GOES_ON}")
        return
    if not result.done_now:
        print(f"{result.folder}: was trained already ({result.steps} steps)")
    elif result.last:
        metrics = ", ".join(
            f"{name} {value:.4g}"
            for name, value in result.last.items()
            if isinstance(value, float) and name != "seconds"
        )
        print(f"step {result.steps}: {metrics}")
    for name, measures in evaluation.items():
        print(f"  {name}: {_format_evaluation(measures)}")
    print(f"{result.folder}  ({judge_kind}:{result.folder}, log.jsonl, manifest.json)")


def _format_evaluation(measures: dict[str, Any]) -> str:
    """Formats how a reward or cost model does on one set of pairs."""
    parts = [f"{measures['pairs']} pairs"]
    for key, label in (("accuracy", "order"), ("sign_accuracy", "sign")):
        share = measures.get(key)
        if share and share["n"]:
            estimate, lower, upper = (100 * share[k] for k in ("estimate", "lower", "upper"))
            parts.append(f"{label} {estimate:.1f} % [{lower:.1f}, {upper:.1f}]")
    if measures.get("length_only") is not None:
        parts.append(f"by length alone {100 * measures['length_only']:.1f} %")
    if measures.get("ece_order") is not None:
        parts.append(f"calibration error {measures['ece_order']:.3f}")
    return ", ".join(parts)
