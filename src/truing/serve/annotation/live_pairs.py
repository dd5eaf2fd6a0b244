"""Pairs of answers that are being generated, streamed to the pages as server-sent events.

A generation belongs to its turn, not to the connection that started it: closing, reloading or
opening a page twice changes nothing, and after a crash the next request for the turn generates what
is missing. Both responses become visible at the same pace, because speed would tell two models
apart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from truing.annotation.dialogues import MAX_ANSWER_CHARS, GenerationJob, save_answer
from truing.annotation.store import Transaction
from truing.annotation.study import Study
from truing.core.errors import TruingError
from truing.core.protocols import Model, StreamingModel
from truing.core.types import Answer, Sampling

_log = logging.getLogger(__name__)
_KEEP_ALIVE_SECONDS = 15.0  # proxies close a connection that is silent for longer, often after 60 s


class LiveResponse:
    """One response of a pair: the text generated so far."""

    def __init__(self, letter: str, text: str = "", *, done: bool = False) -> None:
        self.letter, self.text, self.done = letter, text, done
        self.failure: str | None = None


class LivePair:
    """The two responses of a turn, and an event that wakes their watchers."""

    def __init__(self, responses: Sequence[LiveResponse]) -> None:
        self.responses = {r.letter: r for r in responses}
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Wakes all watchers."""
        # A new event each time: a watcher that comes later waits for the next change.
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def done(self) -> bool:
        """Whether both responses are complete or have failed."""
        return all(r.done for r in self.responses.values())

    def visible_text(self) -> dict[str, str]:
        """Returns letter -> text to show: no longer than the shortest unfinished response."""
        unfinished = [len(r.text) for r in self.responses.values() if not r.done]
        limit = min(unfinished, default=None)
        return {letter: r.text[:limit] for letter, r in self.responses.items()}

    async def stream_events(self) -> AsyncIterator[bytes]:
        """Yields server-sent events: `piece` {letter, text}, at last `end` {letter: failure}.

        While nothing changes, `waiting` {} is sent at an interval.
        """
        n_sent = dict.fromkeys(self.responses, 0)
        while True:
            # Taken before the texts are read: a change after that sets this event, and is not
            # missed.
            changed, done, visible = self._changed, self.done, self.visible_text()
            for letter, text in visible.items():
                if len(text) > n_sent[letter]:
                    yield _encode_event("piece", {"letter": letter, "text": text[n_sent[letter] :]})
                    n_sent[letter] = len(text)
            if done:
                failures = {letter: r.failure or "" for letter, r in self.responses.items()}
                yield _encode_event("end", failures)
                return
            try:
                await asyncio.wait_for(changed.wait(), _KEEP_ALIVE_SECONDS)
            except TimeoutError:
                yield _encode_event("waiting", {})  # tells the page that the connection is alive


def _encode_event(name: str, data: dict[str, str]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


class LivePairs:
    """All pairs that are being generated, by turn.

    `write` runs a function in one durable transaction; a model may take `answer_seconds` for an
    answer.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        study: Study,
        answer_seconds: float,
        write: Callable[[Callable[[Transaction], Any]], Awaitable[Any]],
    ) -> None:
        self._models, self._study = models, study
        self._answer_seconds, self._write = answer_seconds, write
        self._pairs: dict[str, LivePair] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(
        self, turn_id: str, jobs: Sequence[GenerationJob], finished: dict[str, str]
    ) -> LivePair:
        """Starts the missing answers of a turn, or returns the pair that is running already.

        `finished` maps the letters of complete responses to their text.
        """
        running = self._pairs.get(turn_id)
        if running is not None:
            return running
        missing = [LiveResponse(job.letter) for job in jobs]
        letters = {r.letter for r in missing}
        complete = [
            LiveResponse(letter, text, done=True)
            for letter, text in finished.items()
            if letter not in letters
        ]
        pair = LivePair(sorted([*missing, *complete], key=lambda r: r.letter))
        self._pairs[turn_id] = pair
        task = asyncio.create_task(self._generate_pair(turn_id, pair, jobs))
        self._tasks.add(task)  # the event loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)
        return pair

    async def _generate_pair(
        self, turn_id: str, pair: LivePair, jobs: Sequence[GenerationJob]
    ) -> None:
        try:
            await asyncio.gather(*(self._generate_and_save(pair, job) for job in jobs))
        finally:
            self._pairs.pop(turn_id, None)
            pair.notify()

    async def _generate_and_save(self, pair: LivePair, job: GenerationJob) -> None:
        response = pair.responses[job.letter]
        answer = await self._generate(pair, response, job)
        try:
            await self._write(lambda tx: save_answer(tx, job, answer))
        except TruingError as error:
            answer = Answer.failed("storage", str(error))
        except Exception as error:
            _log.exception("an answer could not be stored")
            answer = Answer.failed("storage", type(error).__name__)
        if answer.failure is not None:
            # The reason may name the model, so the page does not show it.
            _log.warning("model %s: %s: %s", job.model, answer.failure.kind, answer.failure.message)
            response.failure, response.text = "The model did not answer.", ""
        response.done = True
        pair.notify()

    async def _generate(self, pair: LivePair, response: LiveResponse, job: GenerationJob) -> Answer:
        """Generates one answer; every failure of the model becomes a failed Answer."""
        model = self._models.get(job.model)
        if model is None:
            return Answer.failed("missing", f"this server was started without {job.model}")
        sampling = Sampling(
            max_tokens=self._study.max_tokens,
            temperature=self._study.temperature,
            seed=job.seed,
        )
        try:
            async with asyncio.timeout(self._answer_seconds):
                if not isinstance(model, StreamingModel):
                    answer = (await model.generate(job.conversation, sampling))[0]
                    response.text = answer.text
                    return answer
                async for chunk in model.stream(job.conversation, sampling):
                    response.text += chunk
                    pair.notify()
                    if len(response.text) >= MAX_ANSWER_CHARS:
                        break
        except TimeoutError:
            return Answer.failed("timeout", f"no answer in {self._answer_seconds:.0f} s")
        except Exception as error:
            # Anything may come out of a model's endpoint; the page offers to try again.
            return Answer.failed("broken", f"{type(error).__name__}: {error}")
        return Answer.of(response.text)

    async def wait(self) -> None:
        """Waits for running generations, at most `answer_seconds`."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._answer_seconds)
