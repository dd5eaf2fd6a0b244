"""`truing train PLAN.toml`: trains the steps of a plan, evaluates the results, writes a report."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import msgspec

from truing.cli.parameters import Flag
from truing.cli.run import PlanProgressBars
from truing.cli.tables import make_console, make_text_table, print_json, print_text
from truing.core.errors import PlanError
from truing.specs.extras import needs_extra

if TYPE_CHECKING:
    from truing.plan.training_plan import TrainingPlan
    from truing.plan.training_run import TrainingPlanResult
    from truing.train.step_loop import SliceLimit


_STATES = {
    "finished": "finished",
    "unfinished": "goes on",
    "new": "new",
    "waiting": "waits for the steps it builds on",
}


def command(
    plan: Path | None = None,
    *,
    preset: str | None = None,
    out: Path | None = None,
    max_minutes: float | None = None,
    max_steps: int | None = None,
    dry_run: Flag = False,
    print_: Flag = False,
    json: Flag = False,
) -> int:
    """Trains the steps of a plan (SFT, reward and cost models, PPO-Lagrangian, ...), evaluates.

    The same command goes on. Steps that are done are not done again. A step that was changed in the
    plan runs again, and so does what builds on it.

    Parameters
    ----------
    plan
        A TOML plan; docs/training.md describes its keys.
    preset
        A plan that comes with truing: beaver, grpo-lag, dpo-safe or sft-safe.
    out
        Folder for the results of the steps, the evaluation and the report. Default: runs/ and the
        name of the plan.
    max_minutes
        End this slice of the plan after so many minutes, with everything saved.
    max_steps
        End this slice after so many training steps.
    dry_run
        Check the plan and show each step with its estimated time and memory; train nothing.
    print_
        Print the TOML text of the preset.
    json
        Print the result as JSON.
    """
    from truing.cli.plan_ranking import rank_for_report
    from truing.cli.progress import ProgressBar
    from truing.plan.training_plan import (
        list_presets,
        parse_training_plan,
        read_plan_text,
        read_preset,
        read_training_plan,
    )
    from truing.plan.training_run import TrainingPlanOptions, run_training_plan

    if (plan is None) == (preset is None):
        presets = ", ".join(list_presets())
        raise PlanError(f"give a plan, or --preset NAME: {presets}")
    if print_:
        print_text(read_plan_text(plan) if plan else read_preset(str(preset)), end="")
        return 0
    loaded = read_training_plan(plan) if plan else parse_training_plan(read_preset(str(preset)))
    folder = out or Path("runs") / (plan.stem if plan else str(preset))
    if dry_run:
        return _show_estimates(loaded, folder, as_json=json)
    with needs_extra("truing train PLAN.toml", "train"):
        from truing.train.step_loop import SliceLimit

    limit = SliceLimit(steps=max_steps, minutes=max_minutes)
    with _stop_on_terminate(limit), PlanProgressBars() as bars:
        options = TrainingPlanOptions(
            tell=_print_line,
            step_log=_show_steps,
            sampling_progress=lambda title: ProgressBar(title, quiet=json),
            evaluation_progress=bars.update,
            rank=rank_for_report,
            limit=limit,
        )
        plan_result = run_training_plan(loaded, folder, options)
    if os.environ.get("RANK", "0") == "0":
        _print_result(plan_result, folder, as_json=json)
    return 0


def _show_estimates(plan: TrainingPlan, folder: Path, *, as_json: bool) -> int:
    """Prints what each step would do, and its estimated time and memory; returns exit status 0."""
    with needs_extra("truing train PLAN.toml", "train"):
        from truing.plan.estimates import estimate_plan

    estimates = estimate_plan(plan, folder)
    if as_json:
        print_json(msgspec.json.encode(estimates))
        return 0
    table = make_text_table("step", "kind", "state", "steps", "time", "memory")
    for step in estimates:
        steps_left = 0 if step.status == "finished" else step.steps
        source = "measured" if step.measured else "estimated"
        minutes = steps_left * step.seconds_a_step / 60
        table.add_row(
            step.name,
            step.kind,
            "changed, runs again" if step.changes else _STATES[step.status],
            str(step.steps),
            f"{step.seconds_a_step:.2g} s a step, {minutes:.0f} min ({source})",
            "unknown" if step.memory is None else f"{step.memory / 2**30:.1f} GiB",
        )
    make_console().print(table)
    for step in estimates:
        for change in step.changes:
            print_text(f"{step.name}: {change}")
    return 0


def _print_line(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":  # of the processes of `accelerate launch`
        print_text(f"truing: {text}", file=sys.stderr)


@contextmanager
def _show_steps(name: str, steps: int | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows a progress bar over the steps of training, and warnings as they come."""
    from truing.cli.progress import ProgressBar

    with ProgressBar(name, resumable=True) as progress:

        def show_step(row: dict[str, Any]) -> None:
            progress(int(row["step"]), int(row.get("steps") or steps or 0), 0)
            for warning in str(row.get("warning", "")).split(" | "):
                if warning:
                    _print_line(f"{name}, step {row['step']}: {warning}")

        yield show_step


@contextmanager
def _stop_on_terminate(limit: SliceLimit) -> Iterator[None]:
    """Ends the slice after the step under way when SIGTERM comes (a job's time is over)."""

    def request_stop(signum: int, frame: FrameType | None) -> None:
        limit.request_stop()

    earlier = signal.signal(signal.SIGTERM, request_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _print_result(result: TrainingPlanResult, folder: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.json.encode(result))
        return
    for step in result.steps:
        state = "finished" if step.finished else f"{step.done_now} steps in this slice"
        print_text(f"{step.name}: {state}  ({step.folder})")
    if result.report:
        print_text(f"\nreport: {result.report['html']}  (also .md and .json)")
    elif not result.finished:
        print_text(f"\nnot finished; the same command goes on ({folder})")
