"""The story: which variants are measured on which data by which judges, read from TOML, run to a report.

    [models]                              # variant = model spec; the first is the baseline unless `baseline` says so
    plain = "local:smollm2"
    [data]                                # name = data spec, or a table with spec, judges, models, limit
    safety = "builtin:safety"
    [run]                                 # judges, seed, n, max_tokens, temperature, concurrency, limit
    judges = ["rules:refusal", "rules:degenerate"]

All faults of a plan are found before the first call to a model. Each variant is measured by the very same run.
"""

from __future__ import annotations

import re
import time
import tomllib
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from truing.analysis.comparison import compare
from truing.analysis.summary import write_summary
from truing.analysis.verdict_table import cached_verdict_tables
from truing.core.errors import PlanError, UserError, did_you_mean
from truing.core.protocols import Attack, Dataset, Judge, Model
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Sampling
from truing.core.version import __version__
from truing.evaluation.evaluate import evaluate, is_attacked_dataset, select_rate_limits
from truing.evaluation.options import EvaluateOptions
from truing.evaluation.options import ProgressCallback as Hears
from truing.models.cached_model import Memo
from truing.report.report_data import Ranking, Story, Variant
from truing.report.rows import collect
from truing.runs.folder import Run
from truing.specs.parser import Spec, parse_spec
from truing.specs.resolve import RoleName, resolve, share_instances


class DataPlan(Struct, frozen=True, kw_only=True):
    """One data set of a plan; `judges` and `models` narrow the plan's own (empty = all of them)."""

    spec: str
    judges: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    limit: int | None = None
    attack: str | None = None
    max_tokens: int | None = None


class RunPlan(Struct, frozen=True, kw_only=True):
    """How all runs of a plan are made."""

    judges: tuple[str, ...] = ("rules:refusal", "rules:degenerate")
    seed: int = 0
    n: int = 1
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    concurrency: int = 16
    limit: int | None = None
    taxonomy: str = "beavertails"
    margin: float = 0.05
    authorised: str = ""
    rate: float | None = None


class Plan(Struct, frozen=True, kw_only=True):
    """A whole plan. `rank` holds ranking specs `mcq:DATA-SPEC` or `perplexity:DATA-SPEC` for the baseline model."""

    title: str = "truing"
    models: dict[str, str]
    data: dict[str, DataPlan]
    run: RunPlan = RunPlan()
    baseline: str = ""
    rank: dict[str, str] = field(default_factory=dict)
    with_text: bool = False

    @property
    def base(self) -> str:
        """The variant that the others are compared with."""
        return self.baseline or next(iter(self.models))


class Progress(Struct, frozen=True):
    """Where a plan is: a stage with its variant and data set, and how far it has come."""

    variant: str
    data: str
    done: int
    total: int
    failures: int


Tell = Callable[[Progress], None]


_TYPES: dict[str, tuple[type, ...]] = {
    "seed": (int,),
    "n": (int,),
    "max_tokens": (int,),
    "concurrency": (int,),
    "limit": (int,),
    "temperature": (float, int),
    "top_p": (float, int),
    "margin": (float, int),
    "taxonomy": (str,),
    "spec": (str,),
    "authorised": (str,),
    "rate": (float, int),
    "attack": (str,),
    "judges": (list,),
    "models": (list,),
}


