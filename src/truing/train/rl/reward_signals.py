"""Rewards and costs: judges or plain functions, weighted and summed; each one is logged.

A judgement is read by its `value` (a reward, a cost, a grade), else by its `score` (a probability),
else by its `verdict`. In a cost, a probability p counts as 2p - 1 and a verdict as +1 or -1, so
that a cost above 0 means "more likely harmful than not".

An answer that could not be judged is unscored: it has no part in the gradient, and it never counts
as safe. A reward that does not apply to a prompt (a program check of a prompt without a check) adds
nothing to the sum; an answer to which no reward applies is unscored.
"""

from __future__ import annotations

import asyncio
import atexit
import math
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from truing.core.errors import PlanError
from truing.core.judgement_scores import HARM_QUESTIONS
from truing.core.lineage import digest
from truing.core.protocols import Judge
from truing.core.types import Judgement, Lineage, Response, Sample
from truing.distributed.process_group import as_float64
from truing.http.limits import INITIAL_CONCURRENCY, close_connections
from truing.train.harm_check import require_red_model_reason
from truing.train.rl.constraint_settings import MAIN_CONSTRAINT, ConstraintSettings
from truing.train.rl.rollout import Rollout
from truing.train.rl.settings import RLSettings

T = TypeVar("T")
_NOT_FINITE = "not a finite number"
# Failures that say that a judge has nothing to say about a prompt, whatever the answer is.
_DOES_NOT_APPLY = ("no-check",)

SignalNumber = float | str | None
"""The number of an answer; or why there is none; or None if the signal does not apply."""


class RewardSignal(Protocol):
    """Scores each answer of a rollout, as a reward or as a cost."""

    @property
    def name(self) -> str:
        """The name in the log."""
        ...

    @property
    def question(self) -> str:
        """The question that a judge answers; empty for a function."""
        ...

    @property
    def lineage(self) -> Lineage:
        """The lineage of the judge."""
        ...

    def score(self, rollout: Rollout, *, cost: bool) -> Sequence[SignalNumber]:
        """Returns one number per answer, or a text that says why there is none."""
        ...


_CLOSE_SECONDS = 5.0


class BackgroundEventLoop:
    """An asyncio event loop in a thread, so that judges keep their connections between steps."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="truing-judges", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)

    def close(self) -> None:
        """Closes the loop's connections and ends its thread; at the latest when Python exits."""
        atexit.unregister(self.close)
        if self._loop.is_closed():
            return
        # Not for ever: a judge that blocks the loop must not keep the process from ending.
        with suppress(TimeoutError):
            closing = asyncio.run_coroutine_threadsafe(close_connections(), self._loop)
            closing.result(timeout=_CLOSE_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_SECONDS)
        if not self._thread.is_alive():
            self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine to its end and returns its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class JudgeSignal:
    """A judge as a reward signal.

    Judges read text, so a reward model with another tokenizer than the policy's works too. A judge
    that would read a cut answer with an end token appended reads it without, unless
    `close_cut_answers`.
    """

    # One loop for all judges: HTTP clients are bound to the loop that first used them.
    _event_loop: BackgroundEventLoop | None = None

    def __init__(
        self, judge: Judge, *, concurrency: int = 64, close_cut_answers: bool = False
    ) -> None:
        without_end = getattr(judge, "without_appended_end", None)
        self.judge: Judge = judge if close_cut_answers or without_end is None else without_end()
        self.concurrency = concurrency
        self.name = judge.name
        self.question = judge.question
        self.lineage = judge.lineage

    def score(self, rollout: Rollout, *, cost: bool) -> list[SignalNumber]:
        """Judges all answers concurrently."""
        if JudgeSignal._event_loop is None:
            JudgeSignal._event_loop = BackgroundEventLoop()
        responses = rollout.to_responses("policy")
        pairs = [(prompt.sample, r) for prompt, r in zip(rollout.prompts, responses)]
        judgements = JudgeSignal._event_loop.run(self._judge_all(pairs))
        return [judgement_number(judgement, cost=cost) for judgement in judgements]

    async def _judge_all(self, pairs: Sequence[tuple[Sample, Response]]) -> list[Judgement | str]:
        INITIAL_CONCURRENCY.set(self.concurrency)
        semaphore = asyncio.Semaphore(self.concurrency)

        async def judge_one(sample: Sample, response: Response) -> Judgement | str:
            async with semaphore:
                try:
                    return await self.judge.judge(sample, response)
                except Exception as error:
                    # One failed judgement makes one answer unscored; `max_unscored` limits them.
                    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

        return list(await asyncio.gather(*(judge_one(s, r) for s, r in pairs)))


