"""What all rules of a gate look at, and which figures may pass a gate at all."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from truing.analysis.summary import RunSummary
from truing.gates.rules import GateRule, GateRules
from truing.runs.folder import JudgeRecord, Run

_EXACT_JUDGES = ("engine", "human:", "rules:check")
"""Judges that need no card: their verdict is the fact asked for, not an estimate of it."""


class GateContext(Struct):
    """The run under test.

    Attributes:
        cards: judge name -> card.json, of judges of this run.
        baseline: the run folder that BASELINE stands for in rules.
        trained_on: judge name -> number of this run's prompts that it was trained on.
    """

    run: Run
    summary: RunSummary
    cards: dict[str, Path]
    judges: list[JudgeRecord]
    rules: GateRules
    baseline: Path | None = None
    trained_on: dict[str, int] = {}


def distrust_reason(
    context: GateContext, rule: GateRule, figure: str, judge: str, struck: str | None
) -> str | None:
    """Returns why a figure may not pass the gate, or None if it may.

    `figure` is raw, corrected or transported; `struck` says why the judge may not measure this
    model, if it may not. A rule can allow each reason (`allow = [...]`).
    """
    if struck is not None and "overlap" not in rule.allow:
        return f"{judge} may not measure this model: {struck}"
    # On prompts of its training a judge errs less than elsewhere, in its own favour.
    shared = context.trained_on.get(judge, 0)
    if shared and "overlap" not in rule.allow:
        return f"{judge} was trained on {shared} prompts of this run"
    if figure == "transported" and "transported" not in rule.allow:
        return (
            "the figure assumes that the card's error rates hold here (transport); "
            "allow it in the rule, or draw labels"
        )
    has_card = judge in context.cards or judge.startswith(_EXACT_JUDGES)
    if figure == "raw" and not has_card and "uncarded" not in rule.allow:
        return (
            f"{judge} has no card: its error is unknown; give one in cards, draw labels, "
            "or allow it in the rule"
        )
    return None
