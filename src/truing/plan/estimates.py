"""What a training plan would do and cost: the state of each step, its time and its memory.

Nothing is trained and no weights are loaded. The time of a step is its number of multiplications
divided by the speed of this machine, which is measured for a fraction of a second. If the step has
a log, the time is read from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from truing.core.errors import PlanError
from truing.core.prices import CHARACTERS_PER_TOKEN
from truing.plan.step_inputs import RLInputs, SampledInputs, SupervisedInputs
from truing.plan.training_plan import (
    StepPlan,
    TrainingPlan,
    find_references,
)
from truing.plan.training_run import FinishedSteps, StepStatus, check_specs, find_state
from truing.plan.training_steps import DEFAULT_SAMPLES, spec_for_training
from truing.specs.resolve import resolve

if TYPE_CHECKING:
    from truing.hf.weights import Weights
    from truing.train.memory_plan import MemoryPlan
    from truing.train.rl.settings import RLSettings
    from truing.train.settings import TrainingSettings

_ROWS_READ = 200  # of a data set, for the mean length of its rows
# Speed of a whole step as a share of that of one large matrix product. A rule of thumb.
_EFFICIENCY = 0.5
# Time is counted in passes: one pass multiplies each token with all weights once. A forward pass is
# 1, a backward pass 1 if only adapters are trained and 2 if all weights are. These kinds have
# further forward passes without a gradient: of the reference (dpo), of the reference and for the KL
# term (kto), of the prompted teacher (distil).
_FORWARD_PASSES = {"dpo": 1, "kto": 3, "distil": 2}
_DECODING_FACTOR = 3  # how much slower a pass is token by token than over a whole text, roughly


class StepEstimate(Struct, frozen=True, kw_only=True):
    """What a training step of a plan would do.

    `steps` counts optimiser steps over all rounds, or rollouts of RL, and `seconds_a_step` is the
    time of one. `measured` says that the time is read from the step's own log. `memory` is the peak
    in bytes; None if it cannot be predicted.
    """

    name: str
    kind: str
    status: StepStatus
    changes: tuple[str, ...]
    folder: str
    steps: int
    seconds_a_step: float
    measured: bool
    memory: int | None


def estimate_plan(plan: TrainingPlan, out: str | Path) -> list[StepEstimate]:
    """Returns the estimates of all steps; raises PlanError with the faults of all specs."""
    from truing.hf.pretrained import silence_transformers
    from truing.train.device_speed import measure_speed

    silence_transformers()
    check_specs(plan)
    speed = {
        (step.settings.device, step.settings.dtype): measure_speed(step.settings)
        for step in plan.steps.values()
    }
    finished = FinishedSteps()
    estimates = []
    for step in plan.steps.values():
        state = find_state(step, Path(out), finished)
        if state.status == "finished" and state.folder is not None:
            finished.add(step.name, state.folder)
        estimates.append(_estimate_step(plan, step, state, speed))
    return estimates


def _estimate_step(
    plan: TrainingPlan, step: StepPlan, state: Any, speed: Mapping[tuple[str, str], float]
) -> StepEstimate:
    from truing.hf.loading import select_device
    from truing.train.memory_plan import plan_memory
    from truing.train.trainable_model import find_base_model

    settings, inputs = step.settings, step.inputs
    costs = isinstance(inputs, RLInputs) and bool(inputs.cost)
    weights = find_base_model(_root_base(plan, step)).weights
    memory: MemoryPlan | None = None
    try:
        memory = plan_memory(settings, weights, select_device(settings.device), costs=costs)
    except PlanError:
        memory = None  # an architecture that cannot be traced; the rest of the estimate holds
    steps, tokens = _count_steps(step)
    measured = _logged_seconds(state.folder)
    seconds = measured
    if seconds is None:
        multiplications = _passes(settings, costs=costs) * tokens * _matrix_elements(weights)
        seconds = multiplications / (_EFFICIENCY * speed[settings.device, settings.dtype])
    return StepEstimate(
        name=step.name,
        kind=step.kind,
        status=state.status,
        changes=state.changes,
        folder=str(state.folder or ""),
        steps=steps,
        seconds_a_step=seconds,
        measured=measured is not None,
        memory=None if memory is None else memory.total,
    )


def _root_base(plan: TrainingPlan, step: StepPlan) -> str:
    """Returns the base model that a step descends from; all models in between have its shape."""
    while references := find_references(step.settings.base):
        step = plan.steps[references[0]]
    return step.settings.base


def _matrix_elements(weights: Weights) -> int:
    """Returns the number of weights that each token is multiplied with, roughly.

    All matrices count. Embeddings do too: tied ones are the head as well, untied ones are counted
    although they are only looked up.
    """
    from math import prod

    from truing.hf.pretrained import find_safetensors, read_tensor_shapes

    shapes = [
        shape
        for path in find_safetensors(Path(weights.path))
        for name, shape in read_tensor_shapes(path).items()
        if len(shape) == 2
    ]
    return sum(prod(shape) for shape in shapes)


def _passes(settings: TrainingSettings | RLSettings, *, costs: bool) -> float:
    """Returns the passes of a step: how often each token is multiplied with all weights."""
    from truing.train.rl.policy_models import critic_roles
    from truing.train.rl.settings import RLSettings

    # Checkpointing repeats the forward pass.
    learning = (2 if settings.lora else 3) + settings.checkpointing
    if not isinstance(settings, RLSettings):
        return learning + (_FORWARD_PASSES[settings.kind] if settings.needs_reference else 0)
    models = 1 + len(critic_roles(settings, costs=costs))
    # Sampling; the policy's log-probabilities and the reference's (2); the critics' values; reward
    # and cost (2).
    reading = _DECODING_FACTOR + 2 + (models - 1) + 2
    return reading + learning * models * settings.epochs


def _count_steps(step: StepPlan) -> tuple[int, float]:
    """Returns the steps of a run and the tokens of one step, from the first rows of the data."""
    settings: Any = step.settings
    if isinstance(step.inputs, RLInputs):
        # Prompts are taken as half of the longest, answers as the longest.
        tokens = settings.answers_per_step * (settings.max_prompt / 2 + settings.max_new)
        return settings.steps, tokens
    rows, tokens = 0, 0.0
    for spec in step.inputs.data:
        if find_references(spec):
            continue  # the result of a step that may not exist yet
        set_rows, set_length = _read_lengths(spec, step.inputs)
        rows, tokens = rows + set_rows, tokens + set_rows * set_length
    length = min(settings.max_length, tokens / rows if rows else settings.max_length / 2)
    rounds = 1
    if isinstance(step.inputs, SampledInputs):
        rounds = step.inputs.rounds
        if step.kind == "distil":
            rows *= step.inputs.n or DEFAULT_SAMPLES[step.kind]
        # Of the other kinds' answers to a prompt one is learned, or one pair.
    steps = settings.steps or max(1, round(settings.epochs * max(1, rows) / settings.batch))
    answers = 2 if settings.kind in ("dpo", "reward", "cost") else 1
    return rounds * steps, settings.batch * answers * length


def _read_lengths(spec: str, inputs: SupervisedInputs | SampledInputs) -> tuple[int, float]:
    """Returns the rows of a data set and the mean tokens of a row with one answer.

    An answer that is yet to be sampled is taken as the longest.
    """
    dataset = resolve(spec_for_training(spec), "data")
    samples = isinstance(inputs, SampledInputs)
    lengths: list[float] = []
    count = 0
    pairs = () if samples else dataset.preferences()
    for pair in pairs:
        count += 1
        if len(lengths) < _ROWS_READ:
            lengths.append(_count_tokens(pair.conversation.prompt, pair.chosen.content))
        if count == inputs.limit:
            break
    if not count:
        for row in dataset.rows():
            count += 1
            if len(lengths) < _ROWS_READ:
                answer = row.responses[0].text if row.responses and not samples else ""
                lengths.append(_count_tokens(row.sample.prompt, answer))
            if count == inputs.limit:
                break
    sampled = inputs.max_tokens if isinstance(inputs, SampledInputs) else 0
    return count, sum(lengths) / max(1, len(lengths)) + sampled


def _count_tokens(prompt: str, answer: str) -> float:
    return (len(prompt) + len(answer)) / CHARACTERS_PER_TOKEN


def _logged_seconds(folder: Path | None) -> float | None:
    """Returns the median seconds per step over the last 50 lines of a log; None without one."""
    from statistics import median

    from truing.train.training_log import read_log

    if folder is None or not (folder / "log.jsonl").is_file():
        return None
    seconds = [float(row["seconds"]) for row in read_log(folder) if "seconds" in row][-50:]
    # "seconds" is the time since the start of the run.
    durations = [after - before for before, after in pairwise(seconds) if after > before]
    return median(durations) if durations else None
