"""Files of object stores, by fsspec: s3://, gs://, az://, hf://, memory://, ...

A store that throttles is asked again, with growing waits. Nothing here relies on a list being
complete: stores answer stale ones.
"""

from __future__ import annotations

import io
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar, cast

from truing.core.errors import DataError, MissingExtra

T = TypeVar("T")

_ATTEMPTS = 7
_FIRST_WAIT_SECONDS = 0.2
_PASSING = re.compile(
    r"slow ?down|throttl|too many requests|timed out|reset|\b(?:429|500|502|503|504)\b",
    re.IGNORECASE,
)
"""In the messages of errors that pass; each library has its own exceptions."""

_PATH = re.compile(r"\S*[/\\]\S*")
_BUFFER_BYTES = 1 << 20


def is_remote(path: str) -> bool:
    """Whether a path is that of an object store."""
    return "://" in path


def repeat_passing_errors(call: Callable[[], T], wait: Callable[[float], object] = time.sleep) -> T:
    """Returns the result of a call, repeated while the store throttles; about 13 s in all."""
    for attempt in range(_ATTEMPTS):
        try:
            return call()
        except FileNotFoundError:
            raise
        except Exception as error:
            if attempt == _ATTEMPTS - 1 or not _is_passing(error):
                raise
            # Random, so that the workers that were throttled together do not return together.
            wait(_FIRST_WAIT_SECONDS * 2**attempt * (0.5 + random.random() / 2))
    raise AssertionError("unreachable")


def _is_passing(error: Exception) -> bool:
    if isinstance(error, (TimeoutError, ConnectionError, BlockingIOError)):
        return True
    # A path in the message may hold the same numbers: logs-500/a.jsonl.
    text = f"{type(error).__name__} {_PATH.sub(' ', str(error))}"
    return _PASSING.search(text) is not None


def _describe(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"


def open_filesystem(path: str) -> tuple[Any, str]:
    """Returns the file system of a path, and the path within it.

    Raises MissingExtra without fsspec, DataError for a store whose package is not installed.
    """
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingExtra("ray", "object stores (package fsspec)") from error
    try:
        filesystem, inner = fsspec.core.url_to_fs(path)
    except (ImportError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    return filesystem, inner


def list_remote_files(path: str, endings: Sequence[str]) -> list[str]:
    """Returns the files of a folder or a pattern that have one of the endings, or the file."""
    filesystem, inner = open_filesystem(path)
    inner = inner.rstrip("/")
    given = path.rstrip("/")
    # What the URL has before the store's own path: for s3 the scheme, for http nothing.
    prefix = given[: -len(inner)] if inner and given.endswith(inner) else None
    try:
        if any(character in inner for character in "*?["):
            names = repeat_passing_errors(lambda: filesystem.glob(inner))
        elif inner.endswith(tuple(endings)):
            names = [inner]
        else:
            names = repeat_passing_errors(lambda: filesystem.find(inner))
    except Exception as error:  # each store's library has its own
        raise DataError(f"{path}: {_describe(error)}") from error
    files = [name for name in names if name.endswith(tuple(endings))]
    if prefix is None:
        return [str(filesystem.unstrip_protocol(name)) for name in files]
    return [prefix + name for name in files]


def stat_remote(path: str) -> tuple[int, str]:
    """Returns the size of a file and what changes when it is written again; raises DataError."""
    filesystem, inner = open_filesystem(path)
    try:
        info = repeat_passing_errors(lambda: filesystem.info(inner))
    except Exception as error:  # each store's library has its own
        raise DataError(f"{path}: {_describe(error)}") from error
    marks = (info.get(k) for k in ("ETag", "etag", "LastModified", "mtime", "created"))
    return _size_of(path, info), str(next((m for m in marks if m), ""))


def open_remote(path: str) -> BinaryIO:
    """Opens a file for reading; raises DataError if there is none.

    A read that the store throttles is repeated, too.
    """
    filesystem, inner = open_filesystem(path)
    try:
        info = repeat_passing_errors(lambda: filesystem.info(inner))
    except Exception as error:  # each store's library has its own
        raise DataError(f"{path}: {_describe(error)}") from error
    raw = _RemoteFile(filesystem, inner, _size_of(path, info))
    return cast(BinaryIO, io.BufferedReader(raw, _BUFFER_BYTES))


def _size_of(path: str, info: Mapping[str, Any]) -> int:
    """Returns the size of a file; raises DataError if the store does not tell it.

    An unknown size is not 0: all rows of the file would be left out.
    """
    size = info.get("size")
    if size is None:
        raise DataError(f"{path}: its store does not tell its size; copy it to a disk")
    return int(size)


class _RemoteFile(io.RawIOBase):
    """A file of a store, read in ranges."""

    def __init__(self, filesystem: Any, path: str, size: int) -> None:
        self._filesystem, self._path, self._size = filesystem, path, size
        self._position = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """Returns the present offset."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Changes the offset; returns it."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Reads the range from the present offset; returns its bytes, 0 at the end."""
        start, end = self._position, min(self._size, self._position + len(buffer))
        if start >= end:
            return 0
        received = repeat_passing_errors(
            lambda: self._filesystem.cat_file(self._path, start=start, end=end)
        )
        if len(received) != end - start:
            # A web server without ranges sends the whole file: other rows than the ones asked for.
            raise DataError(
                f"{self._path}: its store sent {len(received):,} bytes instead of the "
                f"{end - start:,} from byte {start:,}: the file has changed, or the store "
                "knows no ranges; copy it to a disk"
            )
        buffer[: len(received)] = received
        self._position = end
        return len(received)
