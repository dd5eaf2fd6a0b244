"""Speculative generation, concurrent rails and time limits (`truing:`), in whole turns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from adapter_truing import BagOfWordsEncoder

from truing.core.types import Answer, Conversation, Lineage, Message, Sampling
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.speculation import options_without_text_rails

CHECKS = """
prompts:
  - {task: self_check_input, content: "CHECK INPUT {{ user_input }}"}
  - {task: self_check_output, content: "CHECK OUTPUT {{ bot_response }}"}
rails:
  input: {flows: [self check input]}
"""
SPECULATIVE = "truing: {speculative: true}\n"
PRICE_FLOW = (
    'define user ask price\n  "how much"\n\ndefine flow\n  user ask price\n  bot tell price\n'
)
TASKS = ("CHECK INPUT", "CHECK OUTPUT", "canonical form", "bot's message")


class TracingModel:
    """Answers after a pause and records when the call of each task starts and ends.

    The check of the input ends only when the call of task `check_waits_for`, if any, has started:
    what overlaps then depends on no clock.
    """

    name = "tracing"
    lineage = Lineage(name="tracing")

    def __init__(
        self, seconds: float = 0.02, verdict: str = "No", check_waits_for: str | None = None
    ) -> None:
        self.seconds, self.verdict, self.check_waits_for = seconds, verdict, check_waits_for
        self.trace: list[str] = []
        self.awaited_call_started = asyncio.Event()

    @property
    def started(self) -> list[str]:
        return sorted(entry[len("start ") :] for entry in self.trace if entry.startswith("start "))

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        text = conversation.last.content
        task = next((task for task in TASKS if task in text), "answer")
        self.trace.append(f"start {task}")
        if task == self.check_waits_for:
            self.awaited_call_started.set()
        await asyncio.sleep(self.seconds)
        if task == "CHECK INPUT" and self.check_waits_for is not None:
            async with asyncio.timeout(30):
                await self.awaited_call_started.wait()
        self.trace.append(f"end {task}")
        if task.startswith("CHECK"):
            return (Answer.of(self.verdict),)
        return (Answer.of("ask price" if task == "canonical form" else f"You said: {text[-200:]}"),)

    def overlaps(self, first: str, second: str) -> bool:
        """Whether the second call started before the first one ended."""
        return self.trace.index(f"start {second}") < self.trace.index(f"end {first}")


def run_turn(
    model: TracingModel, yaml: str, colang: str = "", message: str = "hello", **parts: Any
) -> Answer:
    guarded = GuardedModel(
        RailsConfig.from_text(yaml, colang),
        model,
        parts=RuntimeParts(encoder=BagOfWordsEncoder(), **parts),
    )
    return asyncio.run(guarded.answer(Conversation.of(message), Sampling()))


# -- speculation -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_nemo_key", [False, True])
def test_the_answer_is_generated_while_the_input_is_checked(is_nemo_key: bool) -> None:
    yaml = CHECKS + SPECULATIVE
    if is_nemo_key:
        yaml = CHECKS.replace("input: {", "input: {speculative_generation: true, ")
    plain, speculative = TracingModel(), TracingModel(check_waits_for="answer")
    expected, answer = run_turn(plain, CHECKS), run_turn(speculative, yaml)
    assert answer.text == expected.text == "You said: hello"
    assert answer.rulings[0].ruling == expected.rulings[0].ruling == "allow"
    assert not plain.overlaps("CHECK INPUT", "answer")
    assert speculative.overlaps("CHECK INPUT", "answer")
    assert speculative.started == ["CHECK INPUT", "answer"]


def test_a_blocked_message_shows_no_speculative_answer() -> None:
    model = TracingModel(verdict="Yes", check_waits_for="answer")
    answer = run_turn(model, CHECKS + SPECULATIVE)
    assert answer.finish_reason == "blocked"
    assert "You said" not in answer.text
    assert model.started == ["CHECK INPUT", "answer"]


def test_a_rewritten_message_is_answered_anew() -> None:
    colang = 'define subflow mask\n  $user_message = "masked"\n'
    yaml = "rails: {input: {flows: [mask]}}\n" + SPECULATIVE
    assert run_turn(TracingModel(), yaml, colang).text == "You said: masked"


def test_the_intent_and_the_message_are_speculated_too() -> None:
    plain = TracingModel()
    speculative = TracingModel(check_waits_for="canonical form")
    expected = run_turn(plain, CHECKS, PRICE_FLOW)
    answer = run_turn(speculative, CHECKS + SPECULATIVE, PRICE_FLOW)
    assert answer.text == expected.text
    assert speculative.started == ["CHECK INPUT", "bot's message", "canonical form"]
    assert speculative.overlaps("CHECK INPUT", "canonical form")


def test_user_code_is_never_run_speculatively() -> None:
    calls: list[str] = []

    async def look_up(text: str) -> str:
        calls.append(text)
        return "3"

    colang = PRICE_FLOW.replace(
        "  bot tell", "  $p = execute look_up(text=$user_message)\n  bot tell"
    )
    model = TracingModel()
    answer = run_turn(model, CHECKS + SPECULATIVE, colang, actions={"look_up": look_up})
    assert calls == ["hello"]
    assert answer.finish_reason == "stop"
    assert model.started == ["CHECK INPUT", "bot's message", "canonical form"]


def test_rails_with_user_code_switch_speculation_and_concurrency_off() -> None:
    colang = "define subflow own\n  $ok = execute check\n  if not $ok\n    stop\n"
    yaml = "rails: {input: {flows: [own]}}\ntruing: {speculative: true, concurrent: true}\n"
    parts = RuntimeParts(encoder=BagOfWordsEncoder(), actions={"check": lambda: True})
    guarded = GuardedModel(RailsConfig.from_text(yaml, colang), TracingModel(), parts=parts)
    assert guarded.runtime.speculative is False


def test_the_copys_options_switch_text_rails_off_and_keep_the_others() -> None:
    options = options_without_text_rails({"rails": {"dialog": False}, "log": {"x": True}})
    assert options["rails"] == {
        "dialog": False,
        "input": False,
        "output": False,
        "retrieval": True,
        "tool_output": True,
        "tool_input": True,
    }
    assert options["log"] == {"x": True}
    assert options_without_text_rails(None)["llm_params"] is None


# -- concurrent rails --------------------------------------------------------------------------

TWO_CHECKS = """
prompts:
  - {task: "self_check_input $variant=a", content: "CHECK INPUT a"}
  - {task: "self_check_input $variant=b", content: "CHECK INPUT b"}
