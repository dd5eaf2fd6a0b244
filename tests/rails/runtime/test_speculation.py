"""Our additions under `truing:`: generation ahead of the input rails, rails side by side, LLMs with a time limit."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from adapter_truing import BagOfWordsEncoder

from truing.core.types import Answer, Conversation, Lineage, Message, Sampling
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.parallel_rails import can_run_in_parallel, variable_effects

CHECKS = """
prompts:
  - {task: self_check_input, content: "CHECK INPUT {{ user_input }}"}
  - {task: self_check_output, content: "CHECK OUTPUT {{ bot_response }}"}
rails:
  input: {flows: [self check input]}
"""


class Slow:
    """Answers after a while, and keeps the order of what it was asked."""

    name = "slow"
    lineage = Lineage(name="slow")

    def __init__(self, seconds: float = 0.15, verdict: str = "No") -> None:
        self.seconds, self.verdict = seconds, verdict
        self.asked: list[str] = []
        self.cancelled = 0

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        text = conversation.last.content
        kind = next(
            (
                k
                for k in ("CHECK INPUT", "CHECK OUTPUT", "canonical form", "bot's message")
                if k in text
            ),
            "answer",
        )
        self.asked.append(kind)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if kind.startswith("CHECK"):
            return (Answer.of(self.verdict),)
        return (Answer.of("ask price" if kind == "canonical form" else f"You said: {text[-200:]}"),)


def _run(
    model: Slow, yaml: str, colang: str = "", said: str = "hello", **parts: Any
) -> tuple[Answer, float]:
    guarded = GuardedModel(
        RailsConfig.from_text(yaml, colang),
        model,
        parts=RuntimeParts(encoder=BagOfWordsEncoder(), **parts),
    )
    began = time.perf_counter()
    answer = asyncio.run(guarded.answer(Conversation.of(said), Sampling()))
    return answer, time.perf_counter() - began


@pytest.mark.parametrize("key", ["truing: {speculative: true}\n", ""])
def test_the_answer_is_generated_while_the_input_is_checked(key: str) -> None:
    yaml = CHECKS if key else CHECKS.replace("input: {", "input: {speculative_generation: true, ")
    plain, slow = _run(Slow(), CHECKS)
    ahead, fast = _run(Slow(), yaml + key)
    assert plain.text == ahead.text == "You said: hello"
    assert slow > 0.3
    assert fast < slow - 0.08
    assert plain.rulings[0].ruling == ahead.rulings[0].ruling == "allow"


def test_what_is_blocked_is_not_shown_and_its_generation_is_cancelled() -> None:
    model = Slow(verdict="Yes")
    answer, _ = _run(model, CHECKS + "truing: {speculative: true}\n")
    assert answer.finish_reason == "blocked"
    assert "You said" not in answer.text
    assert sorted(model.asked) == ["CHECK INPUT", "answer"]


def test_a_rewritten_message_is_answered_anew() -> None:
    colang = 'define subflow mask\n  $user_message = "masked"\n'
    model = Slow(0.05)
    answer, _ = _run(
        model, "rails: {input: {flows: [mask]}}\ntruing: {speculative: true}\n", colang
    )
    assert answer.text == "You said: masked"


def test_the_canonical_form_and_the_message_come_ahead_too() -> None:
    colang = (
        'define user ask price\n  "how much"\n\ndefine flow\n  user ask price\n  bot tell price\n'
    )
    plain, slow = _run(Slow(), CHECKS, colang)
    model = Slow()
    ahead, fast = _run(model, CHECKS + "truing: {speculative: true}\n", colang)
    assert plain.text == ahead.text
    assert sorted(model.asked) == ["CHECK INPUT", "bot's message", "canonical form"]
    assert slow > 0.45
    assert fast < slow - 0.1


def test_actions_of_the_user_are_never_run_ahead() -> None:
    ran: list[str] = []

    async def look_up(text: str) -> str:
        ran.append(text)
        return "3"

    colang = 'define user ask price\n  "x"\n\ndefine flow\n  user ask price\n  $p = execute look_up(text=$user_message)\n  bot tell price\n'
    model = Slow(0.05)
    answer, _ = _run(
        model, CHECKS + "truing: {speculative: true}\n", colang, actions={"look_up": look_up}
    )
    assert ran == ["hello"]
    assert answer.finish_reason == "stop"
    assert sorted(model.asked) == ["CHECK INPUT", "bot's message", "canonical form"]


def test_rails_with_actions_of_the_user_are_not_run_beside_anything() -> None:
    colang = "define subflow own\n  $ok = execute mine\n  if not $ok\n    bot refuse to respond\n    stop\n"
    order: list[str] = []

    async def mine() -> bool:
        await asyncio.sleep(0.05)
        order.append("rail")
        return True

    model = Slow(0.0)
    yaml = "rails: {input: {flows: [own]}}\ntruing: {speculative: true, concurrent: true}\n"
    guarded = GuardedModel(
        RailsConfig.from_text(yaml, colang),
        model,
        parts=RuntimeParts(encoder=BagOfWordsEncoder(), actions={"mine": mine}),
    )
    assert guarded.runtime.speculative is False
    asyncio.run(guarded.answer(Conversation.of("hello"), Sampling()))
    assert order == ["rail"]


TWO = """
prompts:
  - {task: "self_check_input $variant=a", content: "CHECK INPUT a"}
  - {task: "self_check_input $variant=b", content: "CHECK INPUT b"}
