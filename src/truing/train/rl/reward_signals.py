"""Rewards and costs: any judge, or a function of token ids; weighted, added, each one logged.

A judgement is read by its `value` (a reward, a cost, a grade), else its `score` (a probability), else its `verdict`. As
a reward a
probability counts as it is; as a cost p counts as 2p - 1 and a verdict as +1 / -1, so that a cost above 0 means "more
likely harmful
than not". What could not be judged is unscored: it teaches nothing, and never counts as safe.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from truing.core.errors import PlanError
from truing.core.lineage import digest
from truing.core.protocols import Judge
from truing.core.types import Judgement, Lineage, Response, Sample
from truing.http.limits import INITIAL_CONCURRENCY
from truing.train.harm_check import require_red_model_reason
from truing.train.rl.rollout import Rollout

T = TypeVar("T")
_HARM = ("harmful", "unsafe", "cost")


class Signal(Protocol):
    """Gives each answer a number, or none and why."""

    @property
    def name(self) -> str:
        """The name in the log."""
        ...

    @property
    def question(self) -> str:
        """What it asks; empty for a function."""
        ...

    @property
    def lineage(self) -> Lineage:
        """Where it comes from."""
        ...

    def score(self, rollout: Rollout, *, cost: bool) -> list[float | str]:
        """One number an answer; a text says why there is none."""
        ...


class Loop:
    """One event loop in a thread of its own, so that judges keep their connections from step to step."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="truing-judges", daemon=True
        )
        self._thread.start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs to the end."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class JudgeSignal:
    """A judge as a signal. It reads text, so a reward model with another tokenizer re-tokenises by itself."""

    _loop: Loop | None = None

    def __init__(self, judge: Judge, *, concurrency: int = 64) -> None:
        self.judge, self.concurrency = judge, concurrency
        self.name, self.question, self.lineage = judge.name, judge.question, judge.lineage

    def score(self, rollout: Rollout, *, cost: bool) -> list[float | str]:
        """Judges all answers, concurrently."""
        if JudgeSignal._loop is None:
            JudgeSignal._loop = Loop()
        pairs = [(p.sample, r) for p, r in zip(rollout.prompts, rollout.responses("policy"))]
        return [read(j, cost=cost) for j in JudgeSignal._loop.wait(self._all(pairs))]

    async def _all(self, pairs: Sequence[tuple[Sample, Response]]) -> list[Judgement | str]:
        INITIAL_CONCURRENCY.set(self.concurrency)
        gate = asyncio.Semaphore(self.concurrency)

        async def one(sample: Sample, response: Response) -> Judgement | str:
            async with gate:
                try:
                    return await self.judge.judge(sample, response)
                except Exception as error:
                    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

        return list(await asyncio.gather(*(one(s, r) for s, r in pairs)))


class FunctionSignal:
    """A plain function of the rollout, giving `[B]` numbers; for tests and programs."""

    question = ""

    def __init__(self, name: str, function: Callable[[Rollout], Tensor]) -> None:
        self.name, self.function = name, function
        self.lineage = Lineage(name=name, hash=digest("function", name))

    def score(self, rollout: Rollout, *, cost: bool) -> list[float | str]:
        """The function's numbers."""
        return [
            x if math.isfinite(x) else "not a finite number"
            for x in self.function(rollout).tolist()
        ]


def read(judgement: Judgement | str, *, cost: bool) -> float | str:
    """The number of a judgement, or why there is none."""
    if isinstance(judgement, str):
        return judgement
    if judgement.failure is not None:
        return f"{judgement.failure.kind}: {judgement.failure.message}"
    if judgement.value is not None:
        found = float(judgement.value)
    elif judgement.score is not None:
        found = 2 * judgement.score - 1 if cost else judgement.score
    elif judgement.verdict is not None:
        found = float(judgement.verdict) * 2 - 1 if cost else float(judgement.verdict)
    else:
        return "neither value nor score nor verdict"
    return found if math.isfinite(found) else "not a finite number"


@dataclass(frozen=True)
class Weighted:
    """A signal and its weight in the sum."""

    signal: Signal
    weight: float = 1.0


@dataclass(frozen=True)
class Scores:
    """What the signals say of a rollout: `[B]` reward and cost (0 where not scored), which rows are scored, each part."""

    reward: Tensor
    cost: Tensor | None
    scored: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)


class Signals:
    """Rewards and costs, each a weighted sum."""

    def __init__(
        self, rewards: Sequence[Weighted | Signal], costs: Sequence[Weighted | Signal] = ()
    ) -> None:
        self.rewards = [w if isinstance(w, Weighted) else Weighted(w) for w in rewards]
        self.costs = [w if isinstance(w, Weighted) else Weighted(w) for w in costs]
        if not self.rewards:
            raise PlanError(
                "a run needs a reward: --reward SPEC (a judge whose value or score is to be raised)"
            )
        if any(not w.weight or not math.isfinite(w.weight) for w in (*self.rewards, *self.costs)):
            raise PlanError("a weight of 0 (or none at all) leaves its signal without effect")

    @property
    def lineages(self) -> tuple[Lineage, ...]:
        """All judges that steer the run: none of them may measure its outcome."""
        return tuple(w.signal.lineage for w in (*self.rewards, *self.costs))

    def mark(self, reason: str | None) -> str | None:
        """The mark of a red model where the objective raises harm; PlanError if no reason is given."""
        raised = [
            w.signal.name for w in self.rewards if w.signal.question in _HARM and w.weight > 0
        ]
        raised += [w.signal.name for w in self.costs if w.signal.question in _HARM and w.weight < 0]
        why = (
            f"{', '.join(raised)} says how harmful an answer is, and is rewarded"
            if raised
            else None
        )
        return require_red_model_reason(why, reason) or (reason.strip() if reason else None)

    def measure(self, rollout: Rollout) -> Scores:
        """Scores a rollout."""
        count = len(rollout.texts)
        good = [True] * count
        parts: dict[str, Tensor] = {}
        reasons: Counter[str] = Counter()
        sums: list[Tensor] = []
        for cost, listed in ((False, self.rewards), (True, self.costs)):
            total = torch.zeros(count, dtype=torch.float64)
            for w in listed:
                got = w.signal.score(rollout, cost=cost)
                for at, x in enumerate(got):
                    if isinstance(x, str):
                        good[at] = False
                        reasons[f"{w.signal.name}: {x}"] += 1
                column = torch.tensor(
                    [math.nan if isinstance(x, str) else x for x in got], dtype=torch.float64
                )
                parts[f"{'cost' if cost else 'reward'}/{w.signal.name}"] = column
                total += w.weight * column.nan_to_num(0.0)
            sums.append(total)
        scored = torch.tensor(good)
        reward = torch.where(scored, sums[0], torch.zeros_like(sums[0]))
        costs = torch.where(scored, sums[1], torch.zeros_like(sums[1])) if self.costs else None
        return Scores(reward, costs, scored, parts, reasons)
