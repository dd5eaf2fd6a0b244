"""A training plan: steps that build on each other and an evaluation, read from TOML and checked.

    base = "smollm2"
    [defaults]                       # settings of every step that has them
    lora = 16
    [steps.sft]
    kind = "sft"
    data = ["trl:rows.jsonl"]
    [steps.reward]
    kind = "reward"
    base = "{steps.sft}"             # the folder of that step
    data = ["pku"]
    [steps.policy]
    kind = "ppo-lag"
    ...
    [evaluate.models]                # the rest is a plan of `truing run`
    policy = "local:{steps.policy}"

A step has a kind (a command of `truing train`) and the flags of that command as keys. This module
checks the whole plan without resolving any spec.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from truing.core.errors import PlanError, UserError, did_you_mean
from truing.core.input_files import describe_unreadable, read_input_text
from truing.core.struct_fields import read_struct_fields
from truing.core.toml_text import add_lines, parse_toml
from truing.plan.cost_limits import parse_constraint
from truing.plan.evaluation import FOLDER_NAME_RULE, Plan, is_folder_name, read_plan_table
from truing.plan.step_inputs import RLInputs, SampledInputs, SupervisedInputs
from truing.train.rl.settings import GROUP_METHODS, METHODS, RLSettings
from truing.train.settings import TRAINING_KINDS, TrainingSettings

STEP_KINDS = (*TRAINING_KINDS, "best-of-sft", "iterative-dpo", *METHODS)
# Kinds that train on sampled answers -> the kind of supervised training that they use.
_SAMPLED_KINDS = {"distil": "distil", "best-of-sft": "sft", "iterative-dpo": "dpo"}
DEFAULT_GROUP_SIZE = 4
"""Answers to each prompt in the group methods (GRPO, RLOO), which compare them with each other."""
_REFERENCE = re.compile(r"\{steps\.([^{}]*)\}")
_PLAN_KEYS = ("title", "base", "defaults", "steps", "evaluate")
T = TypeVar("T")


StepInputs = SupervisedInputs | SampledInputs | RLInputs
StepSettings = TrainingSettings | RLSettings


class StepPlan(Struct, frozen=True, kw_only=True):
    """One step: its kind, its settings (`out` is empty until it runs), and its inputs.

    `name` is that of the step's table. References `{steps.NAME}` in base and specs are not replaced
    yet.
    """

    name: str
    kind: str
    settings: StepSettings
    inputs: StepInputs

    @property
    def references(self) -> tuple[str, ...]:
        """The names of the steps that this one builds on."""
        values = [self.settings.base, *_texts(msgspec.to_builtins(self.inputs))]
        return tuple(dict.fromkeys(name for text in values for name in find_references(text)))


class TrainingPlan(Struct, frozen=True, kw_only=True):
    """A whole plan. The steps are in an order in which each follows those that it builds on."""

    title: str
    base: str
    steps: dict[str, StepPlan]
    evaluate: Plan | None = None


def find_references(text: str) -> list[str]:
    """Returns the names of the steps that a text refers to by `{steps.NAME}`."""
    return _REFERENCE.findall(text)


def replace_references(value: T, replacements: Mapping[str, str]) -> T:
    """Returns a value with `{steps.NAME}` replaced in every string of it.

    Lists, tables and structs are searched too. Raises KeyError for a name without a replacement.
    """
    if isinstance(value, str):
        replaced: Any = _REFERENCE.sub(lambda match: replacements[match[1]], value)
    elif isinstance(value, list | tuple):
        replaced = type(value)(replace_references(item, replacements) for item in value)
    elif isinstance(value, dict):
        replaced = {key: replace_references(item, replacements) for key, item in value.items()}
    elif isinstance(value, Struct):
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        replaced = type(value)(**replace_references(fields, replacements))
    else:
        replaced = value
    return replaced  # type: ignore[no-any-return]


def _texts(value: object) -> Iterator[str]:
    """Yields every string of a value, searching lists and tables."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


# -- reading


def read_training_plan(path: str | Path) -> TrainingPlan:
    """Returns the training plan of a TOML file; raises PlanError with all of its faults."""
    return parse_training_plan(read_plan_text(path), str(path))


