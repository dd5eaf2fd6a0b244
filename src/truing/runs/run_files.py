"""Finds and reads the files of a run folder, which may come from somebody else.

A received folder is data: what its manifest names is read, written or deleted only if it is a plain
file inside the folder. Every reader and every deleter asks `locate_run_file`.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path, PurePosixPath

from truing.core.errors import RunError

_MAX_NAME_CHARS = 300
_JUDGEMENT_FILE = re.compile(r"judgements/[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}\.jsonl")


def is_judgement_file(name: str) -> bool:
    """Whether a manifest may name this file as the judgements of a judge."""
    return _JUDGEMENT_FILE.fullmatch(name) is not None


def locate_run_file(folder: Path, name: str) -> Path:
    """Returns the path of a run's file, which need not exist yet.

    Raises RunError if the name leads out of the folder (absolute, `..`, through a link), or if
    something lies there that is no regular file (a folder, a pipe, a device).
    """
    parts = PurePosixPath(name).parts
    is_plain = bool(parts) and not name.startswith("/") and ".." not in parts and "\\" not in name
    if not is_plain or not name.isprintable() or len(name) > _MAX_NAME_CHARS:
        raise RunError(f"{folder}: the manifest names {name!r:.200}, no file inside this folder")
    path = folder
    for part in parts:
        path /= part
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            return folder / name
        except OSError as error:
            raise RunError(f"{path}: {error.strerror}") from error
        is_last = path == folder / name
        # Links that stay inside are refused too: two names of one file would be appended to at
        # the same time.
        if not (stat.S_ISREG(mode) if is_last else stat.S_ISDIR(mode)):
            kind = "a link" if stat.S_ISLNK(mode) else "no regular file"
            raise RunError(
                f"{path}: is {kind}; the files of a run folder are plain files inside it"
            )
    return path


def delete_run_file(folder: Path, name: str) -> None:
    """Deletes a run's file if it exists; raises RunError like `locate_run_file`."""
    path = locate_run_file(folder, name)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be deleted: {error.strerror}") from error


def open_run_file(folder: Path, name: str) -> int:
    """Returns a descriptor for reading a run's file; raises RunError like `locate_run_file`."""
    path = locate_run_file(folder, name)
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from error
