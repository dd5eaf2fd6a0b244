"""Runs a plan: resolves its specs, measures every variant on every data set, and reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from truing.analysis.summary import write_summary
from truing.core.errors import PlanError, UserError
from truing.core.protocols import Attack, Dataset, Judge, Model
from truing.core.taxonomy import load_taxonomy
from truing.core.types import Sampling
from truing.evaluation.evaluate import evaluate, is_attacked_dataset, select_rate_limits
from truing.evaluation.options import EvaluateOptions, RunBudget
from truing.evaluation.options import ProgressCallback as RunProgressCallback
from truing.evaluation.row_sample import keep_stored_sample
from truing.models.cached_model import CachedModel
from truing.models.recorded import ReplayedModel
from truing.plan.evaluation import DataPlan, Plan
from truing.plan.recorded_answers import replay_recorded
from truing.plan.spending import (
    BudgetShares,
    PlannedRun,
    measure_dataset,
    read_variant_prices,
)
from truing.report.assembly import ReportOptions, assemble_report
from truing.report.report_data import Ranking, ReportData
from truing.specs.parser import Spec, parse_spec, redact_spec
from truing.specs.resolve import RoleName, check_kind, resolve, share_instances

_BUDGET_ROUNDS = 3
_QUICK_JUDGES = frozenset({"rules", "keywords", "state"})  # they load no weights and no code


class PlanProgress(Struct, frozen=True):
    """The progress of a plan: the current variant and data set, with counts of its samples."""

    variant: str
    data: str
    done: int
    total: int
    failures: int


PlanProgressCallback = Callable[[PlanProgress], None]


class _Components(Struct):
    """The resolved objects of a plan: models, data sets and attacks by name, judges by spec."""

    models: dict[str, Model]
    data: dict[str, Dataset]
    judges: dict[str, Judge]
    attacks: dict[str, Attack]
    replayed: dict[tuple[str, str], ReplayedModel] = {}

    def find_model(self, variant: str, data: str) -> Model:
        """Returns the model that answers a data set: the variant, or its recorded answers."""
        return self.replayed.get((variant, data), self.models[variant])


def _cache_local_model(role: RoleName, spec: Spec, built: Any) -> Any:
    """Returns a local model with a cache of its answers, any other object as it is.

    Local models are deterministic, so variants that send the same request share the answer.
    """
    return CachedModel(built) if role == "model" and spec.kind == "local" else built


def _list_specs(plan: Plan) -> Iterator[tuple[str, RoleName, str]]:
    """Yields the specs of a plan with their roles and places: judges, which may load weights for
    seconds, come last, so that what is wrong with the others is told before.
    """
    for name, data in plan.data.items():
        yield data.spec, "data", f"data.{name}"
        if data.attack:
            yield data.attack, "attack", f"data.{name}.attack"
    for name, spec in plan.models.items():
        yield spec, "model", f"models.{name}"
    judges = (spec for data in plan.data.values() for spec in data.judges or plan.run.judges)
    for spec in dict.fromkeys(judges):
        yield spec, "judge", f"judge {redact_spec(spec)}"


def _resolve_specs(plan: Plan) -> _Components:
    """Resolves all specs of a plan.

    Raises PlanError with the faults of all of them; judges that may load weights are not built
    where data or models have faults.
    """
    faults: list[str] = []
    _collect_setting_faults(plan, faults)
    specs = list(_list_specs(plan))
    parsed: dict[tuple[RoleName, str], Spec] = {}
    for spec, role, place in specs:
        with _collect_faults(place, faults):
            parsed[role, spec] = check_kind(spec, role)
    built: dict[tuple[RoleName, str], Any] = {}
    with share_instances(_cache_local_model):
        for spec, role, place in specs:
            if (role, spec) not in parsed:
                continue
            if role != "judge" or not faults or parsed[role, spec].kind in _QUICK_JUDGES:
                with _collect_faults(place, faults):
                    built[role, spec] = resolve(parsed[role, spec], role)
    if faults:
        raise PlanError(*dict.fromkeys(faults))
    components = _Components(
        models={name: built["model", spec] for name, spec in plan.models.items()},
        data={name: built["data", data.spec] for name, data in plan.data.items()},
        attacks={
            name: built["attack", data.attack] for name, data in plan.data.items() if data.attack
        },
        judges={spec: judge for (role, spec), judge in built.items() if role == "judge"},
    )
    faults += _find_unauthorised(plan, components)
    components.replayed = replay_recorded(plan, components.models, components.data, faults)
    if faults:
        raise PlanError(*faults)
    return components


@contextmanager
def _collect_faults(place: str, faults: list[str]) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        faults += (f"{place}: {fault}" if place else fault for fault in error.faults)


def _collect_setting_faults(plan: Plan, faults: list[str]) -> None:
    with _collect_faults("", faults):
        load_taxonomy(plan.run.taxonomy)
    with _collect_faults("", faults):
        read_variant_prices(plan.models, plan.run.prices)


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
    plan: Plan, data_plan: DataPlan, on_progress: RunProgressCallback
) -> EvaluateOptions:
    run = plan.run
    sampling = Sampling(
        n=run.n,
        max_tokens=data_plan.max_tokens or run.max_tokens,
        temperature=run.temperature,
        top_p=run.top_p,
        stop=run.stop,
    )
    return EvaluateOptions(
        sampling=sampling,
        seed=run.seed,
        limit=data_plan.limit or run.limit,
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
    model. A run that the budget stops is not complete, and the same plan with a higher one goes on.
    """
    started = time.monotonic()
    components = _resolve_specs(plan)
    folder = Path(out)
    runs = _list_runs(plan, folder)
    budget = RunBudget(money=plan.run.budget, tokens=plan.run.budget_tokens)
    if budget.is_limited:
        sizes = {
            name: measure_dataset(components.data[name], data.limit or plan.run.limit)
            for name, data in plan.data.items()
        }
        shares = BudgetShares(budget, runs, sizes)
        # What later runs leave over goes to those that their share has stopped.
        for _ in range(_BUDGET_ROUNDS):
            stopped = []
            n_before = shares.answers
            for i, run in enumerate(runs):
                _evaluate_run(plan, components, run, tell, shares.share(run, runs[i + 1 :]))
                stopped += [run] if shares.update(run) else []
            runs = stopped
            if shares.answers == n_before:
                break  # what is left fits no row of any run
    else:
        for run in runs:
            _evaluate_run(plan, components, run, tell, budget)
    rankings = []
    if rank is not None:
        baseline = components.models[plan.baseline_variant]
        rankings = [rank(title, spec, baseline) for title, spec in plan.rank.items()]
    return read_report_data(plan, folder, rankings, time.monotonic() - started)