rails:
  input: {flows: ["self check input $variant=a", "self check input $variant=b"]}
"""
CONCURRENT = "truing: {concurrent: true}\n"


def test_independent_rails_run_in_parallel_if_configured() -> None:
    plain, concurrent = TracingModel(), TracingModel()
    expected, answer = run_turn(plain, TWO_CHECKS), run_turn(concurrent, TWO_CHECKS + CONCURRENT)
    assert answer.text == expected.text
    assert plain.trace[:2] == ["start CHECK INPUT", "end CHECK INPUT"]
    assert concurrent.trace[:2] == ["start CHECK INPUT", "start CHECK INPUT"]
    assert [r.name for r in answer.rulings] == [r.name for r in expected.rulings]


def test_in_parallel_the_first_rail_that_blocks_decides() -> None:
    model = TracingModel(verdict="Yes")
    answer = run_turn(model, TWO_CHECKS + CONCURRENT)
    assert answer.finish_reason == "blocked"
    assert "answer" not in model.started


# -- time limits and load ----------------------------------------------------------------------


def test_an_llm_that_takes_too_long_fails_closed_with_its_reason() -> None:
    answer = run_turn(TracingModel(60.0), CHECKS + "truing: {llm_timeout: 0.05}\n")
    assert answer.failure is not None
    assert answer.failure.kind == "timeout"
    assert answer.text == ""
    assert answer.rulings[0].ruling == "block"
    assert "longer than 0.05 s" in answer.rulings[0].reason


def test_concurrent_conversations_do_not_mix() -> None:
    colang = (
        'define user ask\n  "ask"\n\ndefine bot say\n  "first: $first"\n\ndefine flow\n'
        "  user ask\n  $first = $last_user_message\n  bot say\n  user ask\n  bot say\n"
    )
    yaml = "rails: {dialog: {user_messages: {embeddings_only: true}}}\n"
    guarded = GuardedModel(
        RailsConfig.from_text(yaml, colang),
        TracingModel(0),
        parts=RuntimeParts(encoder=BagOfWordsEncoder()),
    )

    async def hold_conversation(number: int) -> None:
        messages: tuple[Message, ...] = ()
        for turn in range(4):
            messages = (*messages, Message("user", f"ask {number} {turn}"))
            answer = await guarded.answer(Conversation(messages), Sampling())
            assert answer.text == f"first: ask {number} {turn - turn % 2}"
            messages = (*messages, answer.message)
            await asyncio.sleep(0)

    async def run_all() -> None:
        await asyncio.gather(*(hold_conversation(number) for number in range(60)))

    asyncio.run(run_all())
