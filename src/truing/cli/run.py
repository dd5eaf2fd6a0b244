"""`truing run`: a plan (or the embedded default) from models to a report."""

from __future__ import annotations

import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from truing.plan import Plan, PlanProgress, parse_plan, read_plan, run_plan
from truing.report import render
from truing.report.report_data import ReportData


def run(
    plan: Path | None = None,
    *,
    out: Path = Path("runs/default"),
    limit: int | None = None,
    with_text: bool = False,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Measures every variant of a plan on every data set and writes OUT/report.html, .md and .json.

    Without a plan: the embedded default model, plain and with each lever that needs no training, on the built-in sets.
    The same command again goes on where it stopped.

    Parameters
    ----------
    plan
        A TOML plan; `truing run --help` and docs/plan.md show its keys.
    out
        Where run folders and the report go.
    limit
        Only the first so many rows of each data set.
    with_text
        Put prompts and answers into the report, blurred until clicked.
    json_
        Print the paths and the headline figures as JSON.
    """
    from msgspec.structs import replace

    given = read_plan(plan) if plan else default_plan()
    if limit is not None:
        given = replace(given, run=replace(given.run, limit=limit))
    if with_text:
        given = replace(given, with_text=True)
    story, paths = _go(given, out)
    if json_:
        import msgspec

        print(
            msgspec.json.encode(
                {k: str(v) for k, v in paths.items()} | {"seconds": story.seconds}
            ).decode()
        )
        return 0
    from truing.cli.show import print_story

    print_story(story)
    print(f"\nreport: {paths['html']}  (also .md and .json)")
    return 0


def default_plan() -> Plan:
    """The plan that ships."""
    return parse_plan(
        (files("truing") / "resources" / "plans" / "default.toml").read_text(encoding="utf-8"),
        "default.toml",
    )


def _go(plan: Plan, out: Path) -> tuple[ReportData, dict[str, Path]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    from truing.cli.rank import small_ranking

    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=not console.is_terminal) as bars:
        tasks: dict[tuple[str, str], int] = {}
        told: set[tuple[str, str]] = set()
        began = time.monotonic()

        def tell(p: PlanProgress) -> None:
            key = (p.variant, p.data)
            if key not in tasks:
                tasks[key] = bars.add_task(f"{p.variant} · {p.data}", total=p.total)
            bars.update(tasks[key], completed=p.done, total=p.total)  # type: ignore[arg-type]
            if (
                not console.is_terminal and p.done == p.total and key not in told
            ):  # a log gets lines, not bars
                told.add(key)
                print(
                    f"{p.variant} · {p.data}: {p.total} in {time.monotonic() - began:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )

        story = run_plan(plan, out, tell, small_ranking)
    return story, render.write_report(story, out)
