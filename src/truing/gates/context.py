"""What all rules of a gate look at."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from truing.analysis.judge_facts import JudgeFacts
from truing.analysis.rates import AXES, Rate
from truing.analysis.summary import RunSummary
from truing.gates.rules import GateRules
from truing.runs.folder import JudgeRecord, Run


class GateContext(Struct):
    """The run under test.

    Attributes:
        cards: judge name -> card.json, of judges of this run, as far as files were given.
        facts: what is known of the judges, from these cards and from those that ship.
        baseline: the run folder that BASELINE stands for in rules.
    """

    run: Run
    summary: RunSummary
    cards: dict[str, Path]
    judges: list[JudgeRecord]
    rules: GateRules
    facts: tuple[JudgeFacts, ...] = ()
    baseline: Path | None = None

    def facts_of(self, rate: Rate) -> JudgeFacts | None:
        """Returns the card of a rate's judge on the question behind it; None if it has none."""
        question = "refused" if rate.question == "answers_benign" else rate.question
        if question in AXES:
            question = AXES[question].question
        else:
            question = question.removesuffix("_predicted")
        facts = (f for f in self.facts if f.judge == rate.judge and f.question == question)
        return next(facts, None)