rails:
  input: {flows: ["self check input $variant=a", "self check input $variant=b"]}
"""


def test_independent_rails_run_side_by_side_where_asked_for() -> None:
    one, slow = _run(Slow(), TWO)
    both, fast = _run(Slow(), TWO + "truing: {concurrent: true}\n")
    assert one.text == both.text
    assert slow > 0.44
    assert fast < slow - 0.1
    assert [r.name for r in both.rulings] == [r.name for r in one.rulings]


def test_side_by_side_the_first_that_blocks_decides() -> None:
    model = Slow(verdict="Yes")
    answer, _ = _run(model, TWO + "truing: {concurrent: true}\n")
    assert answer.finish_reason == "blocked"
    assert "answer" not in model.asked


@pytest.mark.parametrize(
    ("first", "second", "free"),
    [
        ('$a = "x" in $user_message', '$b = "y" in $user_message', True),
        ('$user_message = "x"', '$b = "y" in $user_message', False),
        ("$a = 1", "if $a\n    stop", False),
        ("$a = 1", "$a = 2\n  if $a\n    stop", True),
        ("execute unknown_action", "$b = 1", False),
        ("create event Something", "$b = 1", False),
        ("do $sub", "$b = 1", False),
    ],
)
def test_independence_is_shown_or_denied(first: str, second: str, free: bool) -> None:
    colang = f"define subflow one\n  {first}\n\ndefine subflow two\n  {second}\n"
    guarded = GuardedModel(
        RailsConfig.from_text("rails: {input: {flows: [one, two]}}\n", colang),
        Slow(),
        parts=RuntimeParts(encoder=BagOfWordsEncoder()),
    )
    assert can_run_in_parallel(guarded.runtime.program, ["one", "two"]) is free
    assert variable_effects(guarded.runtime.program, "two") is not None


def test_an_llm_that_takes_too_long_fails_closed_with_its_reason() -> None:
    answer, seconds = _run(Slow(5.0), CHECKS + "truing: {llm_timeout: 0.1}\n")
    assert seconds < 2
    assert answer.failure is not None
    assert answer.failure.kind == "timeout"
    assert answer.text == ""
    assert answer.rulings[0].ruling == "block"
    assert "longer than 0.1 s" in answer.rulings[0].reason


def test_conversations_do_not_mix_under_load() -> None:
    colang = (
        'define user ask\n  "ask"\n\ndefine flow\n  user ask\n  $mine = $last_user_message\n  bot say\n  user ask\n  bot say\n\n'
        'define bot say\n  "mine: $mine"\n'
    )
    yaml = "rails: {dialog: {user_messages: {embeddings_only: true}}}\n"
    guarded = GuardedModel(
        RailsConfig.from_text(yaml, colang),
        Slow(0),
        parts=RuntimeParts(encoder=BagOfWordsEncoder()),
    )

    async def talk(k: int) -> None:
        messages: tuple[Message, ...] = ()
        for turn in range(4):
            messages = (*messages, Message("user", f"ask {k} {turn}"))
            answer = await guarded.answer(Conversation(messages), Sampling())
            kept = f"ask {k} {turn - turn % 2}"
            assert answer.text == f"mine: {kept}"
            messages = (*messages, answer.message)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(talk(k) for k in range(60)))

    asyncio.run(all_of_them())