def read_plan_text(path: str | Path) -> str:
    """Returns the TOML text of a plan; raises PlanError if the file cannot be read."""
    try:
        return read_input_text(Path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {describe_unreadable(error)}") from error


def list_presets() -> dict[str, str]:
    """Returns the plans that come with truing: name -> TOML text."""
    folder = files("truing") / "resources" / "plans" / "train"
    texts = {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }
    return dict(sorted(texts.items()))


def read_preset(name: str) -> str:
    """Returns the TOML text of a preset; raises PlanError if there is none of that name."""
    presets = list_presets()
    if name not in presets:
        raise PlanError(f"--preset {name}: there is no such preset{did_you_mean(name, presets)}")
    return presets[name]


def parse_training_plan(text: str, where: str = "plan") -> TrainingPlan:
    """Returns the training plan of a TOML text; raises PlanError with all of its faults."""
    toml = parse_toml(text, where)
    faults = [
        f"{where}: {key}: unknown key{did_you_mean(key, _PLAN_KEYS)}"
        for key in toml
        if key not in _PLAN_KEYS
    ]
    for key in ("title", "base"):
        if not isinstance(toml.get(key, ""), str):
            faults.append(f"{where}: {key}: expected str, got {toml[key]!r}")
    base = str(toml.get("base", "smollm2"))
    steps = _read_steps(toml, base, where, faults)
    evaluate = None
    if "evaluate" in toml:
        evaluate = _read_evaluation(toml["evaluate"], where, faults)
    tables = toml.get("steps")
    step_names = tables.keys() if isinstance(tables, dict) else ()
    faults += _find_reference_faults(steps, evaluate, step_names, where)
    if faults:
        raise PlanError(*add_lines(text, where, faults))
    return TrainingPlan(
        title=str(toml.get("title", "training")),
        base=base,
        steps=_sort_steps(steps, where),
        evaluate=evaluate,
    )


def _read_steps(
    toml: Mapping[str, Any], base: str, where: str, faults: list[str]
) -> dict[str, StepPlan]:
    tables = toml.get("steps", {})
    defaults = toml.get("defaults", {})
    if not isinstance(tables, dict) or not tables:
        faults.append(f"{where}: steps: none given; a step is a table such as [steps.sft]")
        return {}
    if not isinstance(defaults, dict):
        faults.append(f"{where}: defaults: expected a table, got {defaults!r}")
        defaults = {}
    _check_defaults(defaults, where, faults)
    steps: dict[str, StepPlan] = {}
    for name, table in tables.items():
        place = f"{where}: steps.{name}"
        if not is_folder_name(name) or name == "evaluation":
            faults.append(f"{place}: {name!r} {FOLDER_NAME_RULE}; `evaluation` is taken")
        elif not isinstance(table, dict):
            faults.append(f"{place}: expected a table with the key kind, got {table!r}")
        else:
            step = _read_step(name, {"base": base, **table}, defaults, place, faults)
            if step is not None:
                steps[name] = step
    return steps


def _check_defaults(defaults: Mapping[str, Any], where: str, faults: list[str]) -> None:
    """Adds a fault for each default that is a setting of no kind of step, or of a wrong type."""
    supervised, rl = (set(_setting_keys(settings)) for settings in (TrainingSettings, RLSettings))
    for key, value in defaults.items():
        kind = TrainingSettings if key in supervised else RLSettings
        read_struct_fields(
            kind, {key: value}, f"{where}: defaults", faults, fields=sorted(supervised | rl)
        )


def _setting_keys(settings: type[StepSettings]) -> list[str]:
    """Returns the settings that a step may set: all but those that the plan derives."""
    # `constraints` come from the input `cost_limit`.
    derived = ("kind", "method", "out", "constraints")
    return [name for name in settings.__struct_fields__ if name not in derived]


def _read_step(
    name: str,
    table: Mapping[str, Any],
    defaults: Mapping[str, Any],
    where: str,
    faults: list[str],
) -> StepPlan | None:
    kind = table.get("kind")
    if kind not in STEP_KINDS:
        suggestion = did_you_mean(str(kind), STEP_KINDS)
        problem = "missing" if kind is None else f"there is no training of kind {kind!r}"
        faults.append(f"{where}.kind: {problem}{suggestion}")
        return None
    settings_type: type[StepSettings] = RLSettings if kind in METHODS else TrainingSettings
    inputs_type = _inputs_type(kind)
    settable = _setting_keys(settings_type)
    fields = {key: value for key, value in table.items() if key != "kind"}
    faults_before = len(faults)
    known = [*inputs_type.__struct_fields__, *settable]
    for key in [key for key in fields if key not in known]:
        faults.append(f"{where}.{key}: unknown key of {kind}{did_you_mean(key, known)}")
        del fields[key]
    is_input = {key: key in inputs_type.__struct_fields__ for key in fields}
    inputs = read_struct_fields(
        inputs_type, {key: fields[key] for key in fields if is_input[key]}, where, faults
    )
    applied = {key: value for key, value in defaults.items() if key in settable}
    settings = applied | read_struct_fields(
        settings_type,
        {key: fields[key] for key in fields if not is_input[key]},
        where,
        faults,
        fields=settable,
    )
    if len(faults) > faults_before:
        return None
    try:
        return _build_step(name, kind, settings, inputs_type(**inputs))
    except UserError as error:
        faults += [f"{where}.{fault}" for fault in error.faults]
    except (TypeError, ValueError) as error:
        # A default of a wrong type fails here; `_check_defaults` has added a fault for it already.
        faults.append(f"{where}: {error}")
    return None


def _inputs_type(kind: str) -> type[StepInputs]:
    if kind in METHODS:
        return RLInputs
    return SampledInputs if kind in _SAMPLED_KINDS else SupervisedInputs


def _build_step(name: str, kind: str, settings: dict[str, Any], inputs: StepInputs) -> StepPlan:
    """Returns the step with checked settings; raises PlanError with the faults of its values."""
    checked: StepSettings
    if isinstance(inputs, RLInputs):
        default_n = DEFAULT_GROUP_SIZE if kind in GROUP_METHODS else 1
        constraints = tuple(parse_constraint(text)[0] for text in inputs.cost_limit)
        fixed = {"method": kind, "out": "", "constraints": constraints}
        values = {"n": default_n, **settings, **fixed}
        checked = rl_settings = RLSettings(**values)
        faults = _find_faults(lambda: rl_settings.validated(costs=bool(inputs.cost)))
        if not inputs.reward:
            faults.append("reward: none given; specs of judges whose value is to be raised")
    else:
        trained_kind: Any = _SAMPLED_KINDS.get(kind, kind)
        if isinstance(inputs, SampledInputs) and kind == "distil":
            # The prompt is part of the settings: another one gives another model.
            settings = {**settings, "teacher": inputs.prompt}
        checked = TrainingSettings(kind=trained_kind, out="", **settings)
        faults = _find_faults(checked.checked)
        if isinstance(inputs, SampledInputs):
            faults += sampling_faults(kind, inputs)
    if not inputs.data:
        faults.append("data: none given; specs of data sets")
    if isinstance(inputs, SupervisedInputs) and len(inputs.weight) not in (0, len(inputs.data)):
        faults.append(f"weight: {len(inputs.weight)} numbers for {len(inputs.data)} data sets")
    if faults:
        raise PlanError(*faults)
    return StepPlan(name=name, kind=kind, settings=checked, inputs=inputs)


def sampling_faults(kind: str, inputs: SampledInputs) -> list[str]:
    """Returns what is wrong with the inputs of a kind of step on sampled answers."""
    faults = []
    if kind != "distil" and not inputs.by:
        faults.append("by: missing; the spec of the judge that chooses or orders the answers")
    if kind == "distil" and inputs.rounds != 1:
        faults.append(f"rounds = {inputs.rounds}: distil has one")
    if inputs.rounds < 1:
        faults.append(f"rounds = {inputs.rounds}: at least 1")
    if kind == "iterative-dpo" and inputs.n == 1:
        faults.append("n = 1: at least 2 answers, of which one is preferred")
    # `not x > 0` and not `x <= 0`: a NaN must be a fault too.
    if kind != "distil" and not inputs.temperature > 0:
        faults.append(f"temperature = {inputs.temperature}: above 0, or all answers are the same")
    return faults


def _find_faults(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except UserError as error:
        return list(error.faults)
    return []


def _read_evaluation(table: object, where: str, faults: list[str]) -> Plan | None:
    if not isinstance(table, dict):
        faults.append(f"{where}: evaluate: expected a table with models and data, got {table!r}")
        return None
    return read_plan_table(table, f"{where}: evaluate.", faults)


def _find_reference_faults(
    steps: Mapping[str, StepPlan], evaluate: Plan | None, names: Collection[str], where: str
) -> list[str]:
    """Returns a fault for each `{steps.NAME}` that names no step of the plan."""
    named = [
        (f"steps.{step.name}", reference)
        for step in steps.values()
        for reference in step.references
    ]
    if evaluate is not None:
        texts = _texts(msgspec.to_builtins(evaluate))
        named += [("evaluate", reference) for text in texts for reference in find_references(text)]
    return [
        f"{where}: {place}: there is no step {reference!r}{did_you_mean(reference, names)}"
        for place, reference in named
        if reference not in names
    ]


def _sort_steps(steps: dict[str, StepPlan], where: str) -> dict[str, StepPlan]:
    """Returns the steps in topological order; raises PlanError for a cycle of references."""
    remaining = dict(steps)
    ordered: dict[str, StepPlan] = {}
    while remaining:
        ready = [step for step in remaining.values() if _is_ready(step, ordered)]
        if not ready:
            names = ", ".join(remaining)
            raise PlanError(f"{where}: steps: {names} build on each other in a circle")
        step = ready[0]
        ordered[step.name] = remaining.pop(step.name)
    return ordered


def _is_ready(step: StepPlan, ordered: Collection[str]) -> bool:
    """Whether all steps that a step builds on are in the order already."""
    return all(reference in ordered for reference in step.references)
