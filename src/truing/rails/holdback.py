"""Streaming through rails: the text of a turn in pieces, of which none is taken back.

Without output rails the pieces come as the model writes them. With output rails they are held back: until the turn is over
(`mode: hold`, the default), or chunk by chunk (`mode: chunked`): each chunk, with the end of the one before it as context,
passes the output rails before it is shown, and the whole passes them once more at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from truing.rails.streaming import Sink
from truing.types import Answer, Conversation, Message, Sampling

if TYPE_CHECKING:
    from truing.rails.guarded import Guarded

PIECE = 24


async def stream(model: Guarded, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
    """The pieces of the answer."""
    rails = model.config.rails.output
    settings: dict[str, Any] = dict(model.config.truing.get("streaming") or {})
    chunked = settings.get("mode", "chunked" if rails.streaming.enabled else "hold") == "chunked"
    if not rails.flows:
        async for piece in _direct(model, conversation, sampling):
            yield piece
    elif chunked:
        size = int(settings.get("chunk_size", rails.streaming.chunk_size))
        context = int(settings.get("context_size", rails.streaming.context_size))
        async for piece in _chunked(model, conversation, sampling, (size, context)):
            yield piece
    else:
        answer = await model.answer(conversation, sampling)
        for piece in pieces(answer.text):
            yield piece


def pieces(text: str) -> list[str]:
    """A finished text in small pieces, cut after blanks."""
    made: list[str] = []
    current = ""
    for word in text.split(" "):
        current += word if not current and not made else " " + word
        if len(current) >= PIECE:
            made.append(current)
            current = ""
    return [*made, current] if current else made


async def _direct(model: Guarded, conversation: Conversation, sampling: Sampling) -> AsyncIterator[str]:
    """As the model writes; what the sink has not carried (further messages of the turn, a block) follows at the end."""
    sink = Sink()
    task = asyncio.create_task(model.answer(conversation, sampling, sink=sink))
    task.add_done_callback(lambda _: sink.end())
    shown = ""
    try:
        async for piece in sink:
            shown += piece
            yield piece
        answer = await task
    finally:
        if not task.done():
            task.cancel()
    rest = remainder(shown, answer)
    for piece in pieces(rest):
        yield piece


def remainder(shown: str, answer: Answer) -> str:
    """What of the answer has not been shown yet; a stream that was cut by a failure gives nothing more."""
    if answer.failure is not None:
        return ""
    text = answer.text
    if text.startswith(shown):
        return text[len(shown) :]
    if text.startswith(shown.strip()):
        return text[len(shown.strip()) :]
    return "" if text.strip() in shown else ("\n" if shown else "") + text


async def _chunked(
    model: Guarded, conversation: Conversation, sampling: Sampling, sizes: tuple[int, int]
) -> AsyncIterator[str]:
    """Input rails and the draft first; then chunk after chunk of the draft through the output rails."""
    size, overlap = sizes
    options = {"rails": ["input", "dialog", "retrieval", "tool_output", "tool_input"]}
    sink = Sink()
    task = asyncio.create_task(model.answer(conversation, sampling, options=options, sink=sink))
    task.add_done_callback(lambda _: sink.end())
    text = ""
    passed = 0
    try:
        async for piece in sink:
            text += piece
            if len(_words(text[passed:])) >= size:
                verdict = await _check(model, conversation, sampling, _with_context(text, passed, overlap))
                if verdict is not None:
                    yield verdict
                    return
                yield text[passed:]
                passed = len(text)
        answer = await task
    finally:
        if not task.done():
            task.cancel()
    if answer.finish_reason == "blocked" and not passed:
        for piece in pieces(answer.text):
            yield piece
        return
    text += remainder(text, answer)
    if text[passed:]:
        verdict = await _check(model, conversation, sampling, text)
        yield verdict if verdict is not None else text[passed:]


def _words(text: str) -> list[str]:
    return text.split()


def _with_context(text: str, start: int, overlap: int) -> str:
    before = text[:start].split(" ")
    return " ".join(before[-overlap:] if overlap else []) + text[start:]


async def _check(model: Guarded, conversation: Conversation, sampling: Sampling, text: str) -> str | None:
    """None if the output rails let the text pass as it is; otherwise what is shown in its place."""
    asked = conversation.then(Message("assistant", text))
    answer = await model.answer(asked, sampling, options={"rails": ["output"]})
    if answer.finish_reason == "blocked" or answer.failure is not None:
        return answer.text or ""
    return None if answer.text == text else answer.text
