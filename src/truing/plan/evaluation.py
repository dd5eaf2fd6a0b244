"""A plan: which variants are measured on which data by which judges, read from TOML.

    [models]                        # variant = model spec; the first is the baseline,
    plain = "local:smollm2"         # unless the key `baseline` names another
    [data]                          # name = data spec,
    safety = "builtin:safety"       # or a table with spec, judges, models, limit
    [run]                           # judges, seed, n, max_tokens, temperature, concurrency, limit
    judges = ["rules:refusal", "rules:degenerate"]

All faults of a plan are found before the first call to a model. Every variant is measured by the
same run.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, field

from truing.analysis.claims import find_margin_fault
from truing.core.errors import PlanError, did_you_mean
from truing.core.input_files import describe_unreadable, read_input_text
from truing.core.struct_fields import read_struct_fields
from truing.core.toml_text import add_lines, parse_toml
from truing.plan.spending import (
    find_budget_faults,
)
from truing.report.limits import MAX_HARM, find_max_harm_fault


class DataPlan(Struct, frozen=True, kw_only=True):
    """One data set of a plan.

    `judges` and `models` replace those of the plan; empty means all of the plan. `limit` and
    `max_tokens` replace those of `[run]`. `attack` is the spec of an attack on its prompts.
    `recorded` names recorded answers of all variants to take instead of drawing them
    (`recorded_answers`), but for the variants `not_recorded`, of which it has none. The answers of
    a `shown` data set stand before the figures of the report, in full, and count in none.
    """

    spec: str
    judges: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    limit: int | None = None
    attack: str | None = None
    max_tokens: int | None = None
    recorded: str = ""
    not_recorded: tuple[str, ...] = ()
    shown: bool = False


class RunPlan(Struct, frozen=True, kw_only=True):
    """The options of all runs of a plan.

    `budget` (money) and `budget_tokens` are for the answers of all runs together; `prices` is the
    path of a file with the price of each model. An answer ends before the first text of `stop`.
    """

    judges: tuple[str, ...] = ("rules:refusal", "rules:degenerate")
    seed: int = 0
    n: int = 1
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    concurrency: int = 16
    limit: int | None = None
    sample: Literal["random", "first"] = "random"
    taxonomy: str = "beavertails"
    margin: float = 0.05
    max_harm: float = MAX_HARM
    authorised: str = ""
    rate: float | None = None
    budget: float | None = None
    budget_tokens: int | None = None
    prices: str = ""


class Plan(Struct, frozen=True, kw_only=True):
    """A whole plan. `rank` holds ranking specs `mcq:DATA-SPEC` or `perplexity:DATA-SPEC` for the
    baseline model, `about` a paragraph for the report's first page.
    """

    title: str = "truing"
    about: str = ""
    models: dict[str, str]
    data: dict[str, DataPlan]
    run: RunPlan = RunPlan()
    baseline: str = ""
    rank: dict[str, str] = field(default_factory=dict)
    with_text: bool = False

    @property
    def baseline_variant(self) -> str:
        """The variant that the others are compared with."""
        return self.baseline or next(iter(self.models))


# Up to 60 characters; the first is a letter or digit, the last no space or dot (Windows drops
# these).
_FOLDER_NAME = re.compile(r"[^\W_](?:[\w .+-]{0,58}[\w+-])?")
FOLDER_NAME_RULE = (
    "cannot name a folder, which it becomes: use letters, digits, spaces, '-', '_', '+' and '.'"
)


def _read_specs(table: object, where: str, faults: list[str]) -> dict[str, str]:
    if not isinstance(table, dict):
        faults.append(f'{where}: expected name = "spec" lines')
        return {}
    faults += [
        f'{where}.{name}: expected name = "spec", got {spec!r}'
        for name, spec in table.items()
        if not isinstance(spec, str)
    ]
    return {name: str(spec) for name, spec in table.items()}


def parse_plan(text: str, where: str = "plan") -> Plan:
    """Returns the plan of a TOML text.

    Raises PlanError with every fault that can be found without resolving the specs; `where` stands
    before each.
    """
    toml = parse_toml(text, where)
    faults: list[str] = []
    plan = read_plan_table(toml, f"{where}: ", faults)
    if plan is None or faults:
        raise PlanError(*add_lines(text, where, faults))
    return plan


def read_plan_table(toml: dict[str, Any], where: str, faults: list[str]) -> Plan | None:
    """Returns the plan of a TOML table, or None if it has faults.

    Adds every fault that can be found without resolving the specs; `where` stands before its key
    path.
    """
    faults_before = len(faults)
    keys = Plan.__struct_fields__
    faults += [
        f"{where}{key}: unknown key{did_you_mean(key, keys)}" for key in toml if key not in keys
    ]
    models = _read_specs(toml.get("models", {}), f"{where}models", faults)
    data_plans = _read_data_plans(toml.get("data") or {}, where, faults)
    run = RunPlan(**read_struct_fields(RunPlan, toml.get("run") or {}, f"{where}run", faults))
    faults += [f"{where}run.{key}: {fault}" for key, fault in find_run_faults(run).items()]
    rank = _read_specs(toml.get("rank", {}), f"{where}rank", faults)
    if not models:
        faults.append(f"{where}models: none given")
    if not data_plans:
        faults.append(f"{where}data: none given")
    for name in [*models, *data_plans]:
        if not is_folder_name(name):
            faults.append(f"{where}{name!r} {FOLDER_NAME_RULE}")
    baseline = str(toml.get("baseline", ""))
    if baseline and baseline not in models:
        faults.append(
            f"{where}baseline: there is no model {baseline!r}{did_you_mean(baseline, models)}"
        )
    for name, data_plan in data_plans.items():
        faults += [
            f"{where}data.{name}.models: there is no model {m!r}{did_you_mean(m, models)}"
            for m in data_plan.models
            if m not in models
        ]
    if len(faults) > faults_before:
        return None
    return Plan(
        title=str(toml.get("title", "truing")),
        about=str(toml.get("about", "")),
        models=models,
        data=data_plans,
        run=run,
        baseline=baseline,
        rank=rank,
        with_text=bool(toml.get("with_text", False)),
    )


def find_run_faults(run: RunPlan) -> dict[str, str]:
    """Returns what is wrong with the values of `[run]`, by key."""
    limits = {
        "margin": find_margin_fault(run.margin),
        "max_harm": find_max_harm_fault(run.max_harm),
    }
    faults = {key: fault for key, fault in limits.items() if fault}
    return faults | find_budget_faults(run.budget, run.budget_tokens, run.prices)


def _read_data_plans(table: object, where: str, faults: list[str]) -> dict[str, DataPlan]:
    if not isinstance(table, dict):
        faults.append(f'{where}data: expected name = "spec" lines or tables')
        return {}
    data_plans: dict[str, DataPlan] = {}
    for name, value in table.items():
        fields = {"spec": value} if isinstance(value, str) else value
        if not isinstance(fields, dict) or not isinstance(fields.get("spec"), str):
            faults.append(f"{where}data.{name}: expected a spec, or a table with spec")
            continue
        values = read_struct_fields(DataPlan, fields, f"{where}data.{name}", faults)
        data_plans[name] = DataPlan(**{"spec": "", **values})
    return data_plans


def is_folder_name(name: str) -> bool:
    """Whether the name of a model, of a data set or of a training step can be a folder's name."""
    return _FOLDER_NAME.fullmatch(name) is not None


def read_plan(path: str | Path) -> Plan:
    """Returns the plan of a TOML file. Raises PlanError for a file that cannot be read, or its
    faults.
    """
    file = Path(path)
    try:
        return parse_plan(read_input_text(file), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {describe_unreadable(error)}") from error