def _list_runs(plan: Plan, folder: Path) -> list[PlannedRun]:
    """Returns the runs of a plan, in their order."""
    prices = read_variant_prices(plan.models, plan.run.prices)
    return [
        PlannedRun(
            variant=variant,
            data=name,
            path=folder / variant / name,
            answers=plan.run.n,
            max_tokens=data.max_tokens or plan.run.max_tokens,
            price=prices.get(variant),
        )
        for variant in _run_order(plan)
        for name, data in plan.data.items()
        if not data.models or variant in data.models
    ]


def _evaluate_run(
    plan: Plan,
    components: _Components,
    run: PlannedRun,
    tell: PlanProgressCallback | None,
    budget: RunBudget,
) -> None:
    """Runs, or resumes, one variant on one data set, and writes the summary."""

    def report_progress(done: int, total: int, failures: int) -> None:
        if tell is not None:
            tell(PlanProgress(run.variant, run.data, done, total, failures))

    data_plan = plan.data[run.data]
    options = replace(
        _evaluate_options(plan, data_plan, report_progress), budget=budget, price=run.price
    )
    stored = [run.path.parents[1] / other / run.data for other in plan.models]
    evaluate(
        components.find_model(run.variant, run.data),
        components.data[run.data],
        [components.judges[spec] for spec in data_plan.judges or plan.run.judges],
        run.path,
        attack=components.attacks.get(run.data),
        options=keep_stored_sample(options, *stored),
    )
    write_summary(run.path)


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
    shown_sets = [name for name, data in plan.data.items() if data.shown]
    options = ReportOptions(
        title=plan.title,
        about=plan.about,
        baseline=plan.baseline_variant,
        margin=plan.run.margin,
        max_harm=plan.run.max_harm,
        with_text=plan.with_text,
        rankings=rankings,
        seconds=seconds,
        shown=[
            {variant: by_data[name] for variant, by_data in runs.items() if name in by_data}
            for name in shown_sets
        ],
    )
    measured = {
        variant: {data: path for data, path in by_data.items() if data not in shown_sets}
        for variant, by_data in runs.items()
    }
    return assemble_report(measured, options)
