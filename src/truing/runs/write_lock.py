"""The lock of a run folder: one process writes at a time, and readers can see whether one does."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import IO

from truing.core.errors import RunError
from truing.core.private_files import private_opener
from truing.runs.run_files import locate_run_file, open_run_file

LOCK_FILE = "lock"
_HELD_ERRORS = (errno.EWOULDBLOCK, errno.EACCES)
_LOCK_ATTEMPTS = 5
_SECONDS_BETWEEN_ATTEMPTS = 0.02


def acquire_write_lock(folder: Path) -> IO[bytes]:
    """Returns the locked file `lock` of a run folder; closing it, or dying, releases the lock.

    Raises RunError if another process holds the lock.
    """
    path = locate_run_file(folder, LOCK_FILE)
    try:
        descriptor = private_opener(str(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    except OSError as error:
        raise RunError(f"{folder}: cannot be a run folder: {error.strerror}") from error
    lock = os.fdopen(descriptor, "ab")
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            # flock and not a PID file: the kernel releases it when the process dies.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        except OSError as error:
            if error.errno not in _HELD_ERRORS:
                lock.close()
                raise RunError(f"{path}: cannot be locked: {error.strerror}") from error
        # `is_being_written` of another process holds a shared lock for a moment.
        if attempt + 1 < _LOCK_ATTEMPTS:
            time.sleep(_SECONDS_BETWEEN_ATTEMPTS)
    lock.close()
    raise RunError(f"{folder}: another process is writing to this run folder")


def is_being_written(folder: Path) -> bool:
    """Returns whether a process has the run folder open for writing.

    False where that cannot be found out: there is no lock file, or the file system has no locks.
    """
    try:
        descriptor = open_run_file(folder, LOCK_FILE)
    except RunError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _HELD_ERRORS
    finally:
        os.close(descriptor)
    return False