def _fields(
    kind: type[Struct], table: Mapping[str, Any], where: str, faults: list[str]
) -> dict[str, Any]:
    """The keys of a table that fit a Struct; what does not fit becomes a fault with its key path."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        if key not in kind.__struct_fields__:
            faults.append(f"{where}.{key}: unknown key{did_you_mean(key, kind.__struct_fields__)}")
            continue
        wanted = _TYPES[key]
        if not isinstance(value, wanted) or isinstance(value, bool):
            faults.append(
                f"{where}.{key}: expected {' or '.join(t.__name__ for t in wanted)}, got {value!r}"
            )
            continue
        if isinstance(value, list):
            if not all(isinstance(v, str) for v in value):
                faults.append(f"{where}.{key}: expected a list of texts")
                continue
            value = tuple(value)
        out[key] = value
    return out


def _texts(table: object, where: str, faults: list[str]) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        faults.append(f'{where}: expected name = "spec" lines')
        return {}
    return dict(table)


def parse_plan(text: str, where: str = "plan") -> Plan:
    """A plan from TOML text; PlanError with every fault that can be seen without resolving the specs."""
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"{where}: {error}") from error
    faults: list[str] = []
    faults += [
        f"{where}: {k}: unknown key{did_you_mean(k, Plan.__struct_fields__)}"
        for k in given
        if k not in Plan.__struct_fields__
    ]
    models = _texts(given.get("models", {}), f"{where}: models", faults)
    data: dict[str, DataPlan] = {}
    for name, value in (given.get("data") or {}).items():
        table = {"spec": value} if isinstance(value, str) else value
        if not isinstance(table, dict) or not isinstance(table.get("spec"), str):
            faults.append(f"{where}: data.{name}: expected a spec, or a table with spec")
            continue
        data[name] = DataPlan(
            **{"spec": "", **_fields(DataPlan, table, f"{where}: data.{name}", faults)}
        )
    run = RunPlan(**_fields(RunPlan, given.get("run") or {}, f"{where}: run", faults))
    if not models:
        faults.append(f"{where}: models: none given")
    if not data:
        faults.append(f"{where}: data: none given")
    for name in [*models, *data]:
        if not re.fullmatch(r"[^\W_](?:[\w .+-]{0,58}[\w+-])?", name):
            faults.append(
                f"{where}: {name!r}: a name becomes a folder; use letters, digits, spaces, '-', '_', '+' and '.'"
            )
    baseline = str(given.get("baseline", ""))
    if baseline and baseline not in models:
        faults.append(
            f"{where}: baseline: there is no model {baseline!r}{did_you_mean(baseline, models)}"
        )
    for name, one in data.items():
        faults += [
            f"{where}: data.{name}.models: there is no model {m!r}{did_you_mean(m, models)}"
            for m in one.models
            if m not in models
        ]
    if faults:
        raise PlanError(*faults)
    return Plan(
        title=str(given.get("title", "truing")),
        models=models,
        data=data,
        run=run,
        baseline=baseline,
        rank=_texts(given.get("rank", {}), f"{where}: rank", faults),
        with_text=bool(given.get("with_text", False)),
    )


def read_plan(path: str | Path) -> Plan:
    """A plan from a TOML file."""
    file = Path(path)
    try:
        return parse_plan(file.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: {error}") from error


class _Parts(Struct):
    models: dict[str, Model]
    data: dict[str, Dataset]
    judges: dict[str, Judge]
    attacks: dict[str, Attack]


def _remember(role: RoleName, spec: Spec, built: Any) -> Any:
    return Memo(built) if role == "model" and spec.kind == "local" else built


def _resolve_all(plan: Plan) -> _Parts:
    faults: list[str] = []

    def one(spec: str, role: RoleName, where: str) -> Any:
        try:
            return resolve(parse_spec(spec), role)
        except UserError as error:
            faults.extend(f"{where}: {fault}" for fault in error.faults)
            return None

    parts = _Parts({}, {}, {}, {})
    with share_instances(_remember):
        for name, one_data in plan.data.items():
            parts.data[name] = one(one_data.spec, "data", f"data.{name}")
            if one_data.attack:
                parts.attacks[name] = one(one_data.attack, "attack", f"data.{name}.attack")
            for spec in one_data.judges or plan.run.judges:
                if spec not in parts.judges:
                    parts.judges[spec] = one(spec, "judge", f"judge {spec}")
        for name, spec in plan.models.items():
            parts.models[name] = one(spec, "model", f"models.{name}")
    try:
        load_taxonomy(plan.run.taxonomy)
    except UserError as error:
        faults.extend(error.faults)
    if not faults:
        faults += _unauthorised(plan, parts)
    if faults:
        raise PlanError(*faults)
    return parts


def _unauthorised(plan: Plan, parts: _Parts) -> list[str]:
    """Attacks on endpoints of other machines need a name in `[run] authorised`."""
    options = EvaluateOptions(authorised=plan.run.authorised, rate=plan.run.rate)
    faults: list[str] = []
    for name, data in plan.data.items():
        attacked = name in parts.attacks or is_attacked_dataset(parts.data[name])
        for variant in data.models or plan.models:
            try:
                select_rate_limits(parts.models[variant], options, attacked=attacked)
            except PlanError as error:
                faults += [f"models.{variant}, data.{name}: {fault}" for fault in error.faults]
    return faults


def _options(plan: Plan, data: DataPlan, tell: Hears) -> EvaluateOptions:
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
        concurrency=run.concurrency,
        progress=tell,
        taxonomy=run.taxonomy,
        authorised=run.authorised,
        rate=run.rate,
    )


def _order(plan: Plan) -> list[str]:
    """Variants that draw several answers of a model come first: the others then find theirs remembered."""
    return sorted(plan.models, key=lambda name: parse_spec(plan.models[name]).kind != "best-of")


def run_plan(
    plan: Plan,
    out: str | Path,
    tell: Tell | None = None,
    rank: Callable[..., Ranking] | None = None,
) -> Story:
    """Runs (or goes on with) every variant on every data set under `out`, and gives the story for the report."""
    started = time.monotonic()
    parts = _resolve_all(plan)
    folder = Path(out)
    for variant in _order(plan):
        for name, data in plan.data.items():
            if data.models and variant not in data.models:
                continue

            def heard(
                done: int, total: int, failures: int, variant: str = variant, name: str = name
            ) -> None:
                if tell is not None:
                    tell(Progress(variant, name, done, total, failures))

            judges = [parts.judges[spec] for spec in data.judges or plan.run.judges]
            path = folder / variant / name
            options = _options(plan, data, heard)
            evaluate(
                parts.models[variant],
                parts.data[name],
                judges,
                path,
                attack=parts.attacks.get(name),
                options=options,
            )
            write_summary(path)
    rankings = (
        [rank(title, spec, parts.models[plan.base]) for title, spec in plan.rank.items()]
        if rank
        else []
    )
    return tell_story(plan, folder, rankings, time.monotonic() - started)


def tell_story(
    plan: Plan, folder: Path, rankings: list[Ranking], seconds: float | None = None
) -> Story:
    """The story of runs that are on disk."""
    with cached_verdict_tables():
        return _tell(plan, folder, rankings, seconds)


def _tell(plan: Plan, folder: Path, rankings: list[Ranking], seconds: float | None) -> Story:
    from truing.analysis.summary import summarise

    variants = []
    for name in plan.models:
        paths = {
            d: folder / name / d
            for d in plan.data
            if (folder / name / d / "manifest.json").is_file()
        }
        runs = {d: Run(p) for d, p in paths.items()}
        variants.append(
            Variant(
                name=name,
                runs={d: str(p) for d, p in paths.items()},
                summaries={d: summarise(r) for d, r in runs.items()},
                manifests={d: r.manifest for d, r in runs.items()},
            )
        )
    base = next(v for v in variants if v.name == plan.base)
    comparisons = {
        v.name: {
            d: compare(base.runs[d], v.runs[d], margin=plan.run.margin)
            for d in v.runs
            if d in base.runs
        }
        for v in variants
        if v.name != plan.base
    }
    mild = all(d.spec.split(",", 1)[0].startswith("builtin:") for d in plan.data.values())
    rows, left = collect(variants, comparisons, with_text=plan.with_text or mild)
    return Story(
        title=plan.title,
        created=date.today().isoformat(),
        version=__version__,
        baseline=plan.base,
        variants=tuple(variants),
        data=tuple(plan.data),
        comparisons=comparisons,
        rankings=tuple(rankings),
        rows=tuple(rows),
        rows_left_out=left,
        with_text=plan.with_text or mild,
        seconds=seconds,
    )
