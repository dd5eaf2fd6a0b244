"""Everything that a turn shows has passed the output stage, whatever flows and actions do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from truing.core.types import Answer, Conversation, Lineage, Message, Sampling, Tool, ToolCall
from truing.rails.actions import ActionResult
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.output_gate import is_plain

RAIL = (
    'define subflow keyword\n  if "FORBIDDEN" in $bot_message\n    bot refuse to respond\n'
    "    stop\n\n"
    'define subflow mask\n  $bot_message = $bot_message.replace("SECRET", "[hidden]")\n\n'
)
OUTPUT = "rails: {output: {flows: [keyword]}}\n"


class FixedModel:
    """Gives the same answer to every call; streams its text in pieces of five characters."""

    name = "fixed"
    lineage = Lineage(name="fixed")

    def __init__(self, answer: Answer | str) -> None:
        self.answer = Answer.of(answer) if isinstance(answer, str) else answer

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        return (self.answer,)

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        text = self.answer.text
        for start in range(0, len(text), 5):
            yield text[start : start + 5]


def ask(
    model: Answer | str, yaml: str = OUTPUT, colang: str = "", *, text: str = "hi", **parts: Any
) -> Answer:
    guarded = GuardedModel(
        RailsConfig.from_text(yaml, RAIL + colang),
        FixedModel(model),
        parts=RuntimeParts(actions=parts),
    )
    sampling = Sampling(tools=(Tool("look_up"),))
    return asyncio.run(guarded.answer(Conversation.of(text), sampling))


def calls(name: str, arguments: str) -> Answer:
    message = Message("assistant", "", (ToolCall("c1", name, arguments),))
    return Answer(message=message, finish_reason="tool_calls")


def test_flows_that_leave_out_the_output_rails_show_nothing_unread() -> None:
    colang = (
        "define parallel extension flow process bot message\n  priority 100\n"
        "  event BotMessage\n  $bot_message = $event.text\n"
        "  create event StartUtteranceBotAction(script=$bot_message)\n"
    )
    answer = ask("a FORBIDDEN text", colang=colang)
    assert answer.finish_reason == "blocked"
    assert "FORBIDDEN" not in answer.text
    # Nor does it matter what the text says: no rail has read it.
    answer = ask("a fine text", colang=colang)
    assert "keyword did not run" in answer.rulings[-1].reason


def test_every_field_of_an_exception_passes_the_output_rails() -> None:
    colang = (
        "define flow\n  user ask\n"
        '  create event OwnException(message="no", said="a FORBIDDEN text", parts=["FORBIDDEN"])\n'
        '\ndefine user ask\n  "hi"\n'
    )
    yaml = OUTPUT.replace("rails: {", "rails: {dialog: {user_messages: {embeddings_only: true}}, ")
    config = RailsConfig.from_text(yaml + "truing: {encoder: words}\n", RAIL + colang)
    runtime = GuardedModel(config, FixedModel("fine")).runtime
    result = asyncio.run(runtime.run_turn([{"role": "user", "content": "hi"}]))
    assert result.message["role"] == "exception"
    content = result.message["content"]
    assert (content["type"], content["message"]) == ("OwnException", "no")
    assert "FORBIDDEN" not in str(content)


def test_an_action_cannot_speak_around_the_rails() -> None:
    colang = 'define user ask\n  "hi"\n\ndefine flow\n  user ask\n  execute speak\n'
    yaml = OUTPUT + "truing: {encoder: words}\n"
    yaml = yaml.replace("rails: {", "rails: {dialog: {user_messages: {embeddings_only: true}}, ")

    async def speak() -> ActionResult:
        return ActionResult(
            events=[{"type": "StartUtteranceBotAction", "script": "a FORBIDDEN text"}]
        )

    answer = ask("unused", yaml, colang, speak=speak)
    assert answer.finish_reason == "blocked"
    assert "FORBIDDEN" not in answer.text


@pytest.mark.parametrize(("value", "reason"), [("FORBIDDEN", "blocked"), ("fine", "stop")])
def test_a_variable_in_a_predefined_message_is_read(value: str, reason: str) -> None:
    colang = (
        'define user ask\n  "hi"\n\ndefine bot tell\n  "It is {{ found }}."\n\n'
        "define flow\n  user ask\n  $found = execute look\n  bot tell\n"
    )
    yaml = OUTPUT.replace("rails: {", "rails: {dialog: {user_messages: {embeddings_only: true}}, ")

    async def look() -> str:
        return value

    answer = ask("unused", yaml + "truing: {encoder: words}\n", colang, look=look)
    assert answer.finish_reason == reason
    assert ("FORBIDDEN" in answer.text) is False


def test_a_refusal_with_a_variable_does_not_run_its_own_rail_forever() -> None:
    colang = (
        'define bot explain\n  "I leave out: {{ part }}"\n\n'
        'define subflow talkative\n  if "FORBIDDEN" in $bot_message\n    $part = $bot_message\n'
        "    bot explain\n    stop\n"
    )
    answer = ask("a FORBIDDEN text", OUTPUT.replace("keyword", "talkative"), colang)
    assert answer.finish_reason == "blocked"
    assert "FORBIDDEN" not in answer.text


def test_the_models_thinking_is_read_or_left_out() -> None:
    assert "<think>fine</think>" in ask("<think>fine</think>yes").text
    answer = ask("<think>FORBIDDEN</think>yes")
    assert (answer.text, answer.finish_reason) == ("yes", "stop")
    assert "thinking is withheld" in answer.rulings[-1].reason


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('{"q": "tea"}', "tool_calls"),
        ('{"q": "FORBIDDEN"}', "blocked"),
        ('{"q": "F\\u004fRBIDDEN"}', "blocked"),
    ],
)
def test_tool_calls_go_through_the_output_rails_without_rails_of_their_own(
    arguments: str, reason: str
) -> None:
    answer = ask(calls("look_up", arguments))
    assert answer.finish_reason == reason
    assert bool(answer.message.tool_calls) is (reason == "tool_calls")


def test_a_tool_that_was_not_offered_is_read_by_its_name() -> None:
    assert ask(calls("FORBIDDEN", "{}")).finish_reason == "blocked"


def test_what_a_rail_rewrites_in_tool_arguments_is_what_is_sent() -> None:
    answer = ask(calls("look_up", '{"q": "SECRET"}'), OUTPUT.replace("keyword", "mask"))
    assert answer.message.tool_calls[0].arguments == '{"q": "[hidden]"}'


def test_a_rail_that_ran_in_part_refuses() -> None:
    colang = (
        "define subflow run output rails\n"
        '  create event StartOutputRail(flow_id="keyword")\n  event StartOutputRail\n'
        "  do keyword\n"
        '  create event OutputRailFinished(flow_id="keyword")\n  event OutputRailFinished\n'
    )
    # The flow leaves out the second rail.
    answer = ask("a SECRET text", OUTPUT.replace("[keyword]", "[keyword, mask]"), colang)
    assert answer.finish_reason == "blocked"
    assert "SECRET" not in answer.text
    assert "mask did not run" in answer.rulings[-1].reason


def test_an_input_rail_that_refuses_in_generated_words_has_its_ruling() -> None:
    # The output rails read the refusal while the input rail is still open.
    colang = (
        'define subflow asks\n  if "bad" in $user_message\n    $words = execute word_it\n'
        "    bot $words\n    stop\n"
    )
    yaml = "rails: {input: {flows: [asks]}, output: {flows: [keyword]}}\n"

    async def word_it() -> str:
        return "not this"

    answer = ask("unused", yaml, colang, text="bad", word_it=word_it)
    assert (answer.text, answer.finish_reason) == ("not this", "blocked")
    rulings = [(r.name, r.ruling) for r in answer.rulings]
    assert rulings[-2:] == [("keyword", "allow"), ("asks", "block")]


# -- streams -----------------------------------------------------------------------------------

CHUNKED = OUTPUT + "truing: {streaming: {mode: chunked, chunk_size: 1}}\n"


def stream(text: str, yaml: str) -> tuple[str, Answer]:
    guarded = GuardedModel(RailsConfig.from_text(yaml, RAIL), FixedModel(text))

    async def collect() -> list[Any]:
        parts = guarded.stream_with_answer(Conversation.of("hi"), Sampling())
        return [part async for part in parts]

    *chunks, answer = asyncio.run(collect())
    return "".join(chunks), answer


def test_a_word_split_over_chunks_is_never_complete() -> None:
    shown, answer = stream("tea and FORBIDDEN and more", CHUNKED)
    assert "FORBIDDEN" not in shown
    assert answer.finish_reason == "blocked"
    assert answer.text == shown


def test_a_rail_that_rewrites_goes_on_with_the_stream() -> None:
    shown, answer = stream("tea and SECRET and more tea", CHUNKED.replace("[keyword]", "[mask]"))
    assert "SECRET" not in shown
    assert answer.text == shown
    assert shown.startswith("tea and")


def test_a_streamed_answer_is_remembered_as_read() -> None:
    yaml = CHUNKED.replace("rails: {", "rails: {input: {flows: [count]}, ")
    read: list[str] = []

    async def note(text: str) -> bool:
        read.append(text)
        return True

    colang = RAIL + "define subflow count\n  execute note(text=$user_message)\n"
    guarded = GuardedModel(
        RailsConfig.from_text(yaml, colang),
        FixedModel("tea and more"),
        parts=RuntimeParts(actions={"note": note}),
    )

    async def talk() -> None:
        first = Conversation.of("hi")
        parts = [p async for p in guarded.stream_with_answer(first, Sampling())]
        shown = "".join(p for p in parts if isinstance(p, str))
        second = first.then(Message("assistant", shown)).then(Message("user", "and?"))
        await guarded.answer(second, Sampling())

    asyncio.run(talk())
    # The answer is read joined to its neighbours, and not by itself.
    joined = ["hi\ntea and more\nand?", "hitea and moreand?", "hi\nand?", "hiand?"]
    assert read == ["hi", "\n---\n".join(joined), "and?"]


def test_plain_texts_hold_no_variable() -> None:
    assert is_plain("It costs five.")
    assert not is_plain("It costs $price.")
    assert not is_plain("It costs {{ price }}.")
