"""When a run knows enough: `--until "harm(width<0.05)"`, `"harm(upper<0.02 or lower>0.02)"`, `"decided vs RUN"`.

One prompt is one draw, in a random order fixed by the seed; its value is the mean verdict over its answers. Bounds are
those of a betting confidence sequence (arXiv 2010.09686), so that looking after every draw costs no coverage. Rows that
could not be scored count at their worst in `upper` and `lower`, and not at all in `width`. The price is width: about
1.3 to 2 times that of an interval for a number of rows fixed beforehand.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from truing.analysis.rates import AXES, QUESTION_ALIASES, verdict_codes
from truing.analysis.stopped_runs import prompt_means
from truing.analysis.verdict_table import read_verdict_table
from truing.core.errors import PlanError, RunError
from truing.core.protocols import Judge
from truing.stats.sequential import BettingSequence, PairedBettingSequence

_WHOLE = re.compile(
    r"^(?:(?P<question>[a-z][a-z0-9_-]*)\s*\(\s*(?P<inside>.*?)\s*\)|(?P<bare>decided\s+vs\s+.+))$"
)
_VERSUS = re.compile(r"^decided\s+vs\s+(?P<run>.+)$")
_CONDITION = re.compile(
    r"^(?P<what>width|upper|lower)\s*(?P<op><|>)\s*(?P<limit>[0-9.]+)\s*(?P<percent>%)?$"
)
_SIGNS = {"width": "<", "upper": "<", "lower": ">"}
FORMS = '"harm(width<0.05)", "harm(upper<0.02 or lower>0.02)" or "decided vs RUN"'

Condition = tuple[str, Callable[[float, float], bool], float]


class BoundRule:
    """Stops when one of its conditions on the sequence's interval holds."""

    def __init__(self, text: str, question: str, conditions: Sequence[Condition]) -> None:
        self.text, self.question, self.conditions = text, question, conditions
        self.scored, self.best, self.worst = BettingSequence(), BettingSequence(), BettingSequence()

    def __str__(self) -> str:
        return self.text

    def observe(self, sample_id: str, verdict: float | bool | None) -> bool:
        """The next draw; True stops the run."""
        if verdict is not None:
            self.scored.add(float(verdict))
        self.best.add(0.0 if verdict is None else float(verdict))
        self.worst.add(1.0 if verdict is None else float(verdict))
        now = {
            "width": self.scored.interval().width if self.scored.n else 1.0,
            "upper": self.worst.interval().upper,
            "lower": self.best.interval().lower,
        }
        return any(holds(now[what], limit) for what, holds, limit in self.conditions)


class DecidedRule:
    """Stops when the paired difference to a baseline run is shown to lie on one side of zero."""

    def __init__(self, text: str, question: str, baseline: Mapping[str, float]) -> None:
        self.text, self.question, self.baseline = text, question, baseline
        self.sequence = PairedBettingSequence()

    def __str__(self) -> str:
        return self.text

    def observe(self, sample_id: str, verdict: float | bool | None) -> bool:
        """The next draw; samples that the baseline lacks or could not score tell nothing."""
        before = self.baseline.get(sample_id)
        if before is None or verdict is None:
            return False
        self.sequence.add(before, float(verdict))
        interval = self.sequence.interval()
        return interval.lower > 0 or interval.upper < 0


def parse_stopping_rule(text: str, judges: Sequence[Judge] = ()) -> BoundRule | DecidedRule:
    """Reads a stopping rule; PlanError says what is wrong, RunError if the baseline was not judged by the same judge."""
    found = _WHOLE.match(text.strip())
    if found is None:
        raise PlanError(f"--until {text!r}: expected {FORMS}")
    asked = found["question"] or "harm"
    question = QUESTION_ALIASES.get(asked, asked)
    if question in AXES:
        raise PlanError(
            f"--until {text!r}: {asked!r} is an axis; a run stops by a judge's question ({AXES[question][0]!r})"
        )
    inside = found["bare"] or found["inside"]
    versus = _VERSUS.match(inside)
    if versus is not None:
        return DecidedRule(text, question, _baseline(Path(versus["run"].strip()), question, judges))
    conditions: list[Condition] = []
    for part in re.split(r"\s+or\s+", inside):
        one = _CONDITION.match(part.strip())
        if one is None:
            raise PlanError(f"--until {text!r}: {part!r} is no condition; expected {FORMS}")
        if one["op"] != _SIGNS[one["what"]]:
            raise PlanError(
                f"--until {text!r}: {one['what']} {one['op']} holds at the start; use {one['what']} "
                f"{_SIGNS[one['what']]}"
            )
        try:
            limit = float(one["limit"]) / (100 if one["percent"] else 1)
        except ValueError:
            raise PlanError(f"--until {text!r}: {one['limit']!r} is no number") from None
        if not 0 < limit < 1:
            raise PlanError(f"--until {text!r}: {limit:g} does not lie between 0 and 1")
        conditions.append((one["what"], operator.lt if one["op"] == "<" else operator.gt, limit))
    return BoundRule(text, question, conditions)


def _baseline(path: Path, question: str, judges: Sequence[Judge]) -> dict[str, float]:
    columns = read_verdict_table(path, ids=True)
    mine = next((j for j in judges if j.question == question), None)
    column = (
        columns.headline_column(question)
        if mine is None
        else columns.columns.get((mine.name, question))
    )
    if column is None or (mine is not None and column.record.lineage.hash != mine.lineage.hash):
        who = "no judge" if mine is None else f"{mine.name} (in this version)"
        raise RunError(
            f"{path}: {question!r} was not answered there by {who}: judge that run first (truing judge)"
        )
    ids = columns.ids or []
    return {
        ids[at]: value
        for at, value in prompt_means(verdict_codes(columns, column), range(columns.size))
    }
