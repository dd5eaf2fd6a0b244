"""Turns concurrent calls for single items into calls for batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class CallBatcher(Generic[In, Out]):
    """Runs `process` in a thread on the items of concurrent calls.

    While a batch runs, the next one collects; so a batch is as large as the load makes it, and a
    single call does not wait for others. At most `max_batch` items go into a batch.
    """

    def __init__(
        self, process: Callable[[Sequence[In]], Sequence[Out]], *, max_batch: int = 512
    ) -> None:
        self._process = process
        self._max_batch = max_batch
        # One queue per event loop: a future may be resolved only in the loop that made it, and a
        # judge is shared by runs, a server and notebooks.
        self._waiting: dict[asyncio.AbstractEventLoop, list[tuple[In, asyncio.Future[Out]]]] = {}
        self._tasks: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    async def __call__(self, item: In) -> Out:
        """Returns the result for one item; raises what `process` raised for its batch."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Out] = loop.create_future()
        self._waiting.setdefault(loop, []).append((item, future))
        if loop not in self._tasks:
            self._tasks[loop] = loop.create_task(self._drain(loop))
        return await future

    async def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        """Runs batches until nothing waits in this loop."""
        try:
            while self._waiting.get(loop):
                # Callers that are ready in this turn of the event loop still join the batch.
                await asyncio.sleep(0)
                waiting = self._waiting[loop]
                batch = waiting[: self._max_batch]
                self._waiting[loop] = waiting[self._max_batch :]
                await self._run_batch(batch)
        finally:
            # Also when the loop shuts down: waiting callers are cancelled and do not hang.
            self._tasks.pop(loop, None)
            for _, future in self._waiting.pop(loop, []):
                future.cancel()

    async def _run_batch(self, batch: list[tuple[In, asyncio.Future[Out]]]) -> None:
        try:
            results = list(await asyncio.to_thread(self._process, [item for item, _ in batch]))
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for a batch of {len(batch)}")
        except Exception as error:  # raised again in every caller of the batch
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():  # a caller may have been cancelled meanwhile
                future.set_result(result)
