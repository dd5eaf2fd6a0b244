"""What a store of threads keeps, for whom, and within which bounds.

Each save names the version that it continues, so that of two servers that answer in one thread at
the same time one is told that the other was first, and no turn is lost. A thread that has expired
or was dropped meanwhile conflicts with nobody: it is stored again, with the messages at hand.
"""

from __future__ import annotations

import math
import secrets
from typing import Any, Protocol

from msgspec import Struct

from truing.core.errors import PlanError

DEFAULT_HOURS = 720.0  # 30 days
DEFAULT_MEGABYTES = 64
ENTRY_BYTES = 500  # of a thread, beside its document
_MEMORY_BYTES = 256 * 2**20
_FIRST_VERSIONS = 2**30

Document = dict[str, Any]
Rows = list[dict[str, Any]]


class ThreadKey(Struct, frozen=True):
    """`owner` is the API key (its hash) that a thread belongs to, `name` this thread's own."""

    owner: str
    name: str


class StoredThread(Struct, frozen=True):
    """What is kept of a thread, and a number that changes at each save; {} and 0: nothing is."""

    document: Document
    version: int = 0

    @property
    def rows(self) -> Rows:
        """The messages of the thread."""
        rows: Rows = self.document.get("messages", [])
        return rows


class ThreadBounds(Struct, frozen=True, kw_only=True):
    """Seconds after which an unused thread expires (infinite: never), and the bytes that those of
    one owner take; a load is a use. `total_bytes` is for all owners, in memory alone.

    Beyond the bytes the threads that were not used for longest are dropped: an owner's own, so that
    no owner can drop another's.
    """

    seconds: float = DEFAULT_HOURS * 3600
    owner_bytes: int = DEFAULT_MEGABYTES * 2**20
    total_bytes: int = _MEMORY_BYTES

    @classmethod
    def of_flags(cls, hours: float, megabytes: int) -> ThreadBounds:
        """Returns the bounds of `--thread-hours` and `--thread-megabytes`. Raises PlanError."""
        if not hours > 0:
            raise PlanError(f"--thread-hours {hours:g}: expected a number above 0 (inf: never)")
        if megabytes < 2:
            # A single thread may take one.
            raise PlanError(f"--thread-megabytes {megabytes}: expected 2 or more")
        return cls(seconds=hours * 3600, owner_bytes=megabytes * 2**20)

    @property
    def expires(self) -> bool:
        """Whether threads expire at all."""
        return math.isfinite(self.seconds)


class ThreadStore(Protocol):
    """Where threads are kept. RequestRefused (503) of a method: the store does not answer."""

    async def load(self, key: ThreadKey) -> StoredThread:
        """Returns a thread, and counts that as a use; an empty one for an unknown or expired
        key.
        """
        ...

    async def save(self, key: ThreadKey, document: Document, version: int) -> bool:
        """Replaces a thread; False if one is there that is not at this version any more."""
        ...

    async def delete(self, key: ThreadKey) -> bool:
        """Deletes a thread; False if there is none."""
        ...

    async def delete_expired(self) -> None:
        """Deletes the threads that have expired; servers call it every minute."""
        ...

    async def find_fault(self) -> str:
        """Returns why the store cannot be used now; "" if it can."""
        ...

    async def close(self) -> None:
        """Closes the connections."""
        ...


def next_version(version: int) -> int:
    """Returns the version after a save.

    A new thread begins at a random one: a thread that expired during a request, and was begun anew
    by another, is not taken for the one that the request has read.
    """
    return version + 1 if version else 1 + secrets.randbelow(_FIRST_VERSIONS)
