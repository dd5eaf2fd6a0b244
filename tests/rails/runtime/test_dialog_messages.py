"""LLM calls of dialog actions, and the events of the messages that they result in."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from dialog_turns import ReplyListModel, make_turn

from truing.core.types import Answer, Message, Tool, ToolCall
from truing.rails.actions import ActionResult
from truing.rails.runtime.chat_messages import ChatMessage, decode_messages
from truing.rails.runtime.dialog_messages import (
    add_message_events,
    answer_without_dialog,
    ask_llm,
    original_messages,
    push_to_stream,
)
from truing.rails.runtime.event_types import BotMessage, BotThinking, BotToolCalls, UserMessage
from truing.rails.runtime.stream_buffer import StreamBuffer
from truing.rails.runtime.turn_context import TurnContext

GENERAL = "prompts: [{task: general, content: '{{ relevant_chunks }}|{{ history | user_assistant_sequence }}'}]\n"
CALL = ToolCall("call-1", "weather", '{"city": "Oslo"}')


class FixedKnowledgeBase:
    """Finds the same two chunks for every question."""

    def __init__(self) -> None:
        self.questions: list[str] = []

    async def search_relevant_chunks(self, text: str) -> list[dict[str, str]]:
        self.questions.append(text)
        return [{"body": "chunk 1"}, {"body": "chunk 2"}]


def answer(turn: TurnContext, text: str) -> ActionResult:
    turn.state.add(UserMessage(text))
    return asyncio.run(answer_without_dialog(turn, UserMessage(text)))


def test_a_task_is_rendered_asked_and_parsed() -> None:
    model = ReplyListModel("<think>hm</think> two")
    yaml = (
        "prompts: [{task: count, content: 'How many {{ thing }}?', stop: ['END'], max_tokens: 3}]\n"
    )
    turn = make_turn(model, yaml)
    assert asyncio.run(ask_llm(turn, "count", {"thing": "kettles"}, temperature=0.25)) == "two"
    assert model.prompts == ["How many kettles?"]
    assert (model.samplings[0].temperature, model.samplings[0].stop) == (0.25, ("END",))
    assert turn.thinking == "hm"
    assert turn.counter.calls == 1


def test_the_answer_becomes_a_bot_message() -> None:
    model = ReplyListModel('"quoted answer"')
    result = answer(make_turn(model, GENERAL), "hello")
    assert result.events == [BotMessage("quoted answer")]
    assert model.samplings[0].stop == ("User:",)
    assert "hello" in model.prompts[0]


def test_the_prompt_holds_what_the_knowledge_base_finds() -> None:
    model, kb = ReplyListModel("answer"), FixedKnowledgeBase()
    turn = make_turn(model, GENERAL)
    turn.services.kb = kb  # type: ignore[assignment]
    answer(turn, "how much?")
    assert kb.questions == ["how much?"]
    assert model.prompts[0].startswith("chunk 1\nchunk 2|")


def test_passthrough_sends_the_callers_messages_with_the_rewritten_text() -> None:
    model = ReplyListModel('"kept quotes"')
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "my card is 4111"},
    ]
    turn = make_turn(model, "passthrough: true\n", messages=decode_messages(messages))
    result = answer(turn, "my card is <CARD>")
    assert [(m.role, m.content) for m in model.conversations[0].messages] == [
        ("system", "Be brief."),
        ("user", "my card is <CARD>"),
    ]
    assert result.events == [BotMessage('"kept quotes"')]
    assert messages[1]["content"] == "my card is 4111"


def test_tool_calls_of_the_model_are_events_and_tools_reach_it() -> None:
    tool = Tool(name="weather", description="", parameters={})
    model = ReplyListModel(
        Answer(message=Message("assistant", "", (CALL,)), finish_reason="tool_calls")
    )
    turn = make_turn(model, tools=(tool,))
    result = answer(turn, "weather?")
    assert model.samplings[0].tools == (tool,)
    assert result.events == [BotToolCalls([CALL.to_openai()])]
    assert turn.finish_reason == "tool_calls"


def test_a_conversation_with_tool_results_is_sent_as_it_came() -> None:
    model = ReplyListModel("It rains.")
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "the caller's"},
        {"role": "user", "content": "weather?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL.to_openai()]},
        {"role": "tool", "content": "rain", "tool_call_id": "call-1"},
    ]
    yaml = "prompts: [{task: general, messages: [{type: system, content: ours}, '{{ history | to_chat_messages }}']}]\n"
    answer(make_turn(model, yaml, messages=decode_messages(messages)), "weather?")
    sent = model.conversations[0].messages
    assert [(m.role, m.content) for m in sent] == [
        ("system", "ours"),
        ("user", "weather?"),
        ("assistant", ""),
        ("tool", "rain"),
    ]
    assert (sent[2].tool_calls, sent[3].tool_call_id) == ((CALL,), "call-1")


def test_the_last_user_message_is_replaced_and_other_roles_are_left_out() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "context", "content": {"x": 1}},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "reply"},
        {"role": "user", "content": "second"},
        {"role": "event", "event": {"type": "Custom"}},
    ]
    turn = make_turn(ReplyListModel(), messages=decode_messages(messages))
    assert original_messages(turn, "clean") == [
        ChatMessage(role="user", content="first"),
        ChatMessage(role="assistant", content="reply"),
        ChatMessage(role="user", content="clean"),
    ]
    assert original_messages(make_turn(ReplyListModel()), "clean") == "clean"


def test_thinking_is_an_event_before_the_message_and_is_used_once() -> None:
    turn = make_turn(ReplyListModel())
    turn.thinking = "hm"
    result = ActionResult(events=None, context_updates={"x": 1})
    add_message_events(turn, result, "hello")
    assert result.events == [
        BotThinking("hm"),
        BotMessage("hello"),
    ]
    assert result.context_updates == {"x": 1, "bot_thinking": "hm"}
    assert turn.thinking is None


@pytest.mark.parametrize("finished", [False, True])
def test_text_is_streamed_unless_the_stream_is_over(finished: bool) -> None:
    async def stream() -> list[str]:
        buffer = StreamBuffer()
        turn = make_turn(ReplyListModel(), stream=buffer)
        if finished:
            buffer.end()
        await push_to_stream(turn, "whole text")
        await buffer.finish()
        return [chunk async for chunk in buffer]

    assert asyncio.run(stream()) == ([] if finished else ["whole text"])
