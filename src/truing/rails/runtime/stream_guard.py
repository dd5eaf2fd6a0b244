"""Streaming through rails: the text of a turn in pieces, of which none is taken back, and at the end the whole answer.

Without output rails the pieces come as the model writes them, once the input rails have passed. With output rails they are held
back: until the turn is over (`mode: hold`, the default), or chunk by chunk (`mode: chunked`, as NeMo's
``rails.output.streaming.enabled``): each chunk, with the end of the one before it as context, passes the output rails
before it is shown, and the whole passes them once more at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any

from msgspec.structs import replace

from truing.core.types import Answer, Conversation, Message, Sampling
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.stream_buffer import Sink

PIECE = 24
_STAGES = ("input", "output", "dialog", "retrieval", "tool_output", "tool_input")


class StreamGuard:
    """One answer on its way.

    `answer` returns the whole answer of a model behind rails (`Guarded.answer`); `config` says what its output rails are.
    """

    def __init__(
        self,
        answer: Callable[..., Awaitable[Answer]],
        config: RailsConfig,
        conversation: Conversation,
        sampling: Sampling,
        options: Mapping[str, Any] | None,
        session: str,
        asked: Collection[str] | None = None,
    ) -> None:
        self.answer, self.config, self.conversation, self.sampling = (
            answer,
            config,
            conversation,
            sampling,
        )
        self.options, self.session, self.asked = options, session, asked
        self.settings: dict[str, Any] = dict(config.truing.get("streaming") or {})

    async def pieces(self) -> AsyncIterator[str | Answer]:
        """The pieces, and last the answer; its text is that of the pieces, unless it failed on the way."""
        rails = self.config.rails.output
        mode = self.settings.get("mode", "chunked" if rails.streaming.enabled else "hold")
        if not rails.flows or _off(self.options, "output"):
            made = self._direct()
        elif mode == "chunked" and not self.sampling.tools:
            made = self._chunked()
        else:
            made = self._held()
        async for piece in made:
            yield piece

    async def _whole(self, **more: Any) -> Answer:
        given = {"options": self.options, "session": self.session, "asked": self.asked, **more}
        return await self.answer(self.conversation, self.sampling, **given)

    async def _held(self) -> AsyncIterator[str | Answer]:
        answer = await self._whole()
        for piece in pieces(answer.text):
            yield piece
        yield answer

    async def _direct(self) -> AsyncIterator[str | Answer]:
        """As the model writes; what the sink has not carried (further messages of the turn, a block) follows at the end."""
        sink = Sink()
        task = asyncio.create_task(self._whole(sink=sink))
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
        for piece in pieces(remainder(shown, answer)):
            yield piece
        yield answer

    async def _chunked(self) -> AsyncIterator[str | Answer]:
        """Input rails and the draft first; then chunk after chunk of the draft through the output rails."""
        rails = self.config.rails.output
        size = int(self.settings.get("chunk_size", rails.streaming.chunk_size))
        overlap = int(self.settings.get("context_size", rails.streaming.context_size))
        sink = Sink()
        task = asyncio.create_task(self._whole(sink=sink, options=_without_output(self.options)))
        task.add_done_callback(lambda _: sink.end())
        text = ""
        passed = 0
        try:
            async for piece in sink:
                text += piece
                if len(text[passed:].split()) >= size:
                    verdict = await self._check(_with_context(text, passed, overlap))
                    if verdict is not None:
                        yield verdict.text
                        yield _joined(text[:passed], verdict)
                        return
                    yield text[passed:]
                    passed = len(text)
            answer = await task
        finally:
            if not task.done():
                task.cancel()
        if answer.failure is not None or (answer.finish_reason == "blocked" and not passed):
            for piece in pieces(answer.text):
                yield piece
            yield answer
            return
        text += remainder(text, answer)
        if text[passed:]:
            verdict = await self._check(text)
            yield verdict.text if verdict is not None else text[passed:]
            if verdict is not None:
                yield _joined(text[:passed], verdict)
                return
        yield replace(answer, message=replace(answer.message, content=text))

    async def _check(self, text: str) -> Answer | None:
        """None if the output rails let the text pass as it is; otherwise what is shown in its place."""
        asked = self.conversation.then(Message("assistant", text))
        more: dict[str, Any] = {
            "options": {"rails": ["output"]},
            "session": self.session,
            "asked": self.asked,
        }
        answer = await self.answer(asked, self.sampling, **more)
        if answer.finish_reason == "blocked" or answer.failure is not None:
            return answer
        return None if answer.text == text else answer


def _off(options: Mapping[str, Any] | None, stage: str) -> bool:
    rails = (options or {}).get("rails")
    if isinstance(rails, (list, tuple)):
        return stage not in rails
    return isinstance(rails, Mapping) and rails.get(stage) is False


def _without_output(options: Mapping[str, Any] | None) -> dict[str, Any]:
    stages = [s for s in _STAGES if s != "output" and not _off(options, s)]
    return {**(options or {}), "rails": stages}


def _joined(before: str, verdict: Answer) -> Answer:
    """The answer of a stream that was stopped: what was shown, then what the rails put in place of the rest."""
    return replace(verdict, message=Message("assistant", before + verdict.text))


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


def _with_context(text: str, start: int, overlap: int) -> str:
    before = text[:start].split()[-overlap:] if overlap else []
    return " ".join([*before, text[start:].lstrip()])
