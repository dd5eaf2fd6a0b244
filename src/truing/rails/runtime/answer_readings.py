"""The open judge streams of one answer, while it is sent to the client in chunks.

Before each chunk the output rails check all of the text so far. A `StreamingJudge` continues where
its last check ended, so that all checks of an answer together cost about as much as one check of
the whole answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from truing.core.protocols import JudgeStream, StreamingJudge
from truing.core.types import Conversation, Judgement
from truing.core.worst_judgement import combine_worst

_current: ContextVar[AnswerReadings | None] = ContextVar("answer readings", default=None)


@dataclass
class _Reading:
    judge: StreamingJudge  # a reference, so that no other object can get its `id`
    stream: JudgeStream
    text: str = ""  # what has been pushed to the stream
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class AnswerReadings:
    """One judge stream for each judge and conversation.

    `is_complete` says that the text is the whole answer: it is set before the last check.
    """

    def __init__(self) -> None:
        self.is_complete = False
        self._readings: dict[tuple[int, Conversation], _Reading] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Makes these readings the ones that `current_readings` returns, within a `with` block."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    async def judge(
        self, judge: StreamingJudge, conversation: Conversation, text: str
    ) -> Judgement:
        """Returns the verdict on the text so far, and for a complete answer also on the whole.

        `text` is all of the answer so far, not only what is new.
        """
        key = (id(judge), conversation)
        reading = self._readings.get(key)
        # An earlier rail may have rewritten text that was pushed already: then start again.
        if reading is None or not text.startswith(reading.text):
            reading = self._readings[key] = _Reading(judge, judge.start(conversation))
        async with reading.lock:
            new_text = text[len(reading.text) :]
            reading.text = text
            judgement = await reading.stream.push(new_text) or await reading.stream.flush()
            if not self.is_complete or judgement.failure is not None:
                return judgement
            finished = await reading.stream.finish()
            # An objection to a part stands, even if the answer as a whole passes.
            return finished if finished.failure is not None else combine_worst(judgement, finished)


def current_readings() -> AnswerReadings | None:
    """Returns the active readings; None if the text is not the answer of a chunked stream."""
    return _current.get()
