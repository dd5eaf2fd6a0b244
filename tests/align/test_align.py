"""Prompted, best of n, behind rails: what they give, what they cost, and who is named in their lineage."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from truing.align import best_of, best_of_curve, best_of_kl, load_prefix, prompted, retained_effect
from truing.core.errors import PlanError, SpecError
from truing.core.lineage import find_judge_conflict
from truing.core.protocols import LogprobModel, StreamingModel
from truing.core.types import (
    Answer,
    Conversation,
    Judgement,
    Lineage,
    Message,
    Response,
    Sample,
    Sampling,
)
from truing.models.scripted import ScriptedModel
from truing.specs.resolve import resolve


class Numbers:
    """A model whose k-th answer is the text of the k-th number."""

    name = "numbers"
    lineage = Lineage(name="numbers", hash="n1")

    def __init__(self, numbers: list[float], fail: tuple[int, ...] = ()) -> None:
        self.numbers, self.fail = numbers, fail
        self.asked: list[Sampling] = []

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        self.asked.append(sampling)
        made = [self.numbers[k % len(self.numbers)] for k in range(sampling.n)]
        return tuple(
            Answer.failed("timeout", "no") if k in self.fail else Answer.of(str(x))
            for k, x in enumerate(made)
        )


class ByNumber:
    """A judge that reads the number; `unscored` texts cannot be judged."""

    def __init__(
        self, question: str, *, name: str = "by", unscored: tuple[str, ...] = (), flip: bool = False
    ) -> None:
        self.name, self.question, self.unscored, self.flip = name, question, unscored, flip
        self.lineage = Lineage(name=name, hash=f"hash-{name}")

    async def judge(self, sample: Sample, response: Response) -> Judgement:
        from truing.core.types import Failure

        failed = Failure("judge", "empty", "x") if response.text in self.unscored else None
        value = None if failed else float(response.text) * (-1 if self.flip else 1)
        return Judgement(
            sample_id=sample.id,
            index=response.index,
            judge=self.name,
            question=self.question,
            value=value,
            failure=failed,
        )


ASK = Conversation.of("Hello?")


def ask(model: Any, conversation: Conversation = ASK, **sampling: Any) -> tuple[Answer, ...]:
    return asyncio.run(model.generate(conversation, Sampling(**sampling)))


def test_the_two_prefixes_have_fourteen_conversations_and_their_length() -> None:
    for name, low, high in (("hhh", 500, 650), ("hhh-long", 4400, 4800)):
        messages = load_prefix(name)
        assert low <= sum(len(m.content.split()) for m in messages) <= high
        assert {m.role for m in messages} == {"user", "assistant"}
        assert messages[0].role == "user"
        assert messages[-1].role == "assistant"
        path = Path(__file__).parents[2] / "src/truing/resources/prompts" / f"{name}.json"
        assert len(json.loads(path.read_text())) == 14


def test_prompted_puts_the_prefix_first_and_joins_system_messages() -> None:
    seen: list[Conversation] = []

    def script(conversation: Conversation, sampling: Sampling) -> str:
        seen.append(conversation)
        return "yes"

    base = ScriptedModel(script, name="base")
    model = prompted(base, "hhh", system="Be brief.")
    assert ask(model, Conversation.of("Hi", system="You are a cook."))[0].text == "yes"
    messages = seen[0].messages
    assert messages[0] == Message("system", "Be brief.\n\nYou are a cook.")
    assert messages[1:-1] == load_prefix("hhh")
    assert messages[-1] == Message("user", "Hi")
    assert model.name == "prompted:hhh,of=(base)"
    assert model.lineage.hash != base.lineage.hash
    assert isinstance(model, StreamingModel)
    assert isinstance(model, LogprobModel)
    assert asyncio.run(model.logprobs(ASK, ["a b"])) == asyncio.run(base.logprobs(ASK, ["a b"]))
    assert not isinstance(prompted(Numbers([1.0]), "hhh"), StreamingModel)


def test_prompted_reads_files(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Answer in rhyme.\n")
    assert load_prefix(str(tmp_path / "p.txt")) == (Message("system", "Answer in rhyme."),)
    rows = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    (tmp_path / "p.json").write_text(json.dumps([rows, rows]))
    assert len(load_prefix(str(tmp_path / "p.json"))) == 4
    faults = {
        "empty.txt": (" ", "is empty"),
        "a.json": ("{", "a.json"),
        "b.json": ("[]", "expected a list"),
        "c.json": ('[{"role": "user", "content": "a"}]', "ends with an answer"),
        "d.json": ('[{"role": "boss", "content": "a"}]', "none of system"),
        "e.json": (
            json.dumps([*rows, {"role": "system", "content": "x"}, *rows]),
            "only at the beginning",
        ),
    }
    for name, (text, word) in faults.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(PlanError, match=word):
            load_prefix(str(tmp_path / name))
    with pytest.raises(PlanError, match="did you mean 'hhh'"):
        load_prefix("hh")
    with pytest.raises(PlanError, match="neither a prefix"):
        prompted(Numbers([1.0]), None)


def test_best_of_takes_the_highest_reward_and_the_lowest_harm() -> None:
    model = Numbers([0.2, 0.9, 0.1, 0.5])
    best = ask(best_of(model, 4, ByNumber("helpful")), n=1)[0]
    assert best.text == "0.9"
    assert best.rulings[-1].score == 0.9
    assert best.rulings[-1].llm_calls == 4
    assert ask(best_of(model, 4, ByNumber("harmful")))[0].text == "0.1"
    assert ask(best_of(model, 4, ByNumber("harmful"), prefer="high"))[0].text == "0.9"
    assert ask(best_of(model, 1, ByNumber("harmful")))[0].text == "0.2"
    both = ask(best_of(model, 2, ByNumber("helpful")), n=2)
    assert [a.text for a in both] == ["0.9", "0.5"]
    assert model.asked[0].n == 4
    assert model.asked[0].temperature == 1.0  # greedy candidates would all be the same


def test_best_of_ties_go_to_the_first_and_failures_are_never_chosen() -> None:
    assert (
        ask(best_of(Numbers([1.0, 1.0]), 2, ByNumber("helpful")))[0].rulings[-1].reason
        == "candidate 0 of 2"
    )
    assert ask(best_of(Numbers([5.0, 1.0], fail=(0,)), 2, ByNumber("helpful")))[0].text == "1.0"
    broken = ask(best_of(Numbers([1.0, 1.0], fail=(0, 1)), 2, ByNumber("helpful")))[0]
    assert broken.failure is not None
    assert broken.failure.kind == "timeout"
    blind = ask(best_of(Numbers([1.0, 2.0]), 2, ByNumber("helpful", unscored=("1.0", "2.0"))))[0]
    assert blind.failure is not None
    assert blind.failure.kind == "unjudged"
    assert (
        ask(best_of(Numbers([1.0, 2.0]), 2, ByNumber("helpful", unscored=("2.0",))))[0].text
        == "1.0"
    )


def test_the_ceiling_and_abstention() -> None:
    cost = ByNumber("harmful", name="cost:x")
    reward = ByNumber("helpful", name="reward:x")
    model = best_of(Numbers([-1.0, 2.0, -0.5]), 3, reward, ceiling=cost)
    assert ask(model)[0].text == "-0.5"  # the best reward whose cost is below 0
    all_out = best_of(Numbers([3.0, 2.0]), 2, reward, ceiling=cost, refusal="No, thanks.")
    answer = ask(all_out)[0]
    assert (answer.text, answer.finish_reason, answer.failure) == ("No, thanks.", "abstained", None)
    assert answer.rulings[-1].ruling == "block"
    unscored = best_of(
        Numbers([-3.0]), 1, reward, ceiling=ByNumber("harmful", name="cost:y", unscored=("-3.0",))
    )
    assert ask(unscored)[0].finish_reason == "abstained"  # what the ceiling cannot judge is out
    assert (
        ask(best_of(Numbers([0.7, 0.6]), 2, ByNumber("harmful"), below=0.5))[0].finish_reason
        == "abstained"
    )
    with pytest.raises(ValueError, match="ceiling="):
        best_of(Numbers([1.0]), 1, reward, below=0.5)


def test_the_choosing_judge_may_not_measure() -> None:
    by, cost, other = (
        ByNumber("harmful"),
        ByNumber("harmful", name="cost:x"),
        ByNumber("harmful", name="other"),
    )
    model = best_of(prompted(Numbers([1.0]), "hhh"), 2, by, ceiling=cost)
    assert [j.name for j in model.lineage.judges] == ["by", "cost:x"]
    assert find_judge_conflict(by.lineage, model.lineage)
    assert find_judge_conflict(cost.lineage, model.lineage)
    assert find_judge_conflict(other.lineage, model.lineage) is None


def test_specs() -> None:
    model = resolve(
        'best-of:3,by=(rules:refusal),of=(prompted:system,system="Be kind.",of=(scripted:comply))'.replace(
            "prompted:system", "prompted"
        ),
        "model",
    )
    assert model.n == 3
    assert model.lineage.judges[0].name == "rules:refusal"
    for spec, word in (
        ("best-of:many,by=(rules:refusal),of=(scripted:comply)", "number of answers"),
        ("best-of:0,by=(rules:refusal),of=(scripted:comply)", "at least one"),
        ("best-of:2,of=(scripted:comply)", "by="),
        ("best-of:2,by=(rules:refusal),prefer=best,of=(scripted:comply)", "prefer"),
        ("prompted,of=(scripted:comply)", "prefix"),
        ("prompted:hhh", "of="),
        ("guarded,of=(scripted:comply)", "folder"),
    ):
        with pytest.raises(SpecError, match=word):
            resolve(spec, "model")


def test_kl_bound() -> None:
    assert best_of_kl(1) == 0
    assert best_of_kl(16) == pytest.approx(math.log(16) - 15 / 16)
    with pytest.raises(ValueError, match="at least one"):
        best_of_kl(0)


def test_the_curve_is_the_mean_over_all_subsets() -> None:
    rng = random.Random(1)
    for _ in range(5):
        chosen = [[rng.choice([0.0, 0.5, 1.0, 2.0]) for _ in range(6)] for _ in range(3)]
        measured = [[rng.random() for _ in range(6)] for _ in range(3)]
        for n in (1, 2, 4, 6):
            total = []
            for u, m in zip(chosen, measured):
                values = []
                for subset in itertools.combinations(range(6), n):
                    top = max(u[k] for k in subset)
                    best = [m[k] for k in subset if u[k] == top]
                    values.append(sum(best) / len(best))
                total.append(sum(values) / len(values))
            assert best_of_curve(chosen, measured, [n])[0] == pytest.approx(sum(total) / 3)
    flat = [[1.0, 2.0, 3.0]]
    assert best_of_curve(flat, flat, [1, 2, 3]) == pytest.approx([2.0, 8 / 3, 3.0])
    with pytest.raises(ValueError, match="between 1"):
        best_of_curve(flat, flat, [4])
    with pytest.raises(ValueError, match="as many prompts"):
        best_of_curve(flat, [], [1])


def test_kept_share_only_where_there_is_an_effect() -> None:
    rng = random.Random(0)
    base = [rng.random() for _ in range(200)]
    full = [b + 1 + 0.1 * rng.random() for b in base]
    half = [b + 0.5 for b in base]
    kept = retained_effect(base, full, half)
    assert kept.share == pytest.approx(0.5 / 1.05, abs=0.02)
    assert kept.share_interval is not None
    assert kept.share_interval[0] <= kept.share <= kept.share_interval[1]
    noise = retained_effect(base, [b + rng.choice([-1, 1]) for b in base], half)
    assert noise.share is None


def test_candidate_zero_is_the_base_models_answer() -> None:
    texts = iter(range(100))
    base = ScriptedModel(lambda conversation, sampling: f"{sampling.seed}", name="seeded")
    del texts
    lone = asyncio.run(base.generate(ASK, Sampling(n=4, temperature=1.0, seed=3)))
    drawn = asyncio.run(
        best_of(base, 4, ByNumber("helpful")).draw_candidates(
            ASK, Sampling(temperature=1.0, seed=3)
        )
    )
    assert [a.text for a in drawn] == [a.text for a in lone]
    assert msgspec.json.encode(drawn[0])
