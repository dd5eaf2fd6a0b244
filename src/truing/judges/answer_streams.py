"""Judges an answer while it is written: a verdict at the end of each sentence.

`AnswerStream` passes the judge all of the text so far. It is for judges whose model caches the keys
and values of earlier tokens, so that only new tokens are run. `WindowedStream` passes the end of
the text, which overlaps what was read before. It is for judges that read a fixed number of tokens
at once. In both cases the cost of a sentence does not grow with the text before it. A model at an
endpoint caches nothing that this process can use: `AnswerStream` sends it all of the text again at
each sentence.

A stream fails closed: after the first judgement without a verdict, every further call returns that
same unscored judgement.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from msgspec.structs import replace

from truing.core.errors import BudgetExceeded
from truing.core.protocols import Judge
from truing.core.text import ends_sentence
from truing.core.types import Answer, Conversation, Judgement, Response, Sample
from truing.core.worst_judgement import combine_worst
from truing.judges.token_windows import OVERLAP, start_of_word
from truing.judges.verdicts import make_unscored

WINDOW_CHARACTERS_PER_TOKEN = 3
"""Converts the window of a judge from tokens to characters of the answer.

Most tokens of English text have about four characters. The lower number leaves room in the window
for the prompt."""


class AnswerStream:
    """The stream of one answer to a conversation; calls must not overlap.

    `reader` judges the growing text. `judge` judges the finished text (default: the reader).
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
        """Returns the verdict on all of the text so far, even in the middle of a sentence.

        Verdict, score and categories are the worst of all readings so far: a later reading cannot
        withdraw an objection, since the text before it may have been shown already.
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
        """Awaits a judgement; from then on the stream returns it if it is unscored.

        Raises BudgetExceeded.
        """
        try:
            outcome = await judgement
        except BudgetExceeded:  # it ends the run; any other exception concerns this answer only
            raise
        except Exception as error:
            # Whatever the error is, the text was not judged.
            outcome = self._unscored("error", f"{type(error).__name__}: {str(error)[:200]}")
        if outcome.failure is not None or (outcome.verdict is None and outcome.score is None):
            self._failure = outcome
        return outcome

    def _unscored(self, kind: str, message: str) -> Judgement:
        return make_unscored(self._judge, self._sample, self._response(""), kind, message)

    def _response(self, text: str) -> Response:
        return Response.of("stream", 0, "stream", Answer.of(text))


class WindowedStream(AnswerStream):
    """Judges only the end of the text at each sentence.

    `window` is the judge's window in characters.
    """

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
            # The judge has read everything up to the end; the next reading overlaps it, so that a
            # sentence at the boundary is read whole.
            self._start = start_of_word(text, len(text) - int(self._window * OVERLAP))
        if start and judgement.verdict is not None:
            place = f"characters {start} to {len(text)} of the answer"
            judgement = replace(judgement, rationale=place)
        return judgement
