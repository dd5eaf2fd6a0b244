"""Which samples of a run in parts are asked next, under a budget that all workers share.

Parts are worked on in any order, but what a stopped run holds has to be a random sample of its data
set, as in one process. So the samples go out in waves: each wave is the next piece of the random
order of all samples, as long as the largest cost of its answers surely fits into what is left. A
wave is finished before the next is planned from what it really cost; so whatever stops the run
between two waves leaves the beginning of the random order.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path

from truing.core.types import Sample
from truing.evaluation.cost_bounds import Cost, PromptBounds, fits_budget
from truing.evaluation.options import EvaluateOptions, RunBudget
from truing.evaluation.shared_account import AccountState
from truing.evaluation.spending import describe_stop, shuffle_positions
from truing.runs.parts import read_run_records

_FIRST_SHARE = 0.1
"""Share of a budget for the first wave: what an answer costs is not known yet."""
_LAST_SHARE = 0.01
"""A run stops when less than this share of its budget is left: the waves become ever shorter."""


class WavePlan:
    """The samples of a run in parts, and the waves in which they are asked.

    `prompts` has the bounds of the prompts of all samples, in tokens, in the order of the parts;
    `sizes` the number of samples in each part. With `is_attacked`, the prompts that are sent are
    others, and the largest so far bounds them.
    """

    def __init__(
        self,
        prompts: Sequence[int],
        sizes: Sequence[int],
        options: EvaluateOptions,
        *,
        is_attacked: bool,
    ) -> None:
        self._prompts = prompts
        self._starts = list(accumulate(sizes, initial=0))
        self._budget, self._price = options.budget, options.price
        self._is_attacked = is_attacked
        self._order = shuffle_positions(len(prompts), options.seed)
        self._is_answered = bytearray(len(prompts))
        self._n_ahead = 0  # of the order, that are answered without a gap
        self.n_samples = len(prompts)
        self.n_answered = 0  # samples with all their answers

    def update(self, part: int, unanswered: Iterable[int]) -> None:
        """Takes which samples of a part, by their position in it, lack an answer."""
        start, end = self._starts[part], self._starts[part + 1]
        is_answered = bytearray(b"\1" * (end - start))
        for position in unanswered:
            is_answered[position] = 0
        self.n_answered += sum(is_answered) - sum(self._is_answered[start:end])
        self._is_answered[start:end] = is_answered
        self._n_ahead = 0

    def next_wave(self, state: AccountState) -> Mapping[int, array[int]]:
        """Returns the next samples to ask: their positions in each part, in the random order.

        Empty if all are answered, or if the budget has no room for the next one.
        """
        wave: dict[int, array[int]] = {}
        committed = state.spent + state.lost
        budget = self._budget
        if state.bounds.largest is None:
            budget = _share_of(budget, _FIRST_SHARE)
        elif not fits_budget(committed, _share_of(budget, 1 - _LAST_SHARE), self._price):
            return wave
        for position in self._next_positions():
            committed += self._bound(position, state)
            if not fits_budget(committed, budget if wave else self._budget, self._price):
                break
            part = bisect_right(self._starts, position) - 1
            wave.setdefault(part, array("I")).append(position - self._starts[part])
        return wave

    def _next_positions(self) -> Iterable[int]:
        while self._n_ahead < len(self._order) and self._is_answered[self._order[self._n_ahead]]:
            self._n_ahead += 1
        for index in range(self._n_ahead, len(self._order)):
            if not self._is_answered[self._order[index]]:
                yield self._order[index]

    def _bound(self, position: int, state: AccountState) -> Cost:
        prompt = self._prompts[position]
        if self._is_attacked:
            prompt = max(prompt, state.largest_prompt)
        return state.bounds.bound(prompt)

    def describe_stop(self) -> str:
        """Returns the note of the run, which its budget has stopped."""
        return describe_stop(self._budget, self._order, list(map(bool, self._is_answered)))


def _share_of(budget: RunBudget, share: float) -> RunBudget:
    return RunBudget(
        money=None if budget.money is None else share * budget.money,
        tokens=None if budget.tokens is None else int(share * budget.tokens),
    )


def plan_waves(
    out: Path, parts: Sequence[str], options: EvaluateOptions, *, is_attacked: bool
) -> WavePlan:
    """Returns the plan of a run whose samples are in their parts."""
    bounds = PromptBounds(options.sampling, options.sampling.n)
    file = "parents.jsonl" if is_attacked else "samples.jsonl"
    prompts, sizes = array("Q"), []
    for part in parts:
        n_before = len(prompts)
        for sample in read_run_records(out / "parts" / part, file, Sample):
            prompts.append(bounds.of(sample))
        sizes.append(len(prompts) - n_before)
    return WavePlan(prompts, sizes, options, is_attacked=is_attacked)
