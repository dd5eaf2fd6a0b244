"""An asyncio stream of text with its prefix and suffix removed, cut at stop texts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence


class StreamBuffer:
    """Takes chunks of text with `push` and yields them as an async iterator.

    Text that may be the start of a suffix or of a stop text is held until the next chunk decides.
    After `finish`, `end` or a stop text, further chunks are dropped.
    """

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.completion = ""
        self.finished = False
        self.prefix = ""
        self.suffix = ""
        self.stop: tuple[str, ...] = ()
        self._pending = ""

    def expect(self, prefix: str = "", suffix: str = "", stop: Sequence[str] = ()) -> None:
        """Sets the prefix and suffix to remove, and the texts at which the stream is cut."""
        self.prefix, self.suffix, self.stop = prefix, suffix, tuple(stop)

    async def push(self, chunk: str) -> None:
        """Adds a chunk."""
        if self.finished:
            return
        self._pending += chunk
        if self.prefix:
            if not self._pending.startswith(self.prefix):
                return
            self._pending = self._pending.removeprefix(self.prefix)
            self.prefix = ""
        for marker in (self.suffix, *self.stop):
            partial = (marker[: length + 1] for length in range(len(marker)))
            if any(self._pending.endswith(start) for start in partial):
                return  # may be the start of the marker
        self._flush()

    def _flush(self) -> None:
        """Moves the pending text to the queue, up to a stop text."""
        chunk, self._pending = self._pending, ""
        sent = len(self.completion)
        self.completion += chunk
        for marker in self.stop:
            # In the whole completion: a stop text may span several chunks.
            if marker in self.completion:
                self.completion = self.completion.split(marker)[0]
                chunk = self.completion[sent:]
                if chunk:
                    self.queue.put_nowait(chunk)
                self.end()
                return
        if chunk:
            self.queue.put_nowait(chunk)

    async def finish(self) -> None:
        """Completes the text of one message: removes the suffix, flushes, and ends the stream."""
        if self.finished:
            return
        if self.suffix:
            self._pending = self._pending.removesuffix(self.suffix)
        if self._pending:
            self._flush()
        self.end()
        self.prefix = self.suffix = ""

    def end(self) -> None:
        """Ends the iteration; pending text is dropped."""
        if not self.finished:
            self.finished = True
            self.queue.put_nowait(None)  # the iterator's end mark

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            chunk = await self.queue.get()
            if chunk is None:
                return
            yield chunk
