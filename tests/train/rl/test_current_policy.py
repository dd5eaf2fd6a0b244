"""The policy as a `Model`: batches, decoding, lineage."""

from __future__ import annotations

import asyncio
from typing import Any

from truing.core.types import Conversation, Lineage, Sampling
from truing.train.rl.current_policy import policy_lineage


def test_answers_do_not_depend_on_the_batch(make_trainer: Any) -> None:
    policy = make_trainer("grpo", template="plain").current_policy("now")
    sampling = Sampling(n=2, max_tokens=6, temperature=1.0, seed=3)
    conversations = [Conversation.of(text) for text in ("ash", "bay cob dew", "elm")]

    async def generate_concurrently() -> Any:
        return await asyncio.gather(*(policy.generate(c, sampling) for c in conversations))

    async def generate_in_turn() -> Any:
        return [await policy.generate(c, sampling) for c in conversations]

    together, in_turn = asyncio.run(generate_concurrently()), asyncio.run(generate_in_turn())
    assert [len(answers) for answers in together] == [2, 2, 2]
    assert [[a.text for a in answers] for answers in together] == [
        [a.text for a in answers] for answers in in_turn
    ]


def test_requests_of_different_sampling_are_not_mixed(make_trainer: Any) -> None:
    policy = make_trainer("grpo", template="plain").current_policy("now")

    async def generate() -> Any:
        samplings = [Sampling(max_tokens=1, temperature=1.0), Sampling(max_tokens=5, n=3)]
        conversation = Conversation.of("ash")
        return await asyncio.gather(*(policy.generate(conversation, s) for s in samplings))

    short, long = asyncio.run(generate())
    assert len(short) == 1
    assert short[0].usage.completion_tokens == 1
    assert len(long) == 3


def test_a_failure_reaches_every_request_of_the_batch(make_trainer: Any) -> None:
    policy = make_trainer("grpo", template="plain").current_policy("now")
    policy.end_ids = frozenset()  # the generator refuses to start
    sampling = Sampling(n=2)

    async def generate() -> Any:
        return await policy.generate(Conversation.of("ash"), sampling)

    answers = asyncio.run(generate())
    assert [answer.failure is not None for answer in answers] == [True, True]


def test_the_lineage_names_base_prompts_and_judges() -> None:
    inherited, judge = Lineage(name="old", hash="o"), Lineage(name="new", hash="n")
    base = Lineage(name="base", base_sha256="b", prompts=("p2",), judges=(inherited,))
    lineage = policy_lineage("ppo:run", base, (judge, judge), ("p1",), red_model="why")
    assert (lineage.name, lineage.base, lineage.base_sha256) == ("ppo:run", "base", "b")
    assert lineage.prompts == ("p1", "p2")
    assert lineage.judges == (judge, inherited)
    assert lineage.red_model == "why"
