"""Visits of workers to the parts of a run: all of a part at once, or in waves under a budget.

Nothing here knows of Ray: whoever visits parts is a function.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from msgspec import UNSET, Struct

from truing.core.errors import RunError, TruingError
from truing.evaluation.budget_waves import WavePlan
from truing.evaluation.failures import RESPONSES
from truing.evaluation.options import EvaluateOptions
from truing.evaluation.run_parts import save_lost
from truing.evaluation.shared_account import AccountState
from truing.runs.folder import Run
from truing.runs.parts import record_bytes

_MAX_FAULTS = 20


class PartVisit(Struct, frozen=True, kw_only=True):
    """What a worker does with a part: all of it, or under a shared budget the samples at these
    positions, in this order. `repeats_failures`: what failed in an earlier call is done again.
    """

    part: str
    positions: list[int] | None = None
    repeats_failures: bool = True


class PartOutcome(Struct, frozen=True, kw_only=True):
    """What a worker returns of a part; `fault` says why it is not finished.

    `unanswered` are, after a visit under a budget, the positions of the samples without an answer.
    """

    part: str
    fault: str = ""
    unanswered: list[int] = []


class PartFaults:
    """The faults of the parts that could not be finished.

    Those that differ only in the name of the part are named once, with the first part.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: dict[str, str] = {}  # by the fault without the name of its part

    def collect(self, outcomes: Iterable[PartOutcome]) -> Iterator[PartOutcome]:
        """Yields outcomes as they arrive, and stops after many faults."""
        try:
            for outcome in outcomes:
                if outcome.fault:
                    self.count += 1
                    part, fault = outcome.part, outcome.fault.removeprefix(f"{outcome.part}: ")
                    self._first.setdefault(fault.replace(part, ""), f"{part}: {fault}")
                yield outcome
                if self.count >= _MAX_FAULTS:
                    return
        finally:
            # Ends the workers: none spends any more when the account is read.
            if isinstance(outcomes, Generator):
                outcomes.close()

    def raise_any(self, finished: str) -> None:
        """Raises RunError with the faults, if there are any, and with what is finished."""
        if self._first:
            raise RunError(*self._first.values(), f"{finished}; the same command continues")


class BudgetedParts:
    """Has the parts of a run answered under one budget, wave after wave."""

    def __init__(
        self, out: Path, parts: Sequence[str], options: EvaluateOptions, plan: WavePlan
    ) -> None:
        self._out, self._parts, self._options, self._plan = out, parts, options, plan
        self._numbers = {part: number for number, part in enumerate(parts)}

    def answer(
        self,
        visit_parts: Callable[[Sequence[PartVisit]], Iterator[PartOutcome]],
        read_account: Callable[[], AccountState],
    ) -> str:
        """Asks for answers until all are there or the budget is used up; returns the note of a run
        that it stopped, else "".

        Raises RunError with the faults of parts, or if the account is gone.
        """
        plan = self._plan
        # First, what is stored already: it is counted and judged, and its failures are dropped.
        stored = [part for part in self._parts if self._has_costs(part)]
        if stored:
            visits = [PartVisit(part=part, positions=[]) for part in stored]
            self._visit(visits, visit_parts, read_account)
        while True:
            state = read_account()
            wave = {} if state.is_used_up else plan.next_wave(state)
            if not wave:
                save_lost(self._out, self._options.price, state.lost)
                return "" if plan.n_answered == plan.n_samples else plan.describe_stop()
            n_before = plan.n_answered
            self._visit(self._plan_visits(wave), visit_parts, read_account)
            if plan.n_answered == n_before and not read_account().is_used_up:
                raise RunError(f"{self._out}: the workers answered none of the samples they got")

    def _has_costs(self, part: str) -> bool:
        """Whether a part has answers, or had some that failed and were dropped."""
        folder = self._out / "parts" / part
        return record_bytes(folder, RESPONSES) > 0 or Run(folder).manifest.spending is not UNSET

    def _plan_visits(self, wave: Mapping[int, array[int]]) -> list[PartVisit]:
        return [
            PartVisit(
                part=self._parts[number], positions=positions.tolist(), repeats_failures=False
            )
            for number, positions in wave.items()
        ]

    def _visit(
        self,
        visits: Sequence[PartVisit],
        visit_parts: Callable[[Sequence[PartVisit]], Iterator[PartOutcome]],
        read_account: Callable[[], AccountState],
    ) -> None:
        faults = PartFaults()
        plan, progress = self._plan, self._options.progress
        try:
            for outcome in faults.collect(visit_parts(visits)):
                if not outcome.fault:
                    plan.update(self._numbers[outcome.part], outcome.unanswered)
                if progress is not None:
                    progress(plan.n_answered, plan.n_samples, faults.count)
        finally:
            self._save_lost(read_account)
        faults.raise_any(f"{plan.n_answered:,} of {plan.n_samples:,} samples are answered")

    def _save_lost(self, read_account: Callable[[], AccountState]) -> None:
        """Writes into the run what counts as spent for lost answers, for a call that continues."""
        try:
            lost = read_account().lost
        except TruingError:
            return  # an account that is gone is one of the faults of the parts
        save_lost(self._out, self._options.price, lost)
