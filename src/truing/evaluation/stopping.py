"""Stops a run early: shows the verdicts to a stopping rule, one draw at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec import Struct

from truing.core.errors import UserError
from truing.core.jsonl import read_located_records
from truing.evaluation.options import EvaluateOptions, StoppingRule
from truing.evaluation.spending import shuffle_positions
from truing.runs.index import IdIndex, SampleStore


class _StoredVerdict(Struct, frozen=True):
    sample_id: str
    verdict: bool | None = None


class EarlyStopping:
    """Samples in a random order, and the stopping rule that decides after how many of them to stop.

    Judgements arrive out of order, but the rule must see the draws in the order in which they were
    drawn: otherwise fast answers would come first, and the result would depend on the concurrency.
    So a verdict waits until all draws before it have one.
    """

    def __init__(
        self, rule: StoppingRule, total: int, seed: int, read_id: Callable[[int], str]
    ) -> None:
        self.order = shuffle_positions(total, seed)
        self.stopped_after: int | None = None
        """The number of draws after which the rule stopped the run; None while it goes on."""
        self._rule = rule
        self._read_id = read_id
        self._waiting: dict[int, float | None] = {}
        self._observed = 0

    def record(self, position: int, verdicts: Sequence[bool | None]) -> bool:
        """Takes the verdicts on one sample's answers; returns whether the rule stops the run."""
        if self.stopped_after is not None:
            return False
        self._waiting[position] = _mean_verdict(verdicts)
        while self._observed < len(self.order) and self.order[self._observed] in self._waiting:
            drawn = self.order[self._observed]
            verdict = self._waiting.pop(drawn)
            self._observed += 1
            if self._rule.observe(self._read_id(drawn), verdict):
                self.stopped_after = self._observed
                return True
        return False

    def replay(self, judgements: Path, ids: IdIndex) -> None:
        """Shows the stored verdicts of the judge to the rule, when a run continues."""
        stored: dict[int, list[bool | None]] = {}
        for _, _, line in read_located_records(judgements, _StoredVerdict):
            position = ids.get(line.sample_id)
            if position is not None:
                stored.setdefault(position, []).append(line.verdict)
        for position, verdicts in stored.items():
            self.record(position, verdicts)

    def positions_beyond(self) -> Sequence[int]:
        """Returns the positions that were drawn after the stop."""
        return self.order[self.stopped_after :] if self.stopped_after is not None else ()


def create_stopping(
    options: EvaluateOptions, questions: Sequence[str], total: int, samples: SampleStore
) -> EarlyStopping | None:
    """Returns the early stopping of a run, or None if its options have no rule.

    Raises UserError if the rule asks about none of the judges' questions.
    """
    rule = options.until
    if rule is None:
        return None
    if rule.question not in questions:
        raise UserError(
            f"--until asks about {rule.question!r}, and no judge of this run answers that"
        )
    return EarlyStopping(rule, total, options.seed, lambda position: samples.read(position).id)


def _mean_verdict(verdicts: Sequence[bool | None]) -> float | None:
    """Returns the mean over the scored answers (a single verdict unchanged), or None."""
    scored = [v for v in verdicts if v is not None]
    if len(scored) == 1:
        return scored[0]
    return sum(scored) / len(scored) if scored else None
