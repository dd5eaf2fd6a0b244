"""A lock file that keeps two processes from training into the same folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from truing.core.errors import RunError


@contextmanager
def lock_run_folder(out: Path) -> Iterator[None]:
    """Holds `OUT/lock`; raises RunError if another process holds it.

    The operating system releases the lock when the process ends, however it ends.
    """
    out.mkdir(parents=True, exist_ok=True)
    lock: IO[bytes] = (out / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise RunError(f"{out}: another process is training into this folder") from error
    try:
        yield
    finally:
        lock.close()
