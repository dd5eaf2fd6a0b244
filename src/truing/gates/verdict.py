"""The verdict of a gate: one outcome per rule."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from truing.analysis.claims import Claim, Decision

Status = Literal["passed", "failed", "inconclusive"]
EXIT_CODES: dict[Status, int] = {"passed": 0, "failed": 2, "inconclusive": 3}

STATUS_OF_DECISION: dict[Decision, Status] = {
    "yes": "passed",
    "no": "failed",
    "not_shown": "inconclusive",
}


class RuleOutcome(Struct, frozen=True, kw_only=True):
    """The outcome of one rule: its status, the reason, and the figures that it rests on.

    `claims` are those that were decided for it, the deciding one first; `line` is where the rule
    stands in its file.
    """

    rule: str
    name: str = ""
    status: Status
    reason: str
    figure: str = ""
    judge: str = ""
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    n: int = 0
    unscored: int = 0
    claims: tuple[Claim, ...] = ()
    line: int = 1


class GateVerdict(Struct, frozen=True, kw_only=True):
    """The verdict over all rules; the worst rule decides.

    `not_tested` lists what the run says nothing about; `claims` are those of all outcomes.
    """

    run: str
    model: str
    title: str
    verdict: Status
    outcomes: tuple[RuleOutcome, ...]
    not_tested: tuple[str, ...]
    notes: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()

    @property
    def exit(self) -> int:
        """Exit status of the command: 0 passed, 2 failed, 3 inconclusive."""
        return EXIT_CODES[self.verdict]
