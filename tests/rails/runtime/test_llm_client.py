"""LLM clients: prompts as conversations, sampling, thinking, streams, failures, speculation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from truing.core.types import (
    Answer,
    Conversation,
    Failure,
    Lineage,
    Message,
    Sampling,
    Tool,
    ToolCall,
    Usage,
)
from truing.rails.runtime.llm_client import (
    CallCounter,
    LlmClient,
    LlmError,
    LlmReply,
    SpeculationCache,
    SpeculationStopped,
    conversation_from_prompt,
)
from truing.rails.runtime.stream_buffer import StreamBuffer


class RecordingModel:
    """Returns one answer and records the calls."""

    name = "recording"
    lineage = Lineage(name="recording")

    def __init__(self, answer: Answer, seconds: float = 0.0) -> None:
        self.answer, self.seconds = answer, seconds
        self.calls: list[tuple[Conversation, Sampling]] = []

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        self.calls.append((conversation, sampling))
        await asyncio.sleep(self.seconds)
        return (self.answer,)


class StreamingRecordingModel(RecordingModel):
    """Streams the answer word by word; a failure is raised in the middle."""

    async def stream(self, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
        self.calls.append((conversation, sampling))
        for word in self.answer.text.split():
            yield word
        if self.answer.failure is not None:
            raise ConnectionError(self.answer.failure.message)


def answer(text: str) -> Answer:
    return Answer(message=Message("assistant", text), usage=Usage(5, 2, 3))


def call(model: RecordingModel, base: Sampling | None = None, **arguments: Any) -> LlmReply:
    client = LlmClient(model, CallCounter(), base or Sampling())
    return asyncio.run(client("prompt", **arguments))


def test_a_text_prompt_is_a_user_message() -> None:
    assert conversation_from_prompt("hi") == Conversation((Message("user", "hi"),))


def test_chat_prompts_keep_roles_tool_calls_and_text_parts() -> None:
    tool_call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    conversation = conversation_from_prompt(
        [
            {"type": "system", "content": "s"},
            {"role": "bot", "content": None, "tool_calls": [tool_call]},
            {"role": "tool", "content": "result", "tool_call_id": "c"},
            {"role": "human", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]},
        ]
    )
    assert conversation.messages == (
        Message("system", "s"),
        Message("assistant", "", (ToolCall("c", "f", "{}"),)),
        Message("tool", "result", tool_call_id="c"),
        Message("user", "a"),
    )


def test_the_calls_parameters_go_before_the_requests() -> None:
    model = RecordingModel(answer("x"))
    call(model, Sampling(max_tokens=9, temperature=0.7, seed=3), temperature=0.1, stop=["\n"])
    sampling = model.calls[0][1]
    assert (sampling.max_tokens, sampling.temperature, sampling.seed) == (9, 0.1, 3)
    assert sampling.stop == ("\n",)


def test_thinking_is_taken_out_of_the_text() -> None:
    reply = call(RecordingModel(answer("<think> hm \n</think>\nYes.")))
    assert (reply.content, reply.thinking) == ("Yes.", "hm")


def test_calls_and_tokens_are_counted() -> None:
    counter = CallCounter(records=[])
    client = LlmClient(RecordingModel(answer("x")), counter, Sampling())
    asyncio.run(client.generate_async("a"))
    asyncio.run(client.ainvoke("b"))
    assert counter.calls == 2
    assert counter.usage() == Usage(10, 4, 6)
    assert counter.records is not None
    assert [(r.prompt_tokens, r.completion_tokens) for r in counter.records] == [(5, 2), (5, 2)]


@pytest.mark.parametrize(
    ("model_type", "tokens"), [(RecordingModel, (5, 2)), (StreamingRecordingModel, (0, 0))]
)
def test_the_tokens_of_a_streamed_call_are_those_that_the_model_counts(
    model_type: type[RecordingModel], tokens: tuple[int, int]
) -> None:
    async def run() -> CallCounter:
        counter = CallCounter(records=[])
        client = LlmClient(model_type(answer("x")), counter, Sampling())
        await client("prompt", stream=StreamBuffer())
        return counter

    (record,) = asyncio.run(run()).records or []
    assert (record.prompt_tokens, record.completion_tokens) == tokens


def test_a_failed_answer_and_a_timeout_are_raised() -> None:
    failure = Failure("model", "http", "503")
    with pytest.raises(LlmError) as raised:
        call(RecordingModel(Answer.failed("http", "503")))
    assert raised.value.failure == failure
    client = LlmClient(RecordingModel(answer("x"), 60), CallCounter(), Sampling(), timeout=0.01)
    with pytest.raises(LlmError, match=r"longer than 0.01 s"):
        asyncio.run(client("prompt"))


def test_a_model_that_times_out_by_itself_is_an_llm_error() -> None:
    class SlowModel(RecordingModel):
        async def generate(
            self, conversation: Conversation, sampling: Sampling
        ) -> tuple[Answer, ...]:
            raise TimeoutError

    with pytest.raises(LlmError, match="longer than it is given"):
        call(SlowModel(answer("text")))


def stream(model: RecordingModel, **arguments: Any) -> tuple[list[str], LlmReply]:
    async def run() -> tuple[list[str], LlmReply]:
        buffer = StreamBuffer()
        client = LlmClient(model, CallCounter(), Sampling())
        reply = await client("prompt", stream=buffer, **arguments)
        return [chunk async for chunk in buffer], reply

    return asyncio.run(run())


def test_a_streaming_model_fills_the_buffer_chunk_by_chunk() -> None:
    chunks, reply = stream(StreamingRecordingModel(answer("a b c")))
    assert chunks == ["a", "b", "c"]
    assert reply.content == "abc"


def test_a_model_without_streams_or_a_call_with_tools_is_one_chunk() -> None:
    assert stream(RecordingModel(answer("a b")))[0] == ["a b"]
    model = StreamingRecordingModel(answer("a b"))
    assert stream(model, tools=(Tool("f"),))[0] == ["a b"]


def test_a_stream_that_breaks_off_is_an_llm_error() -> None:
    model = StreamingRecordingModel(Answer.failed("http", "reset"))
    with pytest.raises(LlmError, match="reset"):
        stream(model)


# -- speculation -------------------------------------------------------------------------------


def clients(model: RecordingModel) -> tuple[LlmClient, LlmClient]:
    """The clients of a turn and of its speculative copy."""
    cache = SpeculationCache()
    turn = LlmClient(model, CallCounter(), Sampling(), speculation=cache)
    copy = LlmClient(model, CallCounter(), Sampling(), speculation=cache, is_speculative_copy=True)
    return turn, copy


def test_the_turn_takes_the_copys_reply_to_an_equal_call_once() -> None:
    model = RecordingModel(answer("x"))
    turn, copy = clients(model)

    async def run() -> None:
        await copy("prompt")
        assert (await turn("prompt")).content == "x"
        assert len(model.calls) == 1
        await turn("prompt")
        assert len(model.calls) == 2

    asyncio.run(run())


def test_the_turn_waits_for_a_reply_that_is_on_its_way() -> None:
    model = RecordingModel(answer("x"), seconds=0.01)
    turn, copy = clients(model)

    async def run() -> str:
        task = asyncio.create_task(copy("prompt"))
        await asyncio.sleep(0)
        reply = await turn("prompt")
        await task
        return reply.content

    assert asyncio.run(run()) == "x"
    assert len(model.calls) == 1


def test_another_prompt_cancels_the_copy() -> None:
    model = RecordingModel(answer("x"))
    turn, _ = clients(model)

    async def run() -> bool:
        assert turn.speculation is not None
        task = turn.speculation.task = asyncio.create_task(asyncio.sleep(60))
        await turn("another prompt")
        await asyncio.sleep(0)
        return task.cancelled()

    assert asyncio.run(run())


def test_a_cancelled_copy_raises_an_error_in_the_turn_not_a_cancellation() -> None:
    turn, copy = clients(RecordingModel(answer("x"), seconds=60))

    async def run() -> None:
        task = asyncio.create_task(copy("prompt"))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(turn("prompt"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(SpeculationStopped, match="^cancelled$"):
            await waiting

    asyncio.run(run())


def test_a_cached_reply_goes_through_the_stream_buffer() -> None:
    turn, copy = clients(RecordingModel(answer('"Hello" and more')))

    async def run() -> tuple[str, str]:
        await copy("prompt")
        buffer = StreamBuffer()
        buffer.expect('"', stop=('"',))
        reply = await turn("prompt", stream=buffer)
        return reply.content, "".join([chunk async for chunk in buffer])

    assert asyncio.run(run()) == ("Hello", "Hello")
