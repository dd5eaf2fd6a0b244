"""Gathers concurrent calls into batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

In = TypeVar("In")


Out = TypeVar("Out")


class CallBatcher(Generic[In, Out]):
    """Concurrent calls become one call of `work` in a thread; while it runs, the next batch
    collects.
    """

    def __init__(self, work: Callable[[Sequence[In]], Sequence[Out]], *, most: int = 512) -> None:
        self._work = work
        self._most = most
        # One queue for each loop: a future may be resolved in the loop that made it only, and a
        # judge is shared by runs, a server and notebooks.
        self._waiting: dict[asyncio.AbstractEventLoop, list[tuple[In, asyncio.Future[Out]]]] = {}
        self._tasks: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    async def __call__(self, item: In) -> Out:
        """The result for one item; raises what `work` raised."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Out] = loop.create_future()
        self._waiting.setdefault(loop, []).append((item, future))
        if loop not in self._tasks:
            self._tasks[loop] = loop.create_task(self._drain(loop))
        return await future

    async def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while waiting := self._waiting.get(loop):
                await asyncio.sleep(
                    0
                )  # callers that are ready in this turn of the loop join the batch
                waiting = self._waiting[loop]
                batch, self._waiting[loop] = waiting[: self._most], waiting[self._most :]
                await self._run(batch)
        finally:
            # Also when the loop shuts down: waiting callers are cancelled and do not hang.
            self._tasks.pop(loop, None)
            for _, future in self._waiting.pop(loop, []):
                future.cancel()

    async def _run(self, batch: list[tuple[In, asyncio.Future[Out]]]) -> None:
        try:
            made = await asyncio.to_thread(self._work, [item for item, _ in batch])
        except Exception as error:  # the callers' to handle, all of them
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), result in zip(batch, made, strict=True):
            if not future.done():
                future.set_result(result)
