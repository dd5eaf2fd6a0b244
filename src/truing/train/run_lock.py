"""A lock file that keeps two processes from training into the same folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from truing.core.errors import RunError
from truing.core.private_files import create_folder, private_opener


@contextmanager
def lock_run_folder(out: Path) -> Iterator[None]:
    """Holds `OUT/lock`; raises RunError if another process holds it.

    The operating system releases the lock when the process ends, however it ends.
    """
    create_folder(out)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    lock: IO[bytes] = os.fdopen(private_opener(str(out / "lock"), flags), "ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise RunError(f"{out}: another process is training into this folder") from error
    try:
        yield
    finally:
        lock.close()
