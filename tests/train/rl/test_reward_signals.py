"""Judges as rewards and costs: how a judgement is read, what is not scored, what raises harm."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from truing.core.errors import PlanError  # noqa: E402
from truing.core.types import Failure, Judgement, Lineage, Response, Sample  # noqa: E402
from truing.train.rl.reward_signals import FunctionSignal, JudgeSignal, Signals, Weighted, read  # noqa: E402
from truing.train.rl.rollout import Rollout  # noqa: E402


class Words:
    """A judge by a function of the text."""

    name, lineage = "words", Lineage(name="words", hash="w")

    def __init__(self, value: Callable[[str], float | None], question: str = "helpful") -> None:
        self.value, self.question, self.live, self.most = value, question, 0, 0

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        self.live += 1
        self.most = max(self.most, self.live)
        await asyncio.sleep(0.001)
        self.live -= 1
        return Judgement(
            sample_id=sample.id,
            index=response.index,
            judge=self.name,
            question=self.question,
            value=self.value(response.text),
        )


def rollout(task: Any, texts: list[str]) -> Rollout:
    prompts = tuple(task.prompts(len(texts)))
    one = torch.ones(len(texts), 2, dtype=torch.long)
    return Rollout(
        prompts,
        tuple(range(len(texts))),
        one,
        one,
        one[:, :1],
        one[:, :1].float(),
        (True,) * len(texts),
        tuple(texts),
    )


def made(**given: Any) -> Judgement:
    return Judgement(sample_id="s", judge="j", question="q", **given)


def test_how_a_judgement_is_read() -> None:
    assert read(made(value=-3.5, score=0.9), cost=True) == -3.5
    assert read(made(score=0.75, verdict=True), cost=False) == 0.75
    assert read(made(score=0.75), cost=True) == 0.5
    assert [read(made(verdict=v), cost=True) for v in (True, False)] == [1.0, -1.0]
    assert [read(made(verdict=v), cost=False) for v in (True, False)] == [1.0, 0.0]
    assert read(made(), cost=True) == "neither value nor score nor verdict"
    assert read(made(value=math.nan), cost=True) == "not a finite number"
    assert (
        read(made(value=1.0, failure=Failure("judge", "timeout", "slow")), cost=True)
        == "timeout: slow"
    )


def test_weighted_sums_and_each_part(task: Any) -> None:
    judge = Words(lambda t: float(len(t)))
    signals = Signals(
        [
            Weighted(JudgeSignal(judge), 0.5),
            FunctionSignal("one", lambda r: torch.ones(len(r.texts))),
        ],
        [FunctionSignal("c", lambda r: torch.tensor([-1.0, 2.0]))],
    )
    got = signals.measure(rollout(task, ["ab", "abcd"]))
    assert (
        got.reward.tolist() == [2.0, 3.0]
        and got.cost is not None
        and got.cost.tolist() == [-1.0, 2.0]
    )
    assert got.parts["reward/words"].tolist() == [2.0, 4.0]
    assert judge.most == 2  # asked concurrently
    assert next(x.hash for x in signals.lineages) == "w"


def test_what_cannot_be_judged_is_unscored(task: Any) -> None:
    signals = Signals(
        [FunctionSignal("one", lambda r: torch.ones(3))],
        [JudgeSignal(Words(lambda t: None if t == "?" else math.nan if t == "n" else 1.0))],
    )
    got = signals.measure(rollout(task, ["ok", "?", "n"]))
    assert got.scored.tolist() == [True, False, False]
    assert got.reward.tolist() == [1.0, 0.0, 0.0]
    assert sum(got.reasons.values()) == 2


def test_a_judge_that_raises_is_unscored(task: Any) -> None:
    def bad(text: str) -> float:
        raise RuntimeError("boom")

    got = Signals([JudgeSignal(Words(bad))]).measure(rollout(task, ["a"]))
    assert not got.scored.any() and "words: RuntimeError: boom" in got.reasons


def test_an_objective_that_raises_harm_needs_a_reason() -> None:
    harmful, helpful = (
        JudgeSignal(Words(lambda t: 0.0, "harmful")),
        JudgeSignal(Words(lambda t: 0.0)),
    )
    with pytest.raises(PlanError, match="raises harm"):
        Signals([harmful]).mark(None)
    with pytest.raises(PlanError, match="raises harm"):
        Signals([helpful], [Weighted(harmful, -1.0)]).mark(None)
    assert Signals([helpful], [harmful]).mark(None) is None
    assert Signals([helpful, Weighted(harmful, -1.0)]).mark(None) is None
    assert "rails need an attacker" in (Signals([harmful]).mark("rails need an attacker") or "")


def test_no_reward_or_no_weight() -> None:
    with pytest.raises(PlanError, match="needs a reward"):
        Signals([])
    with pytest.raises(PlanError, match="weight of 0"):
        Signals([Weighted(FunctionSignal("a", lambda r: torch.ones(1)), 0.0)])
