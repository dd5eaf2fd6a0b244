"""The verdict of a gate: one outcome per rule."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Status = Literal["passed", "failed", "inconclusive"]
EXIT_CODES: dict[Status, int] = {"passed": 0, "failed": 2, "inconclusive": 3}


class RuleOutcome(Struct, frozen=True, kw_only=True):
    """The outcome of one rule: its status, the reason, and the figures that it rests on."""

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


class GateVerdict(Struct, frozen=True, kw_only=True):
    """The verdict over all rules; the worst rule decides.

    `not_tested` lists what the run says nothing about.
    """

    run: str
    model: str
    title: str
    verdict: Status
    outcomes: tuple[RuleOutcome, ...]
    not_tested: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def exit(self) -> int:
        """Exit status of the command: 0 passed, 2 failed, 3 inconclusive."""
        return EXIT_CODES[self.verdict]