class FunctionSignal:
    """A function of the rollout that returns `[B]` numbers, as a reward signal."""

    question = ""

    def __init__(self, name: str, function: Callable[[Rollout], Tensor]) -> None:
        self.name = name
        self.function = function
        self.lineage = Lineage(name=name, hash=digest("function", name))

    def score(self, rollout: Rollout, *, cost: bool) -> list[SignalNumber]:
        """Returns the numbers of the function."""
        if not rollout.texts:
            return []
        numbers = self.function(rollout).tolist()
        return [number if math.isfinite(number) else _NOT_FINITE for number in numbers]


def answer_length_signal() -> FunctionSignal:
    """Returns the signal `length`: the number of tokens of each answer, its end token included."""
    return FunctionSignal("length", lambda rollout: as_float64(rollout.answer_lengths))


def judgement_number(judgement: Judgement | str, *, cost: bool) -> SignalNumber:
    """Returns the number of a judgement, or why there is none."""
    if isinstance(judgement, str):
        return judgement
    if judgement.failure is not None and judgement.failure.kind in _DOES_NOT_APPLY:
        return None
    if judgement.failure is not None:
        return f"{judgement.failure.kind}: {judgement.failure.message}"
    # Costs are centred, so that a threshold of 0 separates harmful from harmless.
    if judgement.value is not None:
        number = float(judgement.value)
    elif judgement.score is not None:
        number = 2 * judgement.score - 1 if cost else judgement.score
    elif judgement.verdict is not None:
        number = float(judgement.verdict) * 2 - 1 if cost else float(judgement.verdict)
    else:
        return "neither value nor score nor verdict"
    return number if math.isfinite(number) else _NOT_FINITE


@dataclass(frozen=True)
class WeightedSignal:
    """A signal and its weight in the sum."""

    signal: RewardSignal
    weight: float = 1.0


@dataclass(frozen=True)
class ConstrainedCost:
    """The cost of one constraint: a weighted sum of signals over the prompts that it is about."""

    limit: ConstraintSettings
    signals: tuple[WeightedSignal, ...]

    @property
    def name(self) -> str:
        """The name of the constraint."""
        return self.limit.name


@dataclass(frozen=True)
class RolloutScores:
    """The scores of a rollout's answers.

    `reward` and each of `costs` (by constraint) are `[B]`, 0 where an answer is unscored or not
    under the constraint; `scored` says which answers all signals could score. Empty answers are
    not shown to the signals. `parts` holds each signal's numbers (NaN = none), `failure_reasons`
    counts why numbers are missing.
    """

    reward: Tensor
    costs: dict[str, Tensor]
    scored: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    failure_reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class GlobalScores:
    """The scores of the answers of all processes, in order.

    `reward`, each of `costs` (by constraint) and `scored` are `[N]`. `applies` says which answers a
    constraint is about; one without an entry is about all. `cut` says which answers reached the
    length limit (none, if it is not given).
    """

    reward: Tensor
    costs: dict[str, Tensor]
    scored: Tensor
    applies: dict[str, Tensor] = field(default_factory=dict)
    cut: Tensor | None = None

    def learned(self, settings: RLSettings) -> Tensor:
        """Returns which answers have a part in the gradient, `[N]`."""
        if settings.mask_truncated and self.cut is not None:
            return self.scored & ~self.cut
        return self.scored

    def counted(self, name: str) -> Tensor:
        """Returns which answers count for a constraint, `[N]`: scored, and to its prompts."""
        return self.scored & self.applies[name] if name in self.applies else self.scored


