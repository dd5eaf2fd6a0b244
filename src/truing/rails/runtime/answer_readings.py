"""The readings of one answer by the judges of the output rails, while it is streamed in chunks.

Each check of a chunk runs the output rails over all of the text so far. A judge that can stream
(`StreamingJudge`) goes on where its last reading ended, so that the checks of an answer together
cost about as much as one of the whole.
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
    judge: StreamingJudge  # held, so that its id stays its own
    stream: JudgeStream
    text: str = ""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class AnswerReadings:
    """One reading for each judge and conversation. `is_complete` is set for the last check."""

    def __init__(self) -> None:
        self.is_complete = False
        self._readings: dict[tuple[int, Conversation], _Reading] = {}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Context in which the rails find these readings (`current_readings`)."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    async def judge(
        self, judge: StreamingJudge, conversation: Conversation, text: str
    ) -> Judgement:
        """Returns the verdict on an answer's text so far; of a complete one that on the whole."""
        key = (id(judge), conversation)
        reading = self._readings.get(key)
        # A rail before this one may have rewritten what was read.
        if reading is None or not text.startswith(reading.text):
            reading = self._readings[key] = _Reading(judge, judge.start(conversation))
        async with reading.lock:
            new_text = text[len(reading.text) :]
            reading.text = text
            judgement = await reading.stream.push(new_text) or await reading.stream.flush()
            if not self.is_complete or judgement.failure is not None:
                return judgement
            finished = await reading.stream.finish()
            # What was found on the way stays, whatever the reading of the whole says.
            return finished if finished.failure is not None else combine_worst(judgement, finished)


def current_readings() -> AnswerReadings | None:
    """Returns the readings of the answer that is being streamed in chunks, if one is."""
    return _current.get()
