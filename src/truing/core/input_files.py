"""Reads files that a user names, within bounds: a pipe without a writer would block for ever, a
device may have no end, and a sparse file of a gigabyte would be read into memory whole.

The functions raise OSError, like the ones of Python that they stand for.
"""

from __future__ import annotations

import errno
import os
import stat
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from truing.core.errors import did_you_mean

_BUFFER_BYTES = 1 << 20

MAX_DOCUMENT_BYTES = 64 << 20
"""The largest file that is read whole: rules, plans, cards, prompts."""
_MAX_NEAR_NAMES = 1000


def open_input(path: str | Path) -> BinaryIO:
    """Opens a file for reading; raises OSError if it is a folder, a pipe or a device."""
    # O_NONBLOCK: opening a pipe returns at once; it has no effect on a regular file.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file (a folder, a pipe or a device)", str(path))
    return open(descriptor, "rb", buffering=_BUFFER_BYTES)


def read_input_bytes(path: str | Path, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Returns the content of a file; raises OSError if it has more than `max_bytes`."""
    with open_input(path) as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"is larger than {max_bytes:,} bytes", str(path))
    return data


def describe_unreadable(error: OSError | UnicodeDecodeError) -> str:
    """Returns why a file cannot be read, without its name; of a missing one, with the nearest name
    in its folder.
    """
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 text (byte {error.start:,})"
    reason = error.strerror or type(error).__name__
    if not isinstance(error, FileNotFoundError) or not isinstance(error.filename, str):
        return reason
    path = Path(error.filename)
    try:
        names = [entry.name for entry in islice(path.parent.iterdir(), _MAX_NEAR_NAMES)]
    except OSError:
        return reason
    suggestion = did_you_mean(path.name, names)
    return reason + suggestion if "did you mean" in suggestion else reason


def read_input_text(path: str | Path, max_bytes: int = MAX_DOCUMENT_BYTES) -> str:
    """Returns the text of a UTF-8 file, with `\\n` for every line end.

    Raises OSError if it has more than `max_bytes`, and UnicodeDecodeError.
    """
    text = read_input_bytes(path, max_bytes).decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")
