"""Judges an answer while it is written: a verdict at the end of each sentence.

`AnswerStream` gives the judge all of the text so far: for judges whose model keeps the keys and
values of what it has read, so that the new tokens alone are run. `WindowedStream` gives it the end
of the text, with an overlap: for judges that read windows. Either way the work of a sentence does
not grow with the text before it.

What could not be judged is unscored, and stays so: a stream that failed once gives that failure to
every further call.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from msgspec.structs import replace

from truing.core.protocols import Judge
from truing.core.text import ends_sentence
from truing.core.types import Answer, Conversation, Judgement, Response, Sample
from truing.core.worst_judgement import combine_worst
from truing.judges.token_windows import OVERLAP, start_of_word
from truing.judges.verdicts import make_unscored

WINDOW_CHARACTERS_PER_TOKEN = 3
"""How many characters of a window's tokens a reading takes before it moves on: of most texts a
token is longer, so that the prompt fits beside them."""


class AnswerStream:
    """One answer to a conversation; calls must not overlap.

    `reader` judges the growing text; `judge` the finished one (by default the reader as well).
    """

    def __init__(
        self, reader: Judge, conversation: Conversation, *, judge: Judge | None = None
    ) -> None:
        self._reader = reader
        self._judge = judge or reader
        self._sample = Sample(conversation=conversation, id="stream")
        self._text = ""
        self._judged_length = 0
        self._worst: Judgement | None = None
        self._failure: Judgement | None = None

    async def push(self, text: str) -> Judgement | None:
        """Adds text; returns the verdict on all of it if a sentence has ended, else None."""
        if self._failure is not None:
            return self._failure
        self._text += text
        if not ends_sentence(self._text[self._judged_length :]):
            return None
        return await self.flush()

    async def flush(self) -> Judgement:
        """Returns the verdict on all of the text so far, within a sentence too.

        What an earlier reading found stays: the verdict, score and categories are the worst so far.
        """
        if self._failure is not None:
            return self._failure
        if not self._text.strip():
            return self._unscored("empty", "there is no text to judge")
        if self._worst is None or len(self._text) > self._judged_length:
            newest = await self._attempt(self._read())
            if self._failure is not None:
                return self._failure
            self._worst = newest if self._worst is None else combine_worst(self._worst, newest)
            self._judged_length = len(self._text)
        return self._worst

    async def finish(self) -> Judgement:
        """Returns the judge's verdict on the whole answer; adds no text."""
        if self._failure is not None:
            return self._failure
        response = self._response(self._text)
        return await self._attempt(self._judge.judge(self._sample, response))

    async def _read(self) -> Judgement:
        return await self._reader.judge(self._sample, self._response(self._text))

    async def _attempt(self, judgement: Coroutine[Any, Any, Judgement]) -> Judgement:
        """Awaits a judgement; remembers that there was none."""
        try:
            result = await judgement
        except Exception as error:
            # Whatever broke, the text was not read.
            result = self._unscored("error", f"{type(error).__name__}: {str(error)[:200]}")
        if result.failure is not None or (result.verdict is None and result.score is None):
            self._failure = result
        return result

    def _unscored(self, kind: str, message: str) -> Judgement:
        return make_unscored(self._judge, self._sample, self._response(""), kind, message)

    def _response(self, text: str) -> Response:
        return Response.of("stream", 0, "stream", Answer.of(text))


class WindowedStream(AnswerStream):
    """Reads the end of the text at each sentence; `window` is the judge's window in characters."""

    def __init__(
        self,
        reader: Judge,
        conversation: Conversation,
        *,
        window: int,
        judge: Judge | None = None,
    ) -> None:
        super().__init__(reader, conversation, judge=judge)
        self._window = max(1, window)
        self._start = 0

    async def _read(self) -> Judgement:
        text, start = self._text, self._start
        judgement = await self._reader.judge(self._sample, self._response(text[start:]))
        if len(text) - start > self._window:
            # All up to here has been read; the next reading begins a little earlier.
            self._start = start_of_word(text, len(text) - int(self._window * OVERLAP))
        if start and judgement.verdict is not None:
            note = f"characters {start} to {len(text)} of the answer"
            judgement = replace(judgement, rationale=note)
        return judgement
