"""`truing run`: runs a plan (or the default plan) from models to a report."""

from __future__ import annotations

import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter
from msgspec.structs import replace
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from truing.cli.parameters import Flag, OptionalStrings
from truing.cli.run_folders import label_words
from truing.cli.spending import (
    STOPPED_BY_BUDGET,
    SpendingFlags,
    check_flags,
    describe_budget_stop,
    warn_of_uncounted_calls,
)
from truing.cli.tables import escape_line, print_json, print_next_steps, print_text
from truing.core.errors import PlanError, UserError

if TYPE_CHECKING:
    from truing.plan.evaluation import Plan
    from truing.plan.evaluation_run import PlanProgress
    from truing.report.report_data import ReportData

AGENT_JUDGES = ("state:done", "state:harm", "state:injection", "rules:refusal")
"""The judges of agents' tasks where none is named: of the end state, and of refusals."""
# The tasks themselves, or an attack or injection around them.
_AGENT_TASKS = re.compile(r"(?:^|[=(])(?:builtin:agents(?![\w-])|agents:)")


@Parameter(name="*")
@dataclass(frozen=True)
class SpecFlags:
    """What to measure without a plan.

    Parameters
    ----------
    model
        Specs of models, or NAME=SPEC; may be given several times. The first is the baseline.
    data
        Specs of data sets, or NAME=SPEC (default: builtin:safety).
    judge
        Specs of judges (default: rules:refusal, rules:degenerate and moderation:default; for tasks
        of agents, also beside other data, the checks of the end state and rules:refusal).
    authorised
        Who allowed that an agent acts with real tools, or an attack on an endpoint of another
        machine; recorded in the manifest. Also with a plan, in place of its `authorised`.
    """

    model: OptionalStrings = None
    data: OptionalStrings = None
    judge: OptionalStrings = None
    authorised: str = ""


@Parameter(name="*")
@dataclass(frozen=True)
class RowFlags:
    """Which rows of each data set are used.

    Parameters
    ----------
    limit
        Use only LIMIT rows of each data set, drawn at random.
    limit_first
        Use the first LIMIT rows instead.
    """

    limit: int | None = None
    limit_first: Flag = False


@Parameter(name="*")
@dataclass(frozen=True)
class AnswerFlags:
    """Which answers are drawn, and by how many variants of the shipped plan.

    Parameters
    ----------
    fresh
        Draw all answers anew, also those that the plan takes from recorded ones.
    full
        Without a plan: also a variant that gives the best of four answers, chosen by classifiers on
        the model's own states that learned what is harmful and what helps.
    """

    fresh: Flag = False
    full: Flag = False


