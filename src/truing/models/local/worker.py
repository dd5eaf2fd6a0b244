"""The thread that owns the model: it batches concurrent calls and answers in the callers' event
loops.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from truing.core.types import ContinuationScores
from truing.models.local.decoding import Decoder, GenerationRequest
from truing.models.local.forward import PackedForward
from truing.models.local.likelihood import ScoreQuery

T = TypeVar("T")


class ModelThread:
    """Runs a `Decoder` and scores queries between its steps; the thread starts with the first
    call.

    After idling it waits until no call has come for `gather` seconds (at most `longest`), to fill
    the first batch.
    """

    def __init__(
        self,
        forward: PackedForward,
        decoder: Decoder,
        score: Callable[[Sequence[ScoreQuery]], list[list[ContinuationScores]]],
        *,
        gather: float = 0.004,
        longest: float = 0.5,
    ) -> None:
        self.forward = forward
        self.decoder = decoder
        self._score = score
        self.gather = gather
        self.longest = longest
        self._new: list[GenerationRequest] = []
        self._queries: list[
            tuple[ScoreQuery, Callable[[list[ContinuationScores] | Exception], None]]
        ] = []
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, requests: list[GenerationRequest]) -> None:
        """Queues requests for generation."""
        with self._wake:
            self._new += requests
            self._start()

    async def score(self, query: ScoreQuery) -> list[ContinuationScores]:
        """Returns the scores of a query, computed together with concurrent ones."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[ContinuationScores]] = loop.create_future()

        def on_scored(results: list[ContinuationScores] | Exception) -> None:
            call_in_loop(
                loop,
                *(
                    (_set_exception, future, results)
                    if isinstance(results, Exception)
                    else (_set_result, future, results)
                ),
            )

        with self._wake:
            self._queries.append((query, on_scored))
            self._start()
        return await future

    def close(self) -> None:
        """Lets the thread end once nothing is left to do."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()

    def _start(self) -> None:
        self._closed = False
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="truing-local", daemon=True)
            self._thread.start()
        self._wake.notify_all()

    def _run(self) -> None:
        # inference_mode is thread-local, so it is entered here and not by the caller.
        with torch.inference_mode():
            while True:
                with self._wake:
                    if not self._pending() and not self.decoder.busy:
                        while not self._pending():
                            if self._closed:
                                self._thread = None
                                return
                            self._wake.wait()
                        # Only after idling: a busy decoder takes new requests at every step
                        # anyway.
                        self._wait_for_batch()
                    new, self._new = self._new, []
                    queries, self._queries = self._queries, []
                if queries:
                    self._score_queries(queries)
                self._step_decoder(new)

    def _pending(self) -> bool:
        return bool(self._new or self._queries)

    def _wait_for_batch(self) -> None:
        deadline = time.monotonic() + self.longest
        while time.monotonic() < deadline:
            count_before = self._queued()
            self._wake.wait(self.gather)
            if self._queued() == count_before:
                return

    def _queued(self) -> int:
        return len(self._new) + len(self._queries)

    def _score_queries(
        self,
        queries: list[tuple[ScoreQuery, Callable[[list[ContinuationScores] | Exception], None]]],
    ) -> None:
        try:
            results: list[list[ContinuationScores]] | Exception = self._score(
                [q for q, _ in queries]
            )
        except Exception as error:
            results = error
        for index, (_, on_scored) in enumerate(queries):
            on_scored(results if isinstance(results, Exception) else results[index])

    def _step_decoder(self, new: list[GenerationRequest]) -> None:
        try:
            if new:
                self.decoder.add(new)
            if self.decoder.busy:
                self.decoder.step()
        except (
            Exception
        ) as error:  # out of memory, a broken model: the answers fail, the thread lives
            # If `add` itself raised, some of the new requests are not queued yet; they must fail
            # too.
            self.decoder.waiting += [r for r in new if not r.finish_reason]
            self.decoder.fail(type(error).__name__, (str(error).splitlines() or ["no message"])[0])


def call_in_loop(
    loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any
) -> None:
    """Calls a function in an event loop from another thread; does nothing if the loop is closed."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # the loop is closed: no caller is left
        return


def _set_result(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
