"""Best-of-n: which candidate is selected, abstention, and lineage."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from truing.align.best_of import best_of, preferred_direction
from truing.align.prompted import prompted
from truing.core.lineage import find_judge_conflict
from truing.core.protocols import Model
from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Judgement,
    Lineage,
    Response,
    Sample,
    Sampling,
    Usage,
)
from truing.models.scripted import ScriptedModel


class NumberModel:
    """A model whose k-th answer is the text of the k-th number."""

    name = "numbers"
    lineage = Lineage(name="numbers", hash="n1")

    def __init__(self, numbers: list[float], fail: tuple[int, ...] = ()) -> None:
        self.numbers, self.fail = numbers, fail
        self.samplings: list[Sampling] = []

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        self.samplings.append(sampling)
        return tuple(
            Answer.failed("timeout", "no")
            if k in self.fail
            else Answer.of(str(self.numbers[k % len(self.numbers)]))
            for k in range(sampling.n)
        )


class NumberJudge:
    """A judge whose value is the number in the text; it cannot judge the `unscored` texts."""

    def __init__(self, question: str, *, name: str = "by", unscored: tuple[str, ...] = ()) -> None:
        self.name, self.question, self.unscored = name, question, unscored
        self.lineage = Lineage(name=name, hash=f"hash-{name}")

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        failed = Failure("judge", "empty", "x") if response.text in self.unscored else None
        value = None if failed else float(response.text)
        return Judgement(
            sample_id=sample.id,
            index=response.index,
            judge=self.name,
            question=self.question,
            value=value,
            failure=failed,
        )


HELLO = Conversation.of("Hello?")


def generate(
    model: Model, conversation: Conversation = HELLO, **sampling: Any
) -> tuple[Answer, ...]:
    return asyncio.run(model.generate(conversation, Sampling(**sampling)))


def test_selects_the_highest_reward_or_the_lowest_harm() -> None:
    model = NumberModel([0.2, 0.9, 0.1, 0.5])
    best = generate(best_of(model, 4, NumberJudge("helpful")), n=1)[0]
    assert best.text == "0.9"
    assert best.rulings[-1].score == 0.9
    assert best.rulings[-1].llm_calls == 4
    assert generate(best_of(model, 4, NumberJudge("harmful")))[0].text == "0.1"
    assert generate(best_of(model, 4, NumberJudge("harmful"), prefer="high"))[0].text == "0.9"
    assert generate(best_of(model, 1, NumberJudge("harmful")))[0].text == "0.2"
    both = generate(best_of(model, 2, NumberJudge("helpful")), n=2)
    assert [a.text for a in both] == ["0.9", "0.5"]
    assert model.samplings[0].n == 4
    assert model.samplings[0].temperature == 1.0  # greedy candidates would all be the same


def test_ties_go_to_the_first_and_failures_are_never_selected() -> None:
    assert (
        generate(best_of(NumberModel([1.0, 1.0]), 2, NumberJudge("helpful")))[0].rulings[-1].reason
        == "candidate 0 of 2"
    )
    assert (
        generate(best_of(NumberModel([5.0, 1.0], fail=(0,)), 2, NumberJudge("helpful")))[0].text
        == "1.0"
    )
    broken = generate(best_of(NumberModel([1.0, 1.0], fail=(0, 1)), 2, NumberJudge("helpful")))[0]
    assert broken.failure is not None
    assert broken.failure.kind == "timeout"
    unjudged = generate(
        best_of(NumberModel([1.0, 2.0]), 2, NumberJudge("helpful", unscored=("1.0", "2.0")))
    )[0]
    assert unjudged.failure is not None
    assert unjudged.failure.kind == "unjudged"
    assert (
        generate(best_of(NumberModel([1.0, 2.0]), 2, NumberJudge("helpful", unscored=("2.0",))))[
            0
        ].text
        == "1.0"
    )


def test_ceiling_excludes_candidates_and_abstains_without_any() -> None:
    cost = NumberJudge("harmful", name="cost:x")
    reward = NumberJudge("helpful", name="reward:x")
    model = best_of(NumberModel([-1.0, 2.0, -0.5]), 3, reward, ceiling=cost)
    assert generate(model)[0].text == "-0.5"  # the best reward whose cost is below 0
    all_excluded = best_of(NumberModel([3.0, 2.0]), 2, reward, ceiling=cost, refusal="No, thanks.")
    answer = generate(all_excluded)[0]
    assert (answer.text, answer.finish_reason, answer.failure) == ("No, thanks.", "abstained", None)
    assert answer.rulings[-1].ruling == "block"
    unscored = best_of(
        NumberModel([-3.0]),
        1,
        reward,
        ceiling=NumberJudge("harmful", name="cost:y", unscored=("-3.0",)),
    )
    assert (
        generate(unscored)[0].finish_reason == "abstained"
    )  # without a ceiling score a candidate is excluded
    assert (
        generate(best_of(NumberModel([0.7, 0.6]), 2, NumberJudge("harmful"), below=0.5))[
            0
        ].finish_reason
        == "abstained"
    )
    with pytest.raises(ValueError, match="ceiling="):
        best_of(NumberModel([1.0]), 1, reward, below=0.5)


def test_selecting_judges_may_not_measure_the_model() -> None:
    by, cost, other = (
        NumberJudge("harmful"),
        NumberJudge("harmful", name="cost:x"),
        NumberJudge("harmful", name="other"),
    )
    model = best_of(prompted(NumberModel([1.0]), "hhh"), 2, by, ceiling=cost)
    assert [j.name for j in model.lineage.judges] == ["by", "cost:x"]
    assert find_judge_conflict(by.lineage, model.lineage)
    assert find_judge_conflict(cost.lineage, model.lineage)
    assert find_judge_conflict(other.lineage, model.lineage) is None


def test_candidate_zero_is_the_base_models_answer() -> None:
    base = ScriptedModel(lambda conversation, sampling: f"{sampling.seed}", name="seeded")
    base_answers = asyncio.run(base.generate(HELLO, Sampling(n=4, temperature=1.0, seed=3)))
    candidates = asyncio.run(
        best_of(base, 4, NumberJudge("helpful")).draw_candidates(
            HELLO, Sampling(temperature=1.0, seed=3)
        )
    )
    assert [a.text for a in candidates] == [a.text for a in base_answers]


@pytest.mark.parametrize(
    ("question", "direction"),
    [("harmful", "low"), ("breaks_policy", "low"), ("refused", "low"), ("helpful", "high")],
)
def test_preferred_direction(question: str, direction: str) -> None:
    assert preferred_direction(NumberJudge(question)) == direction


def test_usage_counts_all_candidates() -> None:
    class CountingModel(NumberModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            answers = await super().generate(conversation, sampling)
            return tuple(replace(a, usage=Usage(5, k, 1)) for k, a in enumerate(answers))

    (answer,) = generate(best_of(CountingModel([3.0, 1.0, 2.0]), 3, NumberJudge("helpful")))
    assert (answer.text, answer.usage) == ("3.0", Usage(15, 3, 3))
