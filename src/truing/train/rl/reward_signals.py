"""Rewards and costs: judges or plain functions, weighted and summed; each one is logged.

A judgement is read by its `value` (a reward, a cost, a grade), else by its `score` (a probability),
else by its `verdict`. In a cost, a probability p counts as 2p - 1 and a verdict as +1 or -1, so
that a cost above 0 means "more likely harmful than not".

An answer that could not be judged is unscored: it has no part in the gradient, and it never counts
as safe.
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
from truing.core.lineage import digest
from truing.core.protocols import Judge
from truing.core.types import Judgement, Lineage, Response, Sample
from truing.http.limits import INITIAL_CONCURRENCY, close_connections
from truing.train.harm_check import require_red_model_reason
from truing.train.rl.rollout import Rollout

T = TypeVar("T")
_HARM_QUESTIONS = ("harmful", "unsafe", "cost")  # a high answer to these means harm
_NOT_FINITE = "not a finite number"


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

    def score(self, rollout: Rollout, *, cost: bool) -> list[float | str]:
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

    Judges read text, so a reward model with another tokenizer than the policy's works too.
    """

    # One loop for all judges: HTTP clients are bound to the loop that first used them.
    _event_loop: BackgroundEventLoop | None = None

    def __init__(self, judge: Judge, *, concurrency: int = 64) -> None:
        self.judge = judge
        self.concurrency = concurrency
        self.name = judge.name
        self.question = judge.question
        self.lineage = judge.lineage

    def score(self, rollout: Rollout, *, cost: bool) -> list[float | str]:
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

    def score(self, rollout: Rollout, *, cost: bool) -> list[float | str]:
        """Returns the numbers of the function."""
        numbers = self.function(rollout).tolist()
        return [number if math.isfinite(number) else _NOT_FINITE for number in numbers]


def judgement_number(judgement: Judgement | str, *, cost: bool) -> float | str:
    """Returns the number of a judgement, or why there is none."""
    if isinstance(judgement, str):
        return judgement
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
class RolloutScores:
    """The scores of a rollout's answers.

    `reward` and `cost` are `[B]`, 0 where an answer is unscored; `scored` says which answers all
    signals could score. `parts` holds each signal's numbers (NaN = none), `failure_reasons` counts
    why numbers are missing.
    """

    reward: Tensor
    cost: Tensor | None
    scored: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    failure_reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class GlobalScores:
    """Reward, cost and whether scored, `[N]` each, of the answers of all processes in order."""

    reward: Tensor
    cost: Tensor | None
    scored: Tensor


class RewardSignals:
    """The reward and the cost of a run, each a weighted sum of signals."""

    def __init__(
        self,
        rewards: Sequence[WeightedSignal | RewardSignal],
        costs: Sequence[WeightedSignal | RewardSignal] = (),
    ) -> None:
        self.rewards = [s if isinstance(s, WeightedSignal) else WeightedSignal(s) for s in rewards]
        self.costs = [s if isinstance(s, WeightedSignal) else WeightedSignal(s) for s in costs]
        if not self.rewards:
            raise PlanError(
                "a run needs a reward: --reward SPEC (a judge whose value or score is maximised)"
            )
        if any(not s.weight or not math.isfinite(s.weight) for s in (*self.rewards, *self.costs)):
            raise PlanError("a weight of a reward or cost is 0 or not finite")

    @property
    def lineages(self) -> tuple[Lineage, ...]:
        """The lineages of all signals: none of these judges may measure the outcome of the run."""
        return tuple(s.signal.lineage for s in (*self.rewards, *self.costs))

    def red_model_mark(self, reason: str | None) -> str | None:
        """Returns the red-model mark of the trained folder, if there is one.

        Raises PlanError if the objective rewards harm and no reason is given.
        """
        harmful = [
            s.signal.name
            for s in self.rewards
            if s.signal.question in _HARM_QUESTIONS and s.weight > 0
        ]
        harmful += [
            s.signal.name
            for s in self.costs
            if s.signal.question in _HARM_QUESTIONS and s.weight < 0
        ]
        objection = None
        if harmful:
            objection = f"{', '.join(harmful)} says how harmful an answer is, and is rewarded"
        return require_red_model_reason(objection, reason) or (reason.strip() if reason else None)

    def score_rollout(self, rollout: Rollout) -> RolloutScores:
        """Returns the weighted sums of all signals; an answer that one cannot score is unscored."""
        parts: dict[str, Tensor] = {}
        failure_reasons: Counter[str] = Counter()
        scored = torch.ones(len(rollout.texts), dtype=torch.bool)

        def weighted_sum(signals: Sequence[WeightedSignal], *, cost: bool) -> Tensor:
            total = torch.zeros(len(rollout.texts), dtype=torch.float64)
            for weighted in signals:
                name = weighted.signal.name
                numbers = weighted.signal.score(rollout, cost=cost)
                failure_reasons.update(f"{name}: {x}" for x in numbers if isinstance(x, str))
                column = torch.tensor(
                    [math.nan if isinstance(x, str) else x for x in numbers], dtype=torch.float64
                )
                # One missing number makes the answer unscored: a sum without it would compare
                # answers that were measured differently.
                scored.logical_and_(~column.isnan())
                parts[f"{'cost' if cost else 'reward'}/{name}"] = column
                total += weighted.weight * column.nan_to_num(0.0)
            return total

        reward = weighted_sum(self.rewards, cost=False)
        cost = weighted_sum(self.costs, cost=True) if self.costs else None
        unscored = ~scored
        return RolloutScores(
            reward=reward.masked_fill(unscored, 0.0),
            cost=None if cost is None else cost.masked_fill(unscored, 0.0),
            scored=scored,
            parts=parts,
            failure_reasons=failure_reasons,
        )
