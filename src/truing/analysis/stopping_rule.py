"""Stopping rules: when a run knows enough, as given to `--until`.

    "harm(width<0.05)"      "harm(upper<0.02 or lower>0.02)"      "decided vs RUN"

One prompt is one draw, in a random order fixed by the seed; its value is the mean verdict over its
answers. Bounds are those of a betting confidence sequence (arXiv 2010.09686), so that looking
after every draw costs no coverage. Draws that could not be scored count at their worst in `upper`
and `lower`, and not at all in `width`. The price is width: about 1.3 to 2 times that of an
interval for a number of draws fixed beforehand.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from truing.analysis.rates import AXES, QUESTION_ALIASES, verdict_codes
from truing.analysis.stopped_runs import prompt_means
from truing.analysis.verdict_table import read_verdict_table
from truing.core.errors import PlanError, RunError
from truing.core.protocols import Judge
from truing.stats.sequential import BettingSequence, PairedBettingSequence

_RULE = re.compile(
    r"^(?:(?P<question>[a-z][a-z0-9_-]*)\s*\((?P<inside>.*)\)"
    r"|(?P<bare>decided\s+vs\s+.+))$"
)
_VERSUS = re.compile(r"^decided\s+vs\s+(?P<run>.+)$")
_CONDITION = re.compile(
    r"^(?P<quantity>width|upper|lower)\s*(?P<op><|>)\s*(?P<limit>[0-9.]+)\s*(?P<percent>%)?$"
)
_OPERATORS = {"width": "<", "upper": "<", "lower": ">"}
FORMS = '"harm(width<0.05)", "harm(upper<0.02 or lower>0.02)" or "decided vs RUN"'


class Condition(NamedTuple):
    """A condition on a quantity of the interval: `holds(quantity, limit)`."""

    quantity: str
    holds: Callable[[float, float], bool]
    limit: float


class BoundRule:
    """Stops when one of its conditions on the interval of a rate holds."""

    def __init__(self, text: str, question: str, conditions: Sequence[Condition]) -> None:
        self.text, self.question, self.conditions = text, question, conditions
        # Three sequences: without the unscored draws, and with them as non-events and as events.
        self.scored, self.best, self.worst = BettingSequence(), BettingSequence(), BettingSequence()

    def __str__(self) -> str:
        return self.text

    def observe(self, sample_id: str, verdict: float | bool | None) -> bool:
        """Adds the next draw (None: unscored) and returns whether to stop the run."""
        if verdict is not None:
            self.scored.add(float(verdict))
        self.best.add(0.0 if verdict is None else float(verdict))
        self.worst.add(1.0 if verdict is None else float(verdict))
        quantities = {
            "width": self.scored.interval().width if self.scored.n else 1.0,
            "upper": self.worst.interval().upper,
            "lower": self.best.interval().lower,
        }
        # Several conditions are one look at one sequence each, which are valid at all times.
        return any(c.holds(quantities[c.quantity], c.limit) for c in self.conditions)


class DecidedRule:
    """Stops when the paired difference to a baseline run is shown to be positive or negative.

    `baseline` has the mean verdict by sample id.
    """

    def __init__(self, text: str, question: str, baseline: Mapping[str, float]) -> None:
        self.text, self.question, self.baseline = text, question, baseline
        self.sequence = PairedBettingSequence()

    def __str__(self) -> str:
        return self.text

    def observe(self, sample_id: str, verdict: float | bool | None) -> bool:
        """Adds the next draw and returns whether to stop the run.

        Samples that the baseline lacks, or that either run could not score, are passed over.
        """
        baseline_verdict = self.baseline.get(sample_id)
        if baseline_verdict is None or verdict is None:
            return False
        self.sequence.add(baseline_verdict, float(verdict))
        interval = self.sequence.interval()
        return interval.lower > 0 or interval.upper < 0


def parse_stopping_rule(text: str, judges: Sequence[Judge] = ()) -> BoundRule | DecidedRule:
    """Parses a stopping rule.

    Args:
        text: the rule, see above.
        judges: the judges of the run; a baseline has to be judged by the same version.

    Raises:
        PlanError: the text is no rule.
        RunError: the baseline was not judged by the same judge.
    """
    match = _RULE.match(text.strip())
    if match is None:
        raise PlanError(f"--until {text!r}: expected {FORMS}")
    name = match["question"] or "harm"
    question = QUESTION_ALIASES.get(name, name)
    if question in AXES:
        # A rule sees one verdict per draw, and not what is expected of the prompt.
        raise PlanError(
            f"--until {text!r}: {name!r} is an axis; a run stops by a judge's question "
            f"({AXES[question].question!r})"
        )
    inside = match["bare"] or match["inside"].strip()
    versus = _VERSUS.match(inside)
    if versus is not None:
        baseline = _read_baseline(Path(versus["run"].strip()), question, judges)
        return DecidedRule(text, question, baseline)
    parts = re.split(r"\s{1,50}or\s{1,50}", inside)
    return BoundRule(text, question, [_parse_condition(part.strip(), text) for part in parts])


def _parse_condition(part: str, text: str) -> Condition:
    match = _CONDITION.match(part)
    if match is None:
        raise PlanError(f"--until {text!r}: {part!r} is no condition; expected {FORMS}")
    quantity, op = match["quantity"], match["op"]
    if op != _OPERATORS[quantity]:
        # The interval starts as [0, 1], so "width > x" would stop at once.
        raise PlanError(
            f"--until {text!r}: {quantity} {op} holds at the start; use {quantity} "
            f"{_OPERATORS[quantity]}"
        )
    try:
        limit = float(match["limit"]) / (100 if match["percent"] else 1)
    except ValueError:
        raise PlanError(f"--until {text!r}: {match['limit']!r} is no number") from None
    if not 0 < limit < 1:
        raise PlanError(f"--until {text!r}: {limit:g} does not lie between 0 and 1")
    return Condition(quantity, operator.lt if op == "<" else operator.gt, limit)


def _read_baseline(path: Path, question: str, judges: Sequence[Judge]) -> dict[str, float]:
    """Returns the mean verdict by sample id of a run."""
    table = read_verdict_table(path, ids=True)
    judge = next((j for j in judges if j.question == question), None)
    if judge is None:
        column = table.headline_column(question)
    else:
        column = table.columns.get((judge.name, question))
    if column is None or (judge is not None and column.record.lineage.hash != judge.lineage.hash):
        whom = "any judge" if judge is None else f"{judge.name} (in this version)"
        raise RunError(
            f"{path}: {question!r} was not answered there by {whom}: "
            "judge that run first (truing judge)"
        )
    ids = table.ids or []
    codes = verdict_codes(table, column)
    return {ids[position]: mean for position, mean in prompt_means(codes, range(table.size))}
