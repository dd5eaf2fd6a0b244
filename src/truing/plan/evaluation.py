"""A plan: which variants are measured on which data by which judges, read from TOML and run.

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
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, field

from truing.analysis.claims import find_margin_fault
from truing.analysis.summary import write_summary
from truing.core.errors import PlanError, SpecError, UserError, did_you_mean
from truing.core.input_files import read_input_text
from truing.core.protocols import Attack, Dataset, Judge, Model
from truing.core.struct_fields import read_struct_fields
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate, is_attacked_dataset, select_rate_limits
from truing.evaluation.options import EvaluateOptions
from truing.evaluation.options import ProgressCallback as RunProgressCallback
from truing.evaluation.row_sample import keep_stored_sample
from truing.models.cached_model import CachedModel
from truing.report.assembly import ReportOptions, assemble_report
from truing.report.key_answers import MAX_HARM, find_max_harm_fault
from truing.report.report_data import Ranking, ReportData
from truing.specs.parser import Spec, parse_spec, redact_spec
from truing.specs.resolve import RoleName, resolve, share_instances


class DataPlan(Struct, frozen=True, kw_only=True):
    """One data set of a plan.

    `judges` and `models` replace those of the plan; empty means all of the plan. `limit` and
    `max_tokens` replace those of `[run]`. `attack` is the spec of an attack on its prompts.
    """

    spec: str
    judges: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    limit: int | None = None
    attack: str | None = None
    max_tokens: int | None = None


class RunPlan(Struct, frozen=True, kw_only=True):
    """The options of all runs of a plan."""

    judges: tuple[str, ...] = ("rules:refusal", "rules:degenerate")
    seed: int = 0
    n: int = 1
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    concurrency: int = 16
    limit: int | None = None
    sample: Literal["random", "first"] = "random"
    taxonomy: str = "beavertails"
    margin: float = 0.05
    max_harm: float = MAX_HARM
    authorised: str = ""
    rate: float | None = None


class Plan(Struct, frozen=True, kw_only=True):
    """A whole plan. `rank` holds ranking specs `mcq:DATA-SPEC` or `perplexity:DATA-SPEC` for the
    baseline model.
    """

    title: str = "truing"
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


class PlanProgress(Struct, frozen=True):
    """The progress of a plan: the current variant and data set, with counts of its samples."""

    variant: str
    data: str
    done: int
    total: int
    failures: int


PlanProgressCallback = Callable[[PlanProgress], None]

# Up to 60 characters; the first is a letter or digit, the last no space or dot (Windows drops
# these).
_FOLDER_NAME = re.compile(r"[^\W_](?:[\w .+-]{0,58}[\w+-])?")
FOLDER_NAME_RULE = (
    "cannot name a folder, which it becomes: use letters, digits, spaces, '-', '_', '+' and '.'"
)


def _read_specs(table: object, where: str, faults: list[str]) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        faults.append(f'{where}: expected name = "spec" lines')
        return {}
    return dict(table)


def parse_plan(text: str, where: str = "plan") -> Plan:
    """Returns the plan of a TOML text.

    Raises PlanError with every fault that can be found without resolving the specs; `where` stands
    before each.
    """
    try:
        toml = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{where}: {error}") from error
    faults: list[str] = []
    plan = read_plan_table(toml, f"{where}: ", faults)
    if plan is None or faults:
        raise PlanError(*faults)
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
    data = _read_data_plans(toml.get("data") or {}, where, faults)
    run = RunPlan(**read_struct_fields(RunPlan, toml.get("run") or {}, f"{where}run", faults))
    faults += [
        f"{where}run.{key}: {fault}"
        for key, fault in (
            ("margin", find_margin_fault(run.margin)),
            ("max_harm", find_max_harm_fault(run.max_harm)),
        )
        if fault
    ]
    rank = _read_specs(toml.get("rank", {}), f"{where}rank", faults)
    if not models:
        faults.append(f"{where}models: none given")
    if not data:
        faults.append(f"{where}data: none given")
    for name in [*models, *data]:
        if not is_folder_name(name):
            faults.append(f"{where}{name!r} {FOLDER_NAME_RULE}")
    baseline = str(toml.get("baseline", ""))
    if baseline and baseline not in models:
        faults.append(
            f"{where}baseline: there is no model {baseline!r}{did_you_mean(baseline, models)}"
        )
    for name, data_plan in data.items():
        faults += [
            f"{where}data.{name}.models: there is no model {m!r}{did_you_mean(m, models)}"
            for m in data_plan.models
            if m not in models
        ]
    if len(faults) > faults_before:
        return None
    return Plan(
        title=str(toml.get("title", "truing")),
        models=models,
        data=data,
        run=run,
        baseline=baseline,
        rank=rank,
        with_text=bool(toml.get("with_text", False)),
    )


def _read_data_plans(table: object, where: str, faults: list[str]) -> dict[str, DataPlan]:
    if not isinstance(table, dict):
        faults.append(f'{where}data: expected name = "spec" lines or tables')
        return {}
    data: dict[str, DataPlan] = {}
    for name, value in table.items():
        fields = {"spec": value} if isinstance(value, str) else value
        if not isinstance(fields, dict) or not isinstance(fields.get("spec"), str):
            faults.append(f"{where}data.{name}: expected a spec, or a table with spec")
            continue
        values = read_struct_fields(DataPlan, fields, f"{where}data.{name}", faults)
        data[name] = DataPlan(**{"spec": "", **values})
    return data


def is_folder_name(name: str) -> bool:
    """Whether the name of a model, of a data set or of a training step can be a folder's name."""
    return _FOLDER_NAME.fullmatch(name) is not None