class RewardSignals:
    """The rewards and costs of a run, each a weighted sum of signals.

    `costs` make up the cost without a name; `constraints` are the costs of further constraints.
    """

    def __init__(
        self,
        rewards: Sequence[WeightedSignal | RewardSignal],
        costs: Sequence[WeightedSignal | RewardSignal] = (),
        constraints: Sequence[ConstrainedCost] = (),
    ) -> None:
        self.rewards = [s if isinstance(s, WeightedSignal) else WeightedSignal(s) for s in rewards]
        self.costs = [s if isinstance(s, WeightedSignal) else WeightedSignal(s) for s in costs]
        self.constraints = tuple(constraints)
        if not self.rewards:
            raise PlanError(
                "a run needs a reward: --reward SPEC (a judge whose value or score is maximised)"
            )
        if any(not s.weight or not math.isfinite(s.weight) for s in self.all_signals):
            raise PlanError("a weight of a reward or cost is 0 or not finite")

    @property
    def all_costs(self) -> list[WeightedSignal]:
        """The cost signals of all constraints."""
        return [*self.costs, *(s for cost in self.constraints for s in cost.signals)]

    @property
    def all_signals(self) -> list[WeightedSignal]:
        """The signals of rewards and costs."""
        return [*self.rewards, *self.all_costs]

    @property
    def lineages(self) -> tuple[Lineage, ...]:
        """The lineages of all signals: none of these judges may measure the outcome of the run."""
        return tuple(s.signal.lineage for s in self.all_signals)

    def red_model_mark(self, reason: str | None) -> str | None:
        """Returns the red-model mark of the trained folder, if there is one.

        Raises PlanError if the objective rewards harm and no reason is given.
        """
        harmful = [
            s.signal.name
            for s in self.rewards
            if s.signal.question in HARM_QUESTIONS and s.weight > 0
        ]
        harmful += [
            s.signal.name
            for s in self.all_costs
            if s.signal.question in HARM_QUESTIONS and s.weight < 0
        ]
        objection = None
        if harmful:
            objection = f"{', '.join(harmful)} says how harmful an answer is, and is rewarded"
        return require_red_model_reason(objection, reason) or (reason.strip() if reason else None)

    def score_rollout(self, rollout: Rollout) -> RolloutScores:
        """Returns the weighted sums of all signals; an answer that one cannot score is unscored."""
        sums = _WeightedSums(rollout)
        reward = sums.add("reward", self.rewards, sums.answered, cost=False)
        sums.require_a_reward()
        costs = {}
        if self.costs:
            costs[MAIN_CONSTRAINT] = sums.add("cost", self.costs, sums.answered, cost=True)
        for constrained in self.constraints:
            rows = [
                row
                for row in sums.answered
                if constrained.limit.applies_to(rollout.prompts[row].sample)
            ]
            prefix = f"cost/{constrained.name}"
            costs[constrained.name] = sums.add(prefix, constrained.signals, rows, cost=True)
        unscored = ~sums.scored
        return RolloutScores(
            reward=reward.masked_fill(unscored, 0.0),
            costs={name: cost.masked_fill(unscored, 0.0) for name, cost in costs.items()},
            scored=sums.scored,
            parts=sums.parts,
            failure_reasons=sums.failure_reasons,
        )


class _WeightedSums:
    """Adds up the signals of one rollout; notes which answers all of them could score."""

    def __init__(self, rollout: Rollout) -> None:
        self.rollout = rollout
        self.answered = [row for row, text in enumerate(rollout.texts) if text]
        self.scored = torch.tensor([bool(text) for text in rollout.texts], dtype=torch.bool)
        self.parts: dict[str, Tensor] = {}
        self.failure_reasons: Counter[str] = Counter()

    def add(
        self, prefix: str, signals: Sequence[WeightedSignal], rows: Sequence[int], *, cost: bool
    ) -> Tensor:
        """Returns the weighted sum of signals over some rows, `[B]`; 0 in all others."""
        rollout = self.rollout
        count = len(rollout.texts)
        scored_rollout = rollout if len(rows) == count else rollout.select_rows(rows)
        total = torch.zeros(count, dtype=torch.float64)
        index = torch.tensor(list(rows), dtype=torch.long)
        for weighted in signals:
            name = weighted.signal.name
            numbers = weighted.signal.score(scored_rollout, cost=cost)
            if cost:
                # A cost of 0 would say something; a constraint on some prompts says it by name.
                numbers = ["does not apply to the prompt" if x is None else x for x in numbers]
            self.failure_reasons.update(f"{name}: {x}" for x in numbers if isinstance(x, str))
            column = torch.full((count,), math.nan, dtype=torch.float64)
            column[index] = torch.tensor(
                [x if isinstance(x, (int, float)) else math.nan for x in numbers],
                dtype=torch.float64,
            )
            # One missing number makes the answer unscored: a sum without it would compare
            # answers that were measured differently.
            self.scored[index] &= torch.tensor([not isinstance(x, str) for x in numbers]).bool()
            self.parts[f"{prefix}/{name}"] = column
            total += weighted.weight * column.nan_to_num(0.0)
        return total

    def require_a_reward(self) -> None:
        """Marks the answers as unscored to which no signal so far applies."""
        if not self.parts:
            return
        applies = torch.stack([~column.isnan() for column in self.parts.values()]).any(0)
        nothing = self.scored & ~applies
        self.failure_reasons.update(["no reward applies to the prompt"] * int(nothing.sum()))
        self.scored &= applies
