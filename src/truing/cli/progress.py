"""What commands that write a run show: a progress bar, and the rates when they end."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import msgspec

from truing.cli.tables import escape_line, print_json, print_next_steps, print_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from truing.analysis.rates import Rate
    from truing.analysis.summary import RunSummary


class ProgressBar:
    """A progress bar on standard error; hidden if `quiet` or if that is no terminal.

    Call it with the samples done, the samples in all, and the failures so far. `resumable`: the
    same command continues an interrupted run, and Ctrl-C prints a line that says so.
    """

    def __init__(self, label: str, *, quiet: bool = False, resumable: bool = False) -> None:
        self._label = escape_line(label)
        self._resumable = resumable
        # A bar in a log file or a pipe would be thousands of lines.
        self._visible = not quiet and sys.stderr.isatty()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressBar:
        if self._visible:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[failures]}"),
                console=Console(stderr=True),
                refresh_per_second=4,
            )
            self._progress.start()
            self._task = self._progress.add_task(self._label, total=None, failures="")
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        if error_type is KeyboardInterrupt and self._resumable:
            print_text(
                "truing: interrupted; what is finished is saved, and the same command continues",
                file=sys.stderr,
            )

    def __call__(self, done: int, total: int, failures: int) -> None:
        """Shows the new state; called after each sample."""
        if self._progress is not None and self._task is not None:
            failure_text = f"{failures} failed" if failures else ""
            self._progress.update(self._task, completed=done, total=total, failures=failure_text)


def finish_run(out: Path, *, as_json: bool, repeatable: bool = False) -> int:
    """Writes the summary.json of a run and prints its rates; if `repeatable`, also how to repeat
    the answers that failed.

    Returns the exit status: 1 if the run has answers and all of them failed, else 0.
    """
    from truing.analysis.summary import write_summary
    from truing.cli.run_folders import label_words
    from truing.runs.folder import Run

    summary = write_summary(out)
    model = Run(out).manifest.model
    outcomes = read_failures(out)
    failures = Counter(failure for failure in outcomes if failure is not None)
    if as_json:
        counts = {
            "run": str(out),
            "model": model,
            "responses": len(outcomes),
            "failures": dict(failures),
        }
        print_json(msgspec.json.encode({**counts, **msgspec.to_builtins(summary)}))
    else:
        print_text(f"{out}: {len(outcomes)} answers of {model}")
        for rate in rates_by_expectation(summary):
            print_text(_format_rate(rate))
    failed = failures.total()
    if failed:
        top_failures = ", ".join(f"{count} x {kind}" for kind, count in failures.most_common(3))
        print_text(
            f"truing: {failed} of {len(outcomes)} answers failed: {top_failures}",
            file=sys.stderr,
        )
        if repeatable:
            print_text(f"truing: {_describe_repetition(out)}", file=sys.stderr)
    if outcomes and failed == len(outcomes):
        return 1
    if not as_json:
        print_next_steps(
            [
                ("truing", "ui", out),
                label_words(out, {rate.question for rate in summary.rates}),
                ("truing", "report", out, "--out", f"{out}-report"),
            ]
        )
    return 0


_AXES_OF_QUESTION = {
    "harmful": ("attack_success", "harmful_benign"),
    "refused": ("refuses_harmful", "refuses_benign"),
}


def rates_by_expectation(summary: RunSummary) -> list[Rate]:
    """Returns the overall rates, for harmful and benign prompts apart where a run has both.

    A rate of refusals over both kinds says nothing: one half should be refused.
    """
    from truing.analysis.rates import PREDICTED_SUFFIX

    rates = []
    for rate in summary.rates:
        if rate.category is not None or rate.question.endswith(PREDICTED_SUFFIX):
            continue
        apart = [
            axis
            for axis in summary.axes
            if axis.question in _AXES_OF_QUESTION.get(rate.question, ())
            and axis.category is None
            and axis.judge == rate.judge
            and axis.group == rate.group
            and axis.n
        ]
        rates += apart if len(apart) == 2 else [rate]
    return rates


def _format_rate(rate: Rate) -> str:
    line = f"  {rate.question:<16} {rate.judge:<20} {rate.events} of {rate.scored}"
    if rate.raw is None:
        return line
    estimate, lower, upper = (100 * x for x in (rate.raw.estimate, rate.raw.lower, rate.raw.upper))
    line += f"  {estimate:.1f} % [{lower:.1f}, {upper:.1f}]"
    if rate.unscored:
        line += f", {rate.unscored} unscored"
    if rate.selected_by_judge:
        line += f"  (struck: {rate.struck})"
    return line


def _describe_repetition(out: Path) -> str:
    """Returns what to do about the failures of a run."""
    from truing.evaluation.failures import RESPONSES, find_repeated
    from truing.evaluation.options import EvaluateOptions
    from truing.runs.parts import locate_record_files

    options = EvaluateOptions()
    files = locate_record_files(out, RESPONSES)
    repeated = sum(1 for file in files for _ in find_repeated(file, options))
    if not repeated:
        return "the same command with --retry-failures asks them again"
    return f"the same command asks {repeated} of them again (--retry-failures: all of them)"


class _StoredFailure(msgspec.Struct, frozen=True):
    """The one field of a stored answer that is read here; decoding the rest would cost time."""

    failure: dict[str, str] | None = None


def read_failures(out: Path) -> list[str | None]:
    """Returns for each stored answer why it failed (kind and start of the message), or None."""
    from truing.runs.parts import read_run_records

    records = read_run_records(out, "responses.jsonl", _StoredFailure)
    return [None if r.failure is None else _describe_failure(r.failure) for r in records]


def _describe_failure(failure: dict[str, str]) -> str:
    # " (asked 3 times)" is cut off: failures of one cause would otherwise be counted apart.
    message = failure.get("message", "").partition(" (asked ")[0]
    return f"{failure.get('kind')} ({message[:100]})"
