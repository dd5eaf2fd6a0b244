"""The answer contract: what empty, cut and special-token answers score; what stops a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from truing.core.errors import PlanError, RunError
from truing.core.types import Conversation, Sample
from truing.distributed.process_group import ProcessGroup
from truing.train.rl.answer_scores import AnswerScorer, cut_penalty, overlong_share
from truing.train.rl.constraint_settings import ConstraintSettings
from truing.train.rl.reward_signals import (
    ConstrainedCost,
    FunctionSignal,
    GlobalScores,
    RewardSignals,
    WeightedSignal,
)
from truing.train.rl.rollout import Rollout, TokenizedPrompt
from truing.train.rl.settings import RLSettings


def word_signal(name: str, numbers: dict[str, float]) -> FunctionSignal:
    """A signal that looks up the number of each text; it fails if it is shown an empty answer."""
    return FunctionSignal(name, lambda rollout: torch.tensor([numbers[t] for t in rollout.texts]))


REWARD = word_signal("reward", {"good": 2.0, "bad": -1.0, "<s> good": 3.0, "none": math.nan})
COST = word_signal("cost", {"good": 0.5, "bad": 1.5, "<s> good": 4.0, "none": 0.0})


def rollout_of(
    texts: Sequence[str], samples: Sequence[Sample] = (), ended: tuple[bool, ...] = ()
) -> Rollout:
    count = len(texts)
    samples = samples or [Sample(conversation=Conversation.of("ash"), id="a")] * count
    mask = torch.ones(count, 2, dtype=torch.long)
    return Rollout(
        prompts=tuple(TokenizedPrompt(sample, (4,)) for sample in samples),
        global_rows=tuple(range(count)),
        input_ids=torch.ones(count, 3, dtype=torch.long),
        attention_mask=torch.ones(count, 3, dtype=torch.long),
        answer_mask=mask,
        log_probs=torch.zeros(count, 2),
        ended=ended or (True,) * count,
        texts=tuple(texts),
        special=tuple("<s>" in text for text in texts),
    )


def scorer_of(count: int, **settings: Any) -> AnswerScorer:
    signals = RewardSignals([REWARD], [COST])
    values = RLSettings(method="ppo-lag", out="", prompts=count, **settings)
    return AnswerScorer(values, signals, ProcessGroup(), torch.device("cpu"))


def score(scorer: AnswerScorer, *texts: str) -> GlobalScores:
    rollout = rollout_of(texts)
    samples = [prompt.sample for prompt in rollout.prompts]
    return scorer.score(rollout, samples, step=1)[1]


def test_an_empty_answer_gets_the_lowest_reward_and_a_neutral_cost() -> None:
    scores = score(scorer_of(3, threshold=7.0), "good", "bad", "")
    assert scores.scored.tolist() == [True, True, True]
    assert scores.reward.tolist() == [2.0, -1.0, -1.0]
    assert scores.costs["cost"].tolist() == [0.5, 1.5, 1.0]


def test_the_lowest_reward_is_that_of_the_run_and_survives_a_resume() -> None:
    scorer = scorer_of(2, threshold=7.0)
    score(scorer, "bad", "good")
    resumed = scorer_of(2, threshold=7.0)
    resumed.load_state_dict(scorer.state_dict())
    scores = score(resumed, "good", "")
    assert scores.reward.tolist() == [2.0, -1.0]
    assert score(scorer_of(2, threshold=7.0), "", "").reward.tolist() == [0.0, 0.0]


def test_a_step_of_empty_answers_moves_no_multiplier() -> None:
    scores = score(scorer_of(2, threshold=7.0), "", "")
    assert scores.costs["cost"].tolist() == [7.0, 7.0]
    assert bool(scores.scored.all())


def test_special_tokens_are_visible_and_have_a_declared_reward() -> None:
    texts = ("<s> good", "good", "bad")
    assert score(scorer_of(3), *texts).reward.tolist() == [-1.0, 2.0, -1.0]
    assert score(scorer_of(3), *texts).costs["cost"].tolist() == [4.0, 0.5, 1.5]
    judged = scorer_of(3, special_token_score="judged")
    assert score(judged, *texts).reward.tolist() == [3.0, 2.0, -1.0]
    assert score(scorer_of(3, special_token_score=-9.0), *texts).reward.tolist()[0] == -9.0


def test_the_message_about_unscored_answers_says_what_happened() -> None:
    scorer = scorer_of(4, empty_answer_score="unscored")
    with pytest.raises(RunError) as caught:
        score(scorer, "", "", "none", "good")
    message = str(caught.value)
    assert "3 of 4 answers have no score (2 × an empty answer" in message
    assert "1 × reward: not a finite number" in message
    assert "empty_answer_score" in message
    assert "--max-unscored 0.75" in message
    allowed = scorer_of(4, empty_answer_score="unscored", max_unscored=0.75)
    assert score(allowed, "", "", "none", "good").scored.tolist() == [False, False, False, True]


@given(
    st.lists(st.sampled_from(["good", "bad", "<s> good", "", "none"]), min_size=1, max_size=8),
    st.sampled_from(["lowest", "unscored", -2.5]),
    st.sampled_from(["lowest", "judged", "hidden", 1.5]),
)
def test_whatever_is_sampled_every_score_is_finite_and_no_empty_answer_pays(
    texts: list[str], empty: Any, special: Any
) -> None:
    scorer = scorer_of(
        len(texts), empty_answer_score=empty, special_token_score=special, max_unscored=1.0
    )
    scores = score(scorer, *texts)
    assert bool(torch.isfinite(scores.reward).all())
    assert bool(torch.isfinite(scores.costs["cost"]).all())
    for text, scored in zip(texts, scores.scored.tolist()):
        assert scored == (empty != "unscored" if not text else text != "none")
    if empty == "lowest" and special in ("judged", "hidden"):
        rewards = scores.reward[scores.scored]
        empties = [r for t, r in zip(texts, scores.reward.tolist()) if not t]
        answered = [r for t, r in zip(texts, scores.reward.tolist()) if t and t != "none"]
        assert not answered or all(r <= min(answered) for r in empties)
        assert len(rewards) == len(empties) + len(answered)


def test_a_constraint_is_about_its_prompts_alone() -> None:
    asks = Sample(conversation=Conversation.of("a"), id="a", expect="support")
    other = Sample(conversation=Conversation.of("b"), id="b", harms=("violence,aiding",))
    limits = (
        ConstraintSettings(name="distress", expect="support", threshold=3.0),
        ConstraintSettings(name="violence", category="violence"),
    )
    signals = RewardSignals(
        [REWARD], (), [ConstrainedCost(limit, (WeightedSignal(COST),)) for limit in limits]
    )
    settings = RLSettings(method="ppo-lag", out="", prompts=3, constraints=limits)
    scorer = AnswerScorer(settings, signals, ProcessGroup(), torch.device("cpu"))
    rollout = rollout_of(("good", "bad", ""), [asks, other, asks])
    local, scores = scorer.score(rollout, [asks, other, asks], step=1)
    assert scores.counted("distress").tolist() == [True, False, True]
    assert scores.counted("violence").tolist() == [False, True, False]
    # The cost of the empty answer is the mean of the others that count.
    assert scores.costs["distress"].tolist() == [0.5, 0.0, 0.5]
    assert local.parts["cost/violence/cost"].isnan().tolist() == [True, False, True]


def test_the_penalty_for_cut_answers() -> None:
    scores = GlobalScores(torch.tensor([1.0, 3.0]), {}, torch.tensor([True, True]))
    settings = RLSettings(method="grpo", out="", max_new=10)
    assert cut_penalty(settings, scores) == pytest.approx(1.0)  # one standard deviation
    fixed = RLSettings(method="grpo", out="", truncation_penalty=0.3)
    assert cut_penalty(fixed, scores) == 0.3


def test_the_overlong_penalty_rises_over_its_buffer() -> None:
    settings = RLSettings(method="grpo", out="", max_new=10, overlong_buffer=4)
    mask = (torch.arange(10) < torch.tensor([[6], [7], [9], [10], [10]])).long()
    rollout = rollout_of(("good",) * 5, ended=(True, True, True, True, False))
    rollout = Rollout(**{**vars(rollout), "answer_mask": mask})
    # DAPO, equation 13: (length - (10 - 4)) / 4 within the buffer.
    assert overlong_share(settings, rollout).tolist() == [0.0, 0.25, 0.75, 1.0, 1.0]
    hard = RLSettings(method="grpo", out="", max_new=10)
    assert overlong_share(hard, rollout).tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"empty_answer_score": "worst"}, "a number, or lowest or unscored"),
        ({"special_token_score": math.nan}, "must be finite"),
        ({"truncation_penalty": -1.0}, "at least 0"),
        ({"overlong_buffer": 64}, "below max_new = 64"),
        ({"max_unscored": 1.1}, "a share, from 0 to 1"),
    ],
)
def test_bad_contracts_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        RLSettings(method="grpo", out="", n=2, **changes).validated(costs=False)
