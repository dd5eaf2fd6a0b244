"""Files of object stores, by fsspec: s3://, gs://, az://, hf://, memory://, ...

A store that throttles is asked again, with growing waits. Nothing here relies on a list being
complete: stores answer stale ones.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeVar, cast

from truing.core.errors import DataError, MissingExtra

T = TypeVar("T")

_ATTEMPTS = 7
_FIRST_WAIT_SECONDS = 0.2
_PASSING = ("slowdown", "throttl", "too many requests", "429", "503", "500", "timed out", "reset")
"""Parts of the messages of errors that pass; each library has its own exceptions."""


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
    text = f"{type(error).__name__} {error}".lower()
    is_kind = isinstance(error, (TimeoutError, ConnectionError, BlockingIOError))
    return is_kind or any(part in text for part in _PASSING)


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
    scheme = path.split("://", 1)[0]
    try:
        if any(character in inner for character in "*?["):
            names = repeat_passing_errors(lambda: filesystem.glob(inner))
        elif inner.endswith(tuple(endings)):
            names = [inner]
        else:
            names = repeat_passing_errors(lambda: filesystem.find(inner))
    except OSError as error:
        raise DataError(f"{path}: {error}") from error
    return [f"{scheme}://{name.lstrip('/')}" for name in names if name.endswith(tuple(endings))]


def stat_remote(path: str) -> tuple[int, str]:
    """Returns the size of a file and what changes when it is written again; raises DataError."""
    filesystem, inner = open_filesystem(path)
    try:
        info = repeat_passing_errors(lambda: filesystem.info(inner))
    except OSError as error:
        raise DataError(f"{path}: {error}") from error
    marks = (info.get(k) for k in ("ETag", "etag", "LastModified", "mtime", "created"))
    return int(info.get("size") or 0), str(next((m for m in marks if m), ""))


def open_remote(path: str) -> BinaryIO:
    """Opens a file for reading; raises DataError if there is none."""
    filesystem, inner = open_filesystem(path)
    try:
        stream = repeat_passing_errors(lambda: filesystem.open(inner, "rb"))
    except OSError as error:
        raise DataError(f"{path}: {error}") from error
    return cast(BinaryIO, stream)
