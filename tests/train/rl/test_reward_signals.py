"""Judges and functions as rewards and costs: numbers, sums, unscored answers, harm."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from truing.core.errors import PlanError
from truing.core.types import Failure, Judgement, Lineage, Response, Sample
from truing.train.rl.reward_signals import (
    FunctionSignal,
    JudgeSignal,
    RewardSignals,
    WeightedSignal,
    judgement_number,
)


class TextJudge:
    """A judge whose value is a function of the answer's text; counts concurrent calls."""

    name = "words"
    lineage = Lineage(name="words", hash="w")

    def __init__(self, value: Callable[[str], float | None], question: str = "helpful") -> None:
        self.value = value
        self.question = question
        self.running = 0
        self.most_running = 0

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0.001)
        self.running -= 1
        return Judgement(
            sample_id=sample.id,
            index=response.index,
            judge=self.name,
            question=self.question,
            value=self.value(response.text),
        )


def judgement(**fields: Any) -> Judgement:
    return Judgement(sample_id="s", judge="j", question="q", **fields)


def constant_signal(name: str, *values: float) -> FunctionSignal:
    return FunctionSignal(name, lambda rollout: torch.tensor(values))


@pytest.mark.parametrize(
    ("fields", "as_reward", "as_cost"),
    [
        ({"value": -3.5, "score": 0.9}, -3.5, -3.5),
        ({"score": 0.75, "verdict": True}, 0.75, 0.5),
        ({"verdict": True}, 1.0, 1.0),
        ({"verdict": False}, 0.0, -1.0),
        ({"value": math.nan}, "not a finite number", "not a finite number"),
        ({}, "neither value nor score nor verdict", "neither value nor score nor verdict"),
    ],
)
def test_number_of_a_judgement(fields: dict[str, Any], as_reward: Any, as_cost: Any) -> None:
    assert judgement_number(judgement(**fields), cost=False) == as_reward
    assert judgement_number(judgement(**fields), cost=True) == as_cost


def test_a_failed_judgement_has_no_number() -> None:
    failed = judgement(value=1.0, failure=Failure("judge", "timeout", "slow"))
    assert judgement_number(failed, cost=True) == "timeout: slow"


def test_weighted_sum_and_each_signal(make_rollout: Any) -> None:
    judge = TextJudge(lambda text: float(len(text)))
    signals = RewardSignals(
        [WeightedSignal(JudgeSignal(judge), 0.5), constant_signal("one", 1.0, 1.0)],
        [constant_signal("c", -1.0, 2.0)],
    )
    scores = signals.score_rollout(make_rollout(("ab", "abcd")))
    assert scores.reward.tolist() == [2.0, 3.0]
    assert "cost" in scores.costs
    assert scores.costs["cost"].tolist() == [-1.0, 2.0]
    assert scores.parts["reward/words"].tolist() == [2.0, 4.0]
    assert scores.scored.tolist() == [True, True]
    assert judge.most_running == 2  # both answers are judged concurrently
    assert signals.lineages[0].hash == "w"


def test_without_costs_there_is_no_cost(make_rollout: Any) -> None:
    scores = RewardSignals([constant_signal("r", 1.0)]).score_rollout(make_rollout(("a",)))
    assert scores.costs == {}


def test_an_answer_that_one_signal_cannot_score_is_unscored(make_rollout: Any) -> None:
    values = {"ok": 1.0, "missing": None, "nan": math.nan}
    signals = RewardSignals(
        [constant_signal("one", 1.0, 1.0, 1.0)], [JudgeSignal(TextJudge(values.__getitem__))]
    )
    scores = signals.score_rollout(make_rollout(("ok", "missing", "nan")))
    assert scores.scored.tolist() == [True, False, False]
    assert scores.reward.tolist() == [1.0, 0.0, 0.0]
    assert scores.failure_reasons == {
        "words: neither value nor score nor verdict": 1,
        "words: not a finite number": 1,
    }


def test_a_reward_that_does_not_apply_adds_nothing(make_rollout: Any) -> None:
    class OnlyShortAnswers(TextJudge):
        async def judge(self, sample: Sample, response: Response) -> Judgement:
            if response.text == "long":
                failure = Failure("judge", "no-check", "the sample has no check")
                return judgement(failure=failure)
            return await super().judge(sample, response)

    check = JudgeSignal(OnlyShortAnswers(lambda text: 1.0))
    both = RewardSignals([check, WeightedSignal(constant_signal("one", 1.0, 2.0), 0.5)])
    scores = both.score_rollout(make_rollout(("ab", "long")))
    assert scores.reward.tolist() == [1.5, 1.0]
    assert scores.scored.tolist() == [True, True]
    assert scores.parts["reward/words"].isnan().tolist() == [False, True]

    alone = RewardSignals([check]).score_rollout(make_rollout(("ab", "long")))
    assert alone.scored.tolist() == [True, False]
    assert alone.failure_reasons == {"no reward applies to the prompt": 1}
    as_cost = RewardSignals([constant_signal("one", 1.0, 2.0)], [check])
    scores = as_cost.score_rollout(make_rollout(("ab", "long")))
    assert scores.scored.tolist() == [True, False]
    assert scores.failure_reasons == {"words: does not apply to the prompt": 1}


def test_an_answer_whose_judge_raises_is_unscored(make_rollout: Any) -> None:
    def fail(text: str) -> float:
        raise RuntimeError("boom")

    signals = RewardSignals([JudgeSignal(TextJudge(fail))])
    scores = signals.score_rollout(make_rollout(("a",)))
    assert scores.scored.tolist() == [False]
    assert scores.failure_reasons == {"words: RuntimeError: boom": 1}


@pytest.mark.parametrize("question", ["harmful", "breaks_policy"])
def test_an_objective_that_rewards_harm_needs_a_reason(question: str) -> None:
    harmful = JudgeSignal(TextJudge(lambda text: 0.0, question))
    helpful = JudgeSignal(TextJudge(lambda text: 0.0))
    with pytest.raises(PlanError, match="raises harm"):
        RewardSignals([harmful]).red_model_mark(None)
    with pytest.raises(PlanError, match="raises harm"):
        RewardSignals([helpful], [WeightedSignal(harmful, -1.0)]).red_model_mark(None)
    mark = RewardSignals([harmful]).red_model_mark("rails need an attacker")
    assert mark is not None
    assert "rails need an attacker" in mark


def test_an_objective_that_lowers_harm_has_no_mark() -> None:
    harmful = JudgeSignal(TextJudge(lambda text: 0.0, "harmful"))
    helpful = JudgeSignal(TextJudge(lambda text: 0.0))
    assert RewardSignals([helpful], [harmful]).red_model_mark(None) is None
    penalised = RewardSignals([helpful, WeightedSignal(harmful, -1.0)])
    assert penalised.red_model_mark(None) is None


def test_a_run_needs_a_reward_and_weights() -> None:
    with pytest.raises(PlanError, match="needs a reward"):
        RewardSignals([])
    with pytest.raises(PlanError, match="is 0 or not finite"):
        RewardSignals([WeightedSignal(constant_signal("a", 1.0), 0.0)])
