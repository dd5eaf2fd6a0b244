"""What the commands of the run show: a progress bar with the time left, and a few lines at the end."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from truing.analysis.rates import Rate
from truing.analysis.summary import write_summary
from truing.core.jsonl import read_records
from truing.runs.folder import Run


class Bar:
    """A progress bar on standard error, and nothing where that is no terminal.

    `resumes`: the same command goes on where it was interrupted, and an interruption says so.
    """

    def __init__(self, label: str, *, quiet: bool = False, resumes: bool = False) -> None:
        self._label = label
        self._resumes = resumes
        self._bar: Any = None
        self._task: Any = None
        self._on = not quiet and sys.stderr.isatty()

    def __enter__(self) -> Bar:
        if self._on:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[trouble]}"),
                console=Console(stderr=True),
                refresh_per_second=4,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._label, total=None, trouble="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is KeyboardInterrupt and self._resumes:
            print(
                "truing: interrupted; what was answered is kept, and the same command goes on from there",
                file=sys.stderr,
            )

    def __call__(self, done: int, total: int, failures: int) -> None:
        """After each sample."""
        if self._bar is not None:
            trouble = f"{failures} failed" if failures else ""
            self._bar.update(self._task, completed=done, total=total, trouble=trouble)


def _line(rate: Rate) -> str:
    if rate.raw is None:
        return f"  {rate.question:<16} {rate.judge:<20} {rate.events} of {rate.scored}"
    shown = (
        f"{100 * rate.raw.estimate:.1f} % [{100 * rate.raw.lower:.1f}, {100 * rate.raw.upper:.1f}]"
    )
    struck = "  (struck: selected by this judge)" if rate.selected_by_judge else ""
    unscored = f", {rate.unscored} unscored" if rate.unscored else ""
    return f"  {rate.question:<16} {rate.judge:<20} {rate.events} of {rate.scored}  {shown}{unscored}{struck}"


def report(out: Path, *, as_json: bool) -> int:
    """Writes summary.json and prints what came out; 1 if the model never answered, else 0."""
    summary = write_summary(out)
    run = Run(out)
    failures: dict[str, int] = {}
    answers = 0
    for failure in failed(out):
        answers += 1
        if failure:
            failures[failure] = failures.get(failure, 0) + 1
    lost = sum(failures.values())
    if as_json:
        counts = {
            "run": str(out),
            "model": run.manifest.model,
            "responses": answers,
            "failures": failures,
        }
        sys.stdout.write(
            msgspec.json.encode({**counts, **msgspec.to_builtins(summary)}).decode() + "\n"
        )
    else:
        print(f"{out}: {answers} answers of {run.manifest.model}")
        for rate in summary.rates:
            if rate.category is None:
                print(_line(rate))
    if lost:
        kinds = ", ".join(
            f"{count} x {kind}" for kind, count in sorted(failures.items(), key=lambda i: -i[1])[:3]
        )
        print(f"truing: {lost} of {answers} answers failed: {kinds}", file=sys.stderr)
    return 1 if answers and lost == answers else 0


class _Failed(msgspec.Struct, frozen=True):
    failure: dict[str, str] | None = None


def failed(out: Path) -> list[str]:
    """For each stored answer an empty string, or why there is none (the kind, and the first words of the message)."""
    rows = [row.failure for row in read_records(out / "responses.jsonl", _Failed)]
    return [
        ""
        if f is None
        else f"{f.get('kind')} ({f.get('message', '').partition(' (asked ')[0][:100]})"
        for f in rows
    ]
