"""Streams the answer of a turn through the output rails; what was sent is never taken back.

Without output rails, chunks are sent as the model writes them, once the input rails have passed.
With output rails there are two modes (``truing: {streaming: {mode: ...}}``):

- `hold`: the text is sent when the whole of it has passed;
- `chunked` (NeMo's ``rails.output.streaming.enabled``): a chunk is sent when the rails have passed
  all of the text up to its end. (NeMo reads `context_size` words before a chunk; here the setting
  is accepted and not needed.) `sentences` is the same with chunks that end where a sentence ends.
  A judge that can stream reads each chunk once (`answer_readings`).

Where the configuration does not say, it is `sentences` if all output rails are judges in this
process that read each sentence once, and so keep up with the model; otherwise `hold`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import nullcontext
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

from truing.core.text import ends_sentence
from truing.core.types import Answer, Conversation, Message, Ruling, Sampling
from truing.rails.config.generation_options import STAGE_SWITCHES
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.answer_readings import AnswerReadings
from truing.rails.runtime.client_texts import readable_arguments
from truing.rails.runtime.output_gate import BLOCKED_MESSAGE
from truing.rails.runtime.stream_buffer import StreamBuffer

CHUNK_CHARACTERS = 24  # of a finished text that is sent in chunks


class TurnSettings(Struct, frozen=True, kw_only=True):
    """What a request sets of a turn: the keyword arguments of `GuardedModel.answer`."""

    options: Mapping[str, Any] | None = None
    session: str = ""
    explicit_fields: Collection[str] | None = None
    context: Mapping[str, Any] | None = None


class StreamGuard:
    """Streams one answer.

    `answer` returns the whole answer of a model behind rails (`GuardedModel.answer`), with the
    fields of `turn` as keyword arguments. `remember_answer` is called with a text that was sent
    whole, and the session. `default_mode` holds where the configuration names none.
    """

    def __init__(
        self,
        answer: Callable[..., Awaitable[Answer]],
        config: RailsConfig,
        conversation: Conversation,
        sampling: Sampling,
        turn: TurnSettings,
        remember_answer: Callable[[str, str], None] = lambda text, session: None,
        default_mode: str = "hold",
    ) -> None:
        self.answer, self.config, self.turn = answer, config, turn
        self.conversation, self.sampling = conversation, sampling
        self.remember_answer = remember_answer
        self.mode = stream_mode(config, default_mode)
        self.settings: dict[str, Any] = dict(config.truing.get("streaming") or {})

    async def chunks(self) -> AsyncIterator[str | Answer]:
        """Yields the text in chunks, and last the Answer with the same text (unless it failed)."""
        if not self.config.rails.output.flows or _is_stage_off(self.turn.options, "output"):
            stream = self._stream_unchecked()
        elif self.mode != "hold" and not self.sampling.tools:
            stream = self._stream_checked_chunks(by_sentence=self.mode == "sentences")
        else:
            stream = self._stream_when_complete()
        async for chunk in stream:
            yield chunk

    async def _generate(self, conversation: Conversation, **overrides: Any) -> Answer:
        arguments = {**asdict(self.turn), **overrides}
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
        task, buffer = self._start_turn(self.turn.options)
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
            sent += chunk
            yield chunk
        self.remember_answer(sent, self.turn.session)
        yield answer

    async def _stream_checked_chunks(self, *, by_sentence: bool) -> AsyncIterator[str | Answer]:
        """Runs the turn without output rails; sends no text before they have passed all up to it.

        Each check is about the whole text so far: what a rail looks for may be spread over several
        chunks.
        """
        streaming = self.config.rails.output.streaming
        chunk_words = int(self.settings.get("chunk_size", streaming.chunk_size))
        task, buffer = self._start_turn(_without_output_rails(self.turn.options))
        readings = AnswerReadings()
        text = ""
        checked = 0  # number of characters of `text` that have passed
        sent = ""  # those characters as the rails left them: this is what the client has
        try:
            async for chunk in buffer:
                text += chunk
                unchecked = text[checked:]
                if len(unchecked.split()) < chunk_words and not (
                    by_sentence and ends_sentence(unchecked)
                ):
                    continue
                check = await self._check_output(text, readings)
                if not _continues(sent, check):
                    check = _note_delay(check, unchecked, text)
                    is_refusal = check.finish_reason == "blocked" or check.failure is not None
                    refusal = check.text if is_refusal else BLOCKED_MESSAGE
                    yield refusal
                    yield _stopped_answer(sent, check, refusal)
                    return
                yield check.text[len(sent) :]
                checked, sent = len(text), check.text
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
        readings.is_complete = True
        async for part in self._release_rest(answer, text, sent, readings):
            yield part

    async def _release_rest(
        self, answer: Answer, text: str, sent: str, readings: AnswerReadings
    ) -> AsyncIterator[str | Answer]:
        """Yields what is left of a finished text, and the answer, after a check of all of it."""
        rulings = answer.rulings
        for part in (text, *(readable_arguments(c.arguments) for c in answer.message.tool_calls)):
            if not part:
                continue
            check = await self._check_output(part, readings if part is text else None)
            rulings += check.rulings
            # Tool calls are sent with the answer, as they are: a rail cannot rewrite them here.
            passed = _continues(sent, check) if part is text else check.text == part
            if not passed:
                is_refusal = check.finish_reason == "blocked" or check.failure is not None
                refusal = check.text if is_refusal else BLOCKED_MESSAGE
                yield refusal
                check = replace(check, rulings=rulings)
                if part is text:
                    check = _note_delay(check, text[len(sent) :], text)
                yield _stopped_answer(sent, check, refusal)
                return
            if part is text:
                yield check.text[len(sent) :]
                sent = check.text
        self.remember_answer(sent, self.turn.session)
        yield replace(answer, message=replace(answer.message, content=sent), rulings=rulings)

    async def _check_output(self, text: str, readings: AnswerReadings | None) -> Answer:
        """Returns the text as the output rails leave it, or the answer that they give instead."""
        conversation = self.conversation.then(Message("assistant", text))
        with readings.active() if readings is not None else nullcontext():
            return await self._generate(conversation, options={"rails": ["output"]})


def stream_mode(config: RailsConfig, default: str = "hold") -> str:
    """Returns how a configuration with output rails streams: hold, chunked or sentences.

    `default` is for one that does not say.
    """
    settings = config.truing.get("streaming") or {}
    if "mode" not in settings and config.rails.output.streaming.enabled:
        return "chunked"
    return str(settings.get("mode", default))


def _continues(sent: str, check: Answer) -> bool:
    """Returns whether a checked text begins with what has been sent of it."""
    is_stopped = check.finish_reason == "blocked" or check.failure is not None
    return not is_stopped and check.text.startswith(sent)


def count_tokens(text: str) -> int:
    """Returns the number of words and marks of a text: about its tokens, whatever the model."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def _note_delay(check: Answer, unchecked: str, text: str) -> Answer:
    """Adds to the reason of a block how much text had been written, and how much of it not sent.

    `unchecked` is the text since the last check that passed: none of it was sent.
    """
    note = f"after {count_tokens(text)} tokens, {count_tokens(unchecked)} of them not yet sent"
    rulings = tuple(
        replace(ruling, reason=f"{ruling.reason} ({note})") if ruling.ruling == "block" else ruling
        for ruling in check.rulings
    )
    return replace(check, rulings=rulings)


def _is_stage_off(options: Mapping[str, Any] | None, stage: str) -> bool:
    rails = (options or {}).get("rails")
    if isinstance(rails, (list, tuple)):
        return stage not in rails
    return isinstance(rails, Mapping) and rails.get(stage) is False


def _without_output_rails(options: Mapping[str, Any] | None) -> dict[str, Any]:
    stages = [s for s in STAGE_SWITCHES if s != "output" and not _is_stage_off(options, s)]
    return {**(options or {}), "rails": stages}


def _stopped_answer(sent: str, check: Answer, refusal: str) -> Answer:
    """Returns the answer of a stopped stream: the sent text, then the refusal."""
    if check.failure is None and not any(r.ruling == "block" for r in check.rulings):
        reason = "a rail would rewrite text that has been sent"
        ruling = Ruling(name="runtime", stage="output", ruling="block", reason=reason)
        check = replace(check, finish_reason="blocked", rulings=(*check.rulings, ruling))
    return replace(check, message=Message("assistant", sent + refusal))


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
