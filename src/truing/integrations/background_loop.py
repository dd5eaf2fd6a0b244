"""One event loop in a thread of its own, for frameworks that call from synchronous code.

A loop for each call would open new connections to models and judges each time; and in a notebook a
loop runs already.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END = object()


class BackgroundLoop:
    """Runs coroutines from synchronous code; the thread starts with the first of them."""

    def __init__(self) -> None:
        self._reset()
        if hasattr(os, "register_at_fork"):
            # A child has the loop, but not the thread that runs it.
            os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                # A daemon: it must not keep a program alive that has finished.
                thread = threading.Thread(
                    target=self._loop.run_forever, name="truing-hooks", daemon=True
                )
                thread.start()
            return self._loop

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Returns the result of a coroutine; raises what it raises.

        Raises RuntimeError inside of the loop itself, which would wait for ever.
        """
        loop = self._start()
        if asyncio._get_running_loop() is loop:
            coroutine.close()
            raise RuntimeError("a rail calls synchronous code of a hook: call the async one")
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # of no effect unless the caller was interrupted
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Yields the items of an async iterator, which ends when the caller stops reading."""
        received: queue.SimpleQueue[Any] = queue.SimpleQueue()

        async def read() -> None:
            try:
                async for element in items:
                    received.put(element)
            finally:
                received.put(_END)

        future = asyncio.run_coroutine_threadsafe(read(), self._start())
        try:
            while (element := received.get()) is not _END:
                yield element
            future.result()
        finally:
            future.cancel()


BACKGROUND_LOOP = BackgroundLoop()