def plan_from_specs(models: Sequence[str], data: Sequence[str], judges: Sequence[str]) -> Plan:
    """Returns the plan for specs from the command line, each of them `SPEC` or `NAME=SPEC`.

    A spec without a name is called by what it names (`local:smollm2` -> `smollm2`); the first model
    is the baseline. Raises PlanError for a name that is no folder name, or that two specs have.
    """
    faults: list[str] = []
    named_models = _name_specs(models, "--model", faults)
    named_data = _name_specs(data, "--data", faults)
    if faults:
        raise PlanError(*faults)
    return Plan(
        title=" / ".join(named_models),
        models=named_models,
        data={name: DataPlan(spec=spec) for name, spec in named_data.items()},
        run=RunPlan(judges=tuple(judges)),
    )


def _name_specs(specs: Sequence[str], flag: str, faults: list[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for text in specs:
        # A spec has no "=" before its first colon or comma, so this one ends a name.
        name_and_spec = re.match(r"([^:,=()\"]+)=(.+)", text, re.DOTALL)
        name, spec = name_and_spec.groups() if name_and_spec else (_short_name(text), text)
        if not is_folder_name(name):
            faults.append(f"{flag} {redact_spec(text)}: {name!r} {FOLDER_NAME_RULE}")
        elif name in named:
            faults.append(
                f"{flag} {redact_spec(text)}: a second {name!r}; name them: {flag} NAME=SPEC"
            )
        named[name] = spec
    return named


def _short_name(text: str) -> str:
    """Returns a folder name for a spec: the last part of its name, or its kind."""
    try:
        spec = parse_spec(text)
    except SpecError:
        return "variant"  # the fault of the spec is reported when it is resolved
    last = re.sub(r"[^\w.+-]+", "-", spec.name.rstrip("/").rpartition("/")[2]).strip("-._")
    return last[:60] or spec.kind


def read_plan(path: str | Path) -> Plan:
    """Returns the plan of a TOML file. Raises PlanError for a file that cannot be read, or its
    faults.
    """
    file = Path(path)
    try:
        return parse_plan(read_input_text(file), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {error}") from error


class _Components(Struct):
    """The resolved objects of a plan: models, data sets and attacks by name, judges by spec."""

    models: dict[str, Model]
    data: dict[str, Dataset]
    judges: dict[str, Judge]
    attacks: dict[str, Attack]


def _cache_local_model(role: RoleName, spec: Spec, built: Any) -> Any:
    """Returns a local model with a cache of its answers, any other object as it is.

    Local models are deterministic, so variants that send the same request share the answer.
    """
    return CachedModel(built) if role == "model" and spec.kind == "local" else built


def _resolve_specs(plan: Plan) -> _Components:
    """Resolves all specs of a plan. Raises PlanError with the faults of all of them."""
    faults: list[str] = []

    def try_resolve(spec: str, role: RoleName, where: str) -> Any:
        try:
            return resolve(parse_spec(spec), role)
        except UserError as error:
            faults.extend(f"{where}: {fault}" for fault in error.faults)
            return None

    components = _Components({}, {}, {}, {})
    with share_instances(_cache_local_model):
        for name, data_plan in plan.data.items():
            components.data[name] = try_resolve(data_plan.spec, "data", f"data.{name}")
            if data_plan.attack:
                components.attacks[name] = try_resolve(
                    data_plan.attack, "attack", f"data.{name}.attack"
                )
            for spec in data_plan.judges or plan.run.judges:
                if spec not in components.judges:
                    components.judges[spec] = try_resolve(
                        spec, "judge", f"judge {redact_spec(spec)}"
                    )
        for name, spec in plan.models.items():
            components.models[name] = try_resolve(spec, "model", f"models.{name}")
    try:
        load_taxonomy(plan.run.taxonomy)
    except UserError as error:
        faults.extend(error.faults)
    if not faults:
        faults += _find_unauthorised(plan, components)
    if faults:
        raise PlanError(*faults)
    return components


def _find_unauthorised(plan: Plan, components: _Components) -> list[str]:
    """Returns a fault for each attack on an endpoint of another machine without a name in `[run]
    authorised`.
    """
    options = EvaluateOptions(authorised=plan.run.authorised, rate=plan.run.rate)
    faults: list[str] = []
    for name, data in plan.data.items():
        attacked = name in components.attacks or is_attacked_dataset(components.data[name])
        for variant in data.models or plan.models:
            try:
                select_rate_limits(components.models[variant], options, attacked=attacked)
            except PlanError as error:
                faults += [f"models.{variant}, data.{name}: {fault}" for fault in error.faults]
    return faults


def _evaluate_options(
    plan: Plan, data: DataPlan, on_progress: RunProgressCallback
) -> EvaluateOptions:
    run = plan.run
    sampling = Sampling(
        n=run.n,
        max_tokens=data.max_tokens or run.max_tokens,
        temperature=run.temperature,
        top_p=run.top_p,
    )
    return EvaluateOptions(
        sampling=sampling,
        seed=run.seed,
        limit=data.limit or run.limit,
        sample=run.sample,
        concurrency=run.concurrency,
        progress=on_progress,
        taxonomy=run.taxonomy,
        authorised=run.authorised,
        rate=run.rate,
    )


def _run_order(plan: Plan) -> list[str]:
    """Returns the variants, those that sample several answers of a model first.

    The others then find their answers cached: the plain answer is the first of best-of-4's four.
    """
    return sorted(plan.models, key=lambda name: parse_spec(plan.models[name]).kind != "best-of")


def run_plan(
    plan: Plan,
    out: str | Path,
    tell: PlanProgressCallback | None = None,
    rank: Callable[..., Ranking] | None = None,
) -> ReportData:
    """Runs, or resumes, every variant on every data set under `out`; returns the data of the
    report.

    `tell` is called with the progress; `rank(title, spec, model)` makes a ranking of the baseline
    model.
    """
    started = time.monotonic()
    components = _resolve_specs(plan)
    folder = Path(out)
    for variant in _run_order(plan):
        for name, data in plan.data.items():
            if data.models and variant not in data.models:
                continue

            # Defaults bind the loop variables of this round.
            def report_progress(
                done: int, total: int, failures: int, variant: str = variant, name: str = name
            ) -> None:
                if tell is not None:
                    tell(PlanProgress(variant, name, done, total, failures))

            judges = [components.judges[spec] for spec in data.judges or plan.run.judges]
            path = folder / variant / name
            stored = [folder / other / name for other in plan.models]
            options = _evaluate_options(plan, data, report_progress)
            options = keep_stored_sample(options, *stored)
            evaluate(
                components.models[variant],
                components.data[name],
                judges,
                path,
                attack=components.attacks.get(name),
                options=options,
            )
            write_summary(path)
    rankings = []
    if rank is not None:
        baseline = components.models[plan.baseline_variant]
        rankings = [rank(title, spec, baseline) for title, spec in plan.rank.items()]
    return read_report_data(plan, folder, rankings, time.monotonic() - started)


def read_report_data(
    plan: Plan, folder: Path, rankings: list[Ranking], seconds: float | None = None
) -> ReportData:
    """Returns the data of the report from the runs that are on disk under `folder`."""
    # Runs that have not begun are left out.
    runs = {
        variant: {
            data: path
            for data in plan.data
            if ((path := folder / variant / data) / "manifest.json").is_file()
        }
        for variant in plan.models
    }
    options = ReportOptions(
        title=plan.title,
        baseline=plan.baseline_variant,
        margin=plan.run.margin,
        max_harm=plan.run.max_harm,
        with_text=plan.with_text,
        rankings=rankings,
        seconds=seconds,
    )
    return assemble_report(runs, options)
