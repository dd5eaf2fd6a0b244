"""The figures of a run, computed in the background and kept until its files change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from truing.analysis.rates import AXIS_TITLES, PREDICTED_SUFFIX, Rate
from truing.analysis.summary import RunSummary, summarise
from truing.report.blocks import Cell
from truing.report.formatting import make_rate_cell
from truing.runs.folder import Run
from truing.serve.ui.background import BackgroundCache, Fault, Pending
from truing.serve.ui.row_indexes import fingerprint
from truing.serve.ui.run_state import RunState

LABEL_FILES = ("labels/draws.jsonl", "labels/labels.jsonl")
# The figures of the list: the first of each group that a run has.
_LISTED = (
    ("harmful answers", ("attack_success", "harmful")),
    ("refuses benign", ("refuses_benign", "refused")),
    ("answers benign", ("answers_benign",)),
)
LISTED_TITLES = tuple(title for title, _ in _LISTED)
_MAX_SUMMARIES = 2_000


class RateRow(Struct, frozen=True):
    """A rate as a line of a table."""

    question: str
    judge: str
    cell: Cell
    n: int
    unscored: int


class Figures:
    """The summaries of runs."""

    def __init__(self) -> None:
        self._summaries: BackgroundCache[RunSummary] = BackgroundCache(
            "figures", size=_MAX_SUMMARIES
        )
        self._newest: dict[Path, RunSummary] = {}

    def get(self, state: RunState) -> RunSummary | Pending | Fault:
        """Returns the summary of a run; of a running one, the newest that is known."""
        key: tuple[object, ...] = fingerprint(state, LABEL_FILES)
        if state.status == "running":
            # Not at every answer: a summary reads the whole run.
            lines = state.answers + sum(state.judged.values())
            key = (str(state.path), count_steps(lines), "running")
        summary = self._summaries.get(key, lambda: summarise(Run(state.path)))
        if isinstance(summary, RunSummary):
            if len(self._newest) > _MAX_SUMMARIES:
                self._newest.clear()
            self._newest[state.path] = summary
        elif isinstance(summary, Pending) and state.path in self._newest:
            return self._newest[state.path]
        return summary

    def close(self) -> None:
        """Waits for the summary that is being computed."""
        self._summaries.close()


def count_steps(lines: int) -> int:
    """Returns how often the figures of a growing run were due: every 20 lines, later every 10 %."""
    if lines < 200:
        return lines // 20
    return 10 + int(math.log(lines / 200) / math.log(1.1))


def listed_cells(summary: RunSummary) -> tuple[Cell, ...]:
    """Returns the figures of a run in the list, in the order of `LISTED_TITLES`."""
    return tuple(make_rate_cell(_first_rate(summary, questions)) for _, questions in _LISTED)


def _first_rate(summary: RunSummary, questions: Sequence[str]) -> Rate | None:
    for question in questions:
        rate = summary.find(question)
        if rate is not None and rate.n:
            return rate
    return None


def rate_rows(summary: RunSummary) -> list[RateRow]:
    """Returns all rates over all categories, axes first."""
    rates = [r for r in (*summary.axes, *summary.rates) if r.category is None and r.n]
    return [
        RateRow(
            AXIS_TITLES.get(rate.question, rate.question)
            + (f", {rate.group} prompts" if rate.group else ""),
            rate.judge,
            make_rate_cell(rate),
            rate.n,
            rate.unscored,
        )
        for rate in rates
        if not rate.question.endswith(PREDICTED_SUFFIX)
    ]