def command(
    plan: Path | None = None,
    *,
    specs: SpecFlags | None = None,
    out: Path | None = None,
    rows: RowFlags | None = None,
    with_text: Flag = False,
    answers: AnswerFlags | None = None,
    spending: SpendingFlags | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Measures every variant of a plan on every data set and writes OUT/report.html, .md and .json.

    With --model and no plan: those models, the first of them the baseline. With neither: the
    embedded default model, as it is and with each safety measure that needs no training, on the
    built-in data sets. The same command continues an interrupted run. Exit 3 if a budget ends it.

    Parameters
    ----------
    plan
        A TOML plan; docs/plan.md describes its keys.
    out
        Folder for the run folders and the report (default: runs/default, or runs/FIRST-MODEL).
    with_text
        Include prompts and answers in the report, blurred until clicked.
    json_
        Print the paths and the headline figures as JSON.
    """
    from truing.cli.plan_ranking import rank_for_report
    from truing.cli.show import print_report
    from truing.plan.evaluation_run import run_plan
    from truing.plan.recorded_answers import without_recordings
    from truing.report import render

    specs = specs or SpecFlags()
    answers = answers or AnswerFlags()
    loaded = _choose_plan(plan, specs, full=answers.full)
    if out is None:
        out = Path("runs") / (loaded.baseline_variant if specs.model else "default")
    if rows is not None and rows.limit is not None:
        loaded = replace(loaded, run=replace(loaded.run, limit=rows.limit))
    if rows is not None and rows.limit_first:
        loaded = replace(loaded, run=replace(loaded.run, sample="first"))
    if specs.authorised:
        loaded = replace(loaded, run=replace(loaded.run, authorised=specs.authorised))
    if with_text:
        loaded = replace(loaded, with_text=True)
    if answers.fresh:
        loaded = without_recordings(loaded)
    if spending is not None and spending.are_given:
        loaded = _limit_spending(loaded, spending)
    _warn_of_budget(loaded)
    with PlanProgressBars() as bars:
        report = run_plan(loaded, out, bars.update, rank_for_report)
    paths = render.write_report(report, out)
    if json_:
        fields = {name: str(path) for name, path in paths.items()} | {"seconds": report.seconds}
        print_json(msgspec.json.encode(fields))
    else:
        print_report(report)
        print_text(f"\nreport: {paths['html']}  (also .md and .json)")
    stops = [
        describe_budget_stop(f"{variant.name} on {data}", manifest)
        for variant in report.variants
        for data, manifest in variant.manifests.items()
    ]
    for line in filter(None, stops):
        print_text(f"truing: {line}", file=sys.stderr)
    if not json_:
        print_next_steps(_next_steps(out, loaded, report))
    return STOPPED_BY_BUDGET if any(stops) else 0


def _limit_spending(plan: Plan, flags: SpendingFlags) -> Plan:
    """Returns the plan with the budget and the prices of the command line."""
    from truing.plan.evaluation import find_run_faults

    run = plan.run
    run_within_budget = replace(
        run,
        budget=run.budget if flags.budget is None else flags.budget,
        budget_tokens=run.budget_tokens if flags.budget_tokens is None else flags.budget_tokens,
        prices=run.prices if flags.prices is None else str(flags.prices),
    )
    check_flags(find_run_faults(run_within_budget))
    return replace(plan, run=run_within_budget)


def _warn_of_budget(plan: Plan) -> None:
    """Names the judges and attacks of a plan with a budget whose calls it does not count."""
    if plan.run.budget is not None or plan.run.budget_tokens is not None:
        data = plan.data.values()
        judges = (judge for part in data for judge in part.judges)
        attacks = (part.attack or "" for part in data)
        warn_of_uncounted_calls(
            [*plan.run.judges, *judges], [*(part.spec for part in data), *attacks]
        )


def _choose_plan(path: Path | None, specs: SpecFlags, *, full: bool = False) -> Plan:
    """Returns the plan that the arguments name: a file, one made of specs, or the shipped one."""
    from truing.plan.evaluation import read_plan
    from truing.plan.from_specs import plan_from_specs

    if full and (path is not None or specs.model):
        raise UserError("run: --full adds variants to the shipped plan; a plan names its own")
    if path is not None:
        if specs.model or specs.data or specs.judge:
            raise UserError("run: give a plan, or --model, --data and --judge, not both")
        return read_plan(path)
    if specs.model:
        data = specs.data or ["builtin:safety"]
        chosen = plan_from_specs(specs.model, data, specs.judge or default_judges())
        return chosen if specs.judge else _judge_agents_by_state(chosen)
    if specs.data or specs.judge:
        raise UserError("run: --data and --judge need --model (see `truing list models`)")
    return load_default_plan(full=full)


def default_judges() -> list[str]:
    """Returns the judges of a run that names none: the rules, and the shipped classifier if what it
    needs is installed. Agents' tasks have `AGENT_JUDGES`.
    """
    rules = ["rules:refusal", "rules:degenerate"]
    return [*rules, "moderation:default"] if find_spec("torch") else rules


def _judge_agents_by_state(plan: Plan) -> Plan:
    """Returns the plan with the judges of the end state on every data set of agents' tasks."""
    tasks = {
        name: replace(data, judges=AGENT_JUDGES)
        for name, data in plan.data.items()
        if _AGENT_TASKS.search(data.spec)
    }
    if len(tasks) == len(plan.data):
        return replace(plan, run=replace(plan.run, judges=AGENT_JUDGES))
    return replace(plan, data={**plan.data, **tasks})


def _next_steps(out: Path, plan: Plan, report: ReportData) -> list[str | Sequence[object]]:
    from truing.report.formatting import format_gate_command

    # A shown set is a few answers to read, and no figure.
    data_name = min(plan.data, key=lambda name: plan.data[name].shown)
    run = out / plan.baseline_variant / data_name
    summaries = (variant.summaries.get(data_name) for variant in report.variants)
    questions = {rate.question for summary in summaries if summary for rate in summary.rates}
    return [
        ("truing", "ui", out),
        label_words(run, questions),
        format_gate_command(shlex.quote(str(run))),
    ]


def load_default_plan(*, full: bool = False) -> Plan:
    """Returns the plan that is shipped with the package; with `full` and the slower variant."""
    from truing.core.toml_text import parse_toml
    from truing.plan.evaluation import read_plan_table

    folder = files("truing") / "resources" / "plans"
    names = ["default.toml", *(["full.toml"] if full else [])]
    tables = [parse_toml((folder / name).read_text(encoding="utf-8"), name) for name in names]
    faults: list[str] = []
    plan = read_plan_table(reduce(_merge_tables, tables), "", faults)
    if plan is None or faults:
        raise PlanError(*faults)
    return plan


def _merge_tables(table: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """Returns a TOML table with the keys of another; tables that both have are merged."""
    merged = dict(table)
    for key, value in added.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge_tables(merged[key], value) if both else value
    return merged


class PlanProgressBars:
    """A progress bar for each run of a plan, or a line at the end of each without a terminal."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._progress = Progress(
            TextColumn("{task.description:<28}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=not self._console.is_terminal,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._finished: set[tuple[str, str]] = set()
        self._started = time.monotonic()

    def __enter__(self) -> PlanProgressBars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def update(self, progress: PlanProgress) -> None:
        """Shows the progress of a run; called after each of its samples."""
        run = (progress.variant, progress.data)
        name = f"{progress.variant} · {progress.data}"
        if run not in self._tasks:
            self._tasks[run] = self._progress.add_task(escape_line(name), total=progress.total)
        self._progress.update(self._tasks[run], completed=progress.done, total=progress.total)
        # A log file gets one line for each run, not the frames of a bar.
        if self._console.is_terminal or progress.done != progress.total or run in self._finished:
            return
        self._finished.add(run)
        seconds = time.monotonic() - self._started
        print_text(f"{name}: {progress.total} in {seconds:.0f} s", file=sys.stderr, flush=True)
