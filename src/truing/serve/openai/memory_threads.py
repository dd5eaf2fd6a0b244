"""Threads in the memory of this process."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from truing.serve.openai.stored_threads import (
    ENTRY_BYTES,
    Document,
    StoredThread,
    ThreadBounds,
    ThreadKey,
    next_version,
)


@dataclass(slots=True)
class _Entry:
    text: str  # the document as JSON in ASCII: a byte each
    version: int
    used: float

    @property
    def size(self) -> int:
        return len(self.text) + ENTRY_BYTES


@dataclass(slots=True)
class _OwnerThreads:
    """The threads of one owner, the one unused for longest first."""

    entries: OrderedDict[str, _Entry] = field(default_factory=OrderedDict)
    size: int = 0

    def pop(self, name: str) -> _Entry | None:
        entry = self.entries.pop(name, None)
        self.size -= entry.size if entry is not None else 0
        return entry

    def put(self, name: str, entry: _Entry) -> None:
        self.pop(name)
        self.entries[name] = entry
        self.size += entry.size

    @property
    def oldest(self) -> str:
        return next(iter(self.entries))


class MemoryThreads:
    """Threads in this process, gone when it ends."""

    def __init__(
        self, bounds: ThreadBounds | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bounds, self._clock = bounds or ThreadBounds(), clock
        self._owners: dict[str, _OwnerThreads] = {}

    @property
    def size(self) -> int:
        """The bytes that all threads take."""
        return sum(threads.size for threads in self._owners.values())

    async def load(self, key: ThreadKey) -> StoredThread:
        """Returns a thread, and counts that as a use; an empty one for an unknown or expired
        key.
        """
        entry = self._take(key)
        if entry is None:
            return StoredThread({})
        entry.used = self._clock()
        self._owners[key.owner].put(key.name, entry)
        return StoredThread(json.loads(entry.text), entry.version)

    async def save(self, key: ThreadKey, document: Document, version: int) -> bool:
        """Replaces a thread; False if one is there that is not at this version any more."""
        entry = self._take(key)
        if entry is not None and entry.version != version:
            self._owners[key.owner].put(key.name, entry)
            return False
        threads = self._owners.setdefault(key.owner, _OwnerThreads())
        new_entry = _Entry(json.dumps(document), next_version(version), self._clock())
        threads.put(key.name, new_entry)
        while threads.size > self._bounds.owner_bytes:
            threads.pop(threads.oldest)
        while self.size > self._bounds.total_bytes:
            largest = max(self._owners.values(), key=lambda owned: owned.size)
            largest.pop(largest.oldest)
        return True

    async def delete(self, key: ThreadKey) -> bool:
        """Deletes a thread; False if there is none."""
        return self._take(key) is not None

    async def delete_expired(self) -> None:
        """Deletes the threads that have expired."""
        earliest = self._clock() - self._bounds.seconds
        for owner, threads in list(self._owners.items()):
            while threads.entries and threads.entries[threads.oldest].used < earliest:
                threads.pop(threads.oldest)
            if not threads.entries:
                del self._owners[owner]

    def _take(self, key: ThreadKey) -> _Entry | None:
        """Removes a thread and returns it; None for one that is not there or has expired."""
        threads = self._owners.get(key.owner)
        entry = threads.pop(key.name) if threads is not None else None
        is_expired = entry is not None and entry.used < self._clock() - self._bounds.seconds
        return None if is_expired else entry

    async def find_fault(self) -> str:
        """Returns "": memory is always there."""
        return ""

    async def close(self) -> None:
        """Does nothing: there are no connections."""
