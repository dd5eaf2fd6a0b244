"""One thread that owns the model: concurrent calls are gathered, batched and answered in their own event loops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from truing.core.types import ContinuationScores
from truing.models.local.decoding import Decoder, Request
from truing.models.local.forward import Forward
from truing.models.local.likelihood import Query

T = TypeVar("T")


class Worker:
    """Feeds a `Decoder` and scores queries between its steps; the thread starts with the first call.

    When it was idle it waits until calls have stopped coming for `gather` seconds, so that a first batch is a full one.
    """

    def __init__(
        self,
        forward: Forward,
        decoder: Decoder,
        score: Callable[[Sequence[Query]], list[list[ContinuationScores]]],
        *,
        gather: float = 0.004,
        longest: float = 0.5,
    ) -> None:
        self.forward = forward
        self.decoder = decoder
        self._score = score
        self.gather = gather
        self.longest = longest
        self._new: list[Request] = []
        self._queries: list[
            tuple[Query, Callable[[list[ContinuationScores] | Exception], None]]
        ] = []
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, requests: list[Request]) -> None:
        """Hands over answers to write."""
        with self._wake:
            self._new += requests
            self._start()

    async def score(self, query: Query) -> list[ContinuationScores]:
        """The scores of a query, read together with those that others ask for at the time."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[ContinuationScores]] = loop.create_future()

        def ended(made: list[ContinuationScores] | Exception) -> None:
            _tell(
                loop,
                *(
                    (_fail, future, made)
                    if isinstance(made, Exception)
                    else (_settle, future, made)
                ),
            )

        with self._wake:
            self._queries.append((query, ended))
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
        with torch.inference_mode():
            while True:
                with self._wake:
                    if not self._pending() and not self.decoder.busy:
                        while not self._pending():
                            if self._closed:
                                self._thread = None
                                return
                            self._wake.wait()
                        self._gather()
                    new, self._new = self._new, []
                    queries, self._queries = self._queries, []
                if queries:
                    self._answer(queries)
                self._turn(new)

    def _pending(self) -> bool:
        return bool(self._new or self._queries)

    def _gather(self) -> None:
        until = time.monotonic() + self.longest
        while time.monotonic() < until:
            before = self._count()
            self._wake.wait(self.gather)
            if self._count() == before:
                return

    def _count(self) -> int:
        return len(self._new) + len(self._queries)

    def _answer(
        self, queries: list[tuple[Query, Callable[[list[ContinuationScores] | Exception], None]]]
    ) -> None:
        try:
            made: list[list[ContinuationScores]] | Exception = self._score([q for q, _ in queries])
        except Exception as error:
            made = error
        for at, (_, ended) in enumerate(queries):
            ended(made if isinstance(made, Exception) else made[at])

    def _turn(self, new: list[Request]) -> None:
        try:
            if new:
                self.decoder.add(new)
            if self.decoder.busy:
                self.decoder.step()
        except (
            Exception
        ) as error:  # out of memory, a broken model: the answers fail, the thread lives
            self.decoder.waiting += [r for r in new if not r.finish]
            self.decoder.fail(type(error).__name__, (str(error).splitlines() or ["no message"])[0])


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # the loop has closed; nobody waits any more
        return


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
