"""A file that is only appended to, as those of a run folder are."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from truing.core.errors import RunError
from truing.core.private_files import create_folder, file_mode, write_error

_SCAN_BYTES = 65536


class AppendOnlyFile:
    """A file that is only appended to; each append succeeds completely or leaves no trace."""

    def __init__(self, path: Path) -> None:
        self.path = path
        create_folder(path.parent)
        try:
            # An append after an incomplete line would make both unreadable.
            truncate_partial_line(path)
            # O_NOFOLLOW: in a folder that was received, the file may be a link to another file.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            self._fd = os.open(path, flags, file_mode())
            self.size = os.fstat(self._fd).st_size
        except OSError as error:
            raise write_error(path, error) from error
        self._dirty = False

    def append(self, data: bytes | bytearray) -> int:
        """Appends complete lines and returns the offset of the first.

        Raises RunError if the disk is full; what was written of the data is removed again.
        """
        offset = self.size
        try:
            # os.write may write only a part, for example when the disk gets full.
            written = os.write(self._fd, data)
            while written < len(data):
                written += os.write(self._fd, bytes(data[written:]))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, offset)
            raise write_error(self.path, error) from error
        self.size = offset + len(data)
        self._dirty = True
        return offset

    def sync(self) -> None:
        """Waits until all appended data is on the disk."""
        if self._dirty:
            # Cleared first: an append during the fsync, from another thread, marks it dirty again.
            self._dirty = False
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise write_error(self.path, error) from error

    def close(self) -> None:
        """Closes the file; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def truncate_partial_line(path: Path) -> int:
    """Removes a last line without a newline; returns the number of bytes removed.

    Raises RunError if the path is a link or no regular file.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise RunError(f"{path}: is no regular file, so nothing is written to it")
    if not path.exists():
        return 0
    size = path.stat().st_size
    with path.open("rb+") as stream:
        # Searches backwards, so that a large file is not read.
        end = size
        while end > 0:
            start = max(0, end - _SCAN_BYTES)
            stream.seek(start)
            newline = stream.read(end - start).rfind(b"\n")
            if newline >= 0:
                line_end = start + newline + 1
                if line_end < size:
                    stream.truncate(line_end)
                return size - line_end
            end = start
        stream.truncate(0)
        return size
