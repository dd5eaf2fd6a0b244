"""A stream of text on its way to the user: prefix and suffix taken off, cut at stop texts, then handed on in pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence


class Sink:
    """Takes pieces and hands them on. After `finish` (or a stop text) further pieces are dropped."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.completion = ""
        self.finished = False
        self.prefix = ""
        self.suffix = ""
        self.stop: tuple[str, ...] = ()
        self._held = ""

    def expect(self, prefix: str = "", suffix: str = "", stop: Sequence[str] = ()) -> None:
        """What the text starts and ends with, and where it is cut."""
        self.prefix, self.suffix, self.stop = prefix, suffix, tuple(stop)

    async def push(self, piece: str) -> None:
        """Takes a piece."""
        if self.finished:
            return
        self._held += piece
        if self.prefix:
            if not self._held.startswith(self.prefix):
                return
            self._held = self._held[len(self.prefix) :]
            self.prefix = ""
        for mark in (self.suffix, *self.stop):
            if mark and any(self._held.endswith(mark[: n + 1]) for n in range(len(mark))):
                return  # may be the start of a suffix or stop text
        self._hand_on()

    def _hand_on(self) -> None:
        piece, self._held = self._held, ""
        before = len(self.completion)
        self.completion += piece
        for mark in self.stop:
            if mark in self.completion:
                self.completion = self.completion.split(mark)[0]
                piece = self.completion[before:]
                if piece:
                    self.queue.put_nowait(piece)
                self.end()
                return
        if piece:
            self.queue.put_nowait(piece)

    async def finish(self) -> None:
        """The text of one message is complete."""
        if self.finished:
            return
        if self.suffix:
            self._held = self._held.removesuffix(self.suffix)
        if self._held:
            self._hand_on()
        self.end()
        self.prefix = self.suffix = ""

    def end(self) -> None:
        """Nothing more comes."""
        if not self.finished:
            self.finished = True
            self.queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[str]:
        while True:
            piece = await self.queue.get()
            if piece is None:
                return
            yield piece
