"""Streams the answer of a turn through the output rails; what was sent is never taken back.

Without output rails, chunks are sent as the model writes them, once the input rails have passed.
With output rails there are two modes (``truing: {streaming: {mode: ...}}``):

- `hold` (the default): the text is sent when the whole of it has passed;
- `chunked` (NeMo's ``rails.output.streaming.enabled``): the text is checked chunk by chunk, each
  with the end of the text before it as context, and the whole once more at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any

from msgspec.structs import replace

from truing.core.types import Answer, Conversation, Message, Sampling
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.stream_buffer import StreamBuffer

CHUNK_CHARACTERS = 24  # of a finished text that is sent in chunks
_STAGES = ("input", "output", "dialog", "retrieval", "tool_output", "tool_input")


class StreamGuard:
    """Streams one answer.

    `answer` returns the whole answer of a model behind rails (`GuardedModel.answer`); its keyword
    arguments `options`, `session` and `explicit_fields` are passed on.
    """

    def __init__(
        self,
        answer: Callable[..., Awaitable[Answer]],
        config: RailsConfig,
        conversation: Conversation,
        sampling: Sampling,
        options: Mapping[str, Any] | None,
        session: str,
        explicit_fields: Collection[str] | None = None,
    ) -> None:
        self.answer, self.config = answer, config
        self.conversation, self.sampling = conversation, sampling
        self.options, self.session, self.explicit_fields = options, session, explicit_fields
        self.settings: dict[str, Any] = dict(config.truing.get("streaming") or {})

    async def chunks(self) -> AsyncIterator[str | Answer]:
        """Yields the text in chunks, and last the Answer with the same text (unless it failed)."""
        rails = self.config.rails.output
        mode = self.settings.get("mode", "chunked" if rails.streaming.enabled else "hold")
        if not rails.flows or _is_stage_off(self.options, "output"):
            stream = self._stream_unchecked()
        elif mode == "chunked" and not self.sampling.tools:
            stream = self._stream_checked_chunks()
        else:
            stream = self._stream_when_complete()
        async for chunk in stream:
            yield chunk

    async def _generate(self, conversation: Conversation, **overrides: Any) -> Answer:
        arguments = {
            "options": self.options,
            "session": self.session,
            "explicit_fields": self.explicit_fields,
            **overrides,
        }
        return await self.answer(conversation, self.sampling, **arguments)

    def _start_turn(
        self, options: Mapping[str, Any] | None
    ) -> tuple[asyncio.Task[Answer], StreamBuffer]:
        """Starts the turn as a task that writes to the returned buffer and ends it."""
        buffer = StreamBuffer()
        task = asyncio.create_task(
            self._generate(self.conversation, stream=buffer, options=options)
        )
        task.add_done_callback(lambda _: buffer.end())
        return task, buffer

    async def _stream_when_complete(self) -> AsyncIterator[str | Answer]:
        answer = await self._generate(self.conversation)
        for chunk in split_text(answer.text):
            yield chunk
        yield answer

    async def _stream_unchecked(self) -> AsyncIterator[str | Answer]:
        """Yields the chunks as the model writes them.

        Text of the answer that did not go through the buffer (further messages of the turn, the
        message of a rail that blocked) follows at the end.
        """
        task, buffer = self._start_turn(self.options)
        sent = ""
        try:
            async for chunk in buffer:
                sent += chunk
                yield chunk
            answer = await task
        finally:
            if not task.done():
                task.cancel()  # the client has left
        for chunk in split_text(unsent_text(sent, answer)):
            yield chunk
        yield answer

    async def _stream_checked_chunks(self) -> AsyncIterator[str | Answer]:
        """Runs the turn without output rails; checks each chunk by them before it is sent."""
        streaming = self.config.rails.output.streaming
        chunk_words = int(self.settings.get("chunk_size", streaming.chunk_size))
        context_words = int(self.settings.get("context_size", streaming.context_size))
        task, buffer = self._start_turn(_without_output_rails(self.options))
        text = ""
        sent = 0  # characters of the text
        try:
            async for chunk in buffer:
                text += chunk
                if len(text[sent:].split()) < chunk_words:
                    continue
                replacement = await self._check_output(_with_context(text, sent, context_words))
                if replacement is not None:
                    yield replacement.text
                    yield _stopped_answer(text[:sent], replacement)
                    return
                yield text[sent:]
                sent = len(text)
            answer = await task
        finally:
            if not task.done():
                task.cancel()
        if answer.failure is not None or (answer.finish_reason == "blocked" and not sent):
            for chunk in split_text(answer.text):
                yield chunk
            yield answer
            return
        text += unsent_text(text, answer)
        if text[sent:]:
            # The whole text: what a rail looks for may be spread over several chunks.
            replacement = await self._check_output(text)
            if replacement is not None:
                yield replacement.text
                yield _stopped_answer(text[:sent], replacement)
                return
            yield text[sent:]
        yield replace(answer, message=replace(answer.message, content=text))

    async def _check_output(self, text: str) -> Answer | None:
        """Returns None if the output rails pass the text unchanged, else the replacement."""
        conversation = self.conversation.then(Message("assistant", text))
        answer = await self._generate(conversation, options={"rails": ["output"]})
        if answer.finish_reason == "blocked" or answer.failure is not None:
            return answer
        return None if answer.text == text else answer


def _is_stage_off(options: Mapping[str, Any] | None, stage: str) -> bool:
    rails = (options or {}).get("rails")
    if isinstance(rails, (list, tuple)):
        return stage not in rails
    return isinstance(rails, Mapping) and rails.get(stage) is False


def _without_output_rails(options: Mapping[str, Any] | None) -> dict[str, Any]:
    stages = [s for s in _STAGES if s != "output" and not _is_stage_off(options, s)]
    return {**(options or {}), "rails": stages}


def _stopped_answer(sent: str, replacement: Answer) -> Answer:
    """Returns the answer of a stopped stream: the sent text, then the replacement."""
    return replace(replacement, message=Message("assistant", sent + replacement.text))


def split_text(text: str) -> list[str]:
    """Splits a finished text into chunks of at least CHUNK_CHARACTERS, before blanks."""
    chunks: list[str] = []
    current = ""
    for index, word in enumerate(text.split(" ")):
        current += word if index == 0 else " " + word
        if len(current) >= CHUNK_CHARACTERS:
            chunks.append(current)
            current = ""
    return [*chunks, current] if current else chunks


def unsent_text(sent: str, answer: Answer) -> str:
    """Returns the part of the answer's text that is not in `sent`; none of a failed answer."""
    if answer.failure is not None:
        return ""
    text = answer.text
    if text.startswith(sent):
        return text[len(sent) :]
    stripped = sent.strip()  # the answer's text is stripped, the stream is not
    if text.startswith(stripped):
        return text[len(stripped) :]
    if text.strip() in sent:
        return ""
    return ("\n" if sent else "") + text


def _with_context(text: str, start: int, context_words: int) -> str:
    """Returns the text from `start` on, after the last words before it."""
    context = text[:start].split()[-context_words:] if context_words else []
    return " ".join([*context, text[start:].lstrip()])
