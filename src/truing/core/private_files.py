"""Creates files and folders that only their owner can read.

Prompts, answers and labels may be harmful or personal, and with the usual umask (022) every user of
the machine could read them. So all writers of the project create files with mode 0600 and folders
with mode 0700. `TRUING_FILE_MODE=0640` (any octal mode of files) shares what is written from then
on with the group; folders get the execute bit wherever files get the read bit. The umask of the
process still applies, and a folder that exists keeps its mode.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

from truing.core.errors import RunError, UserError

MODE_VARIABLE = "TRUING_FILE_MODE"

_DEFAULT_MODE = 0o600
_DISK_FULL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Network file systems give these for a moment: another client holds the file, or the server has
# restarted.
_PASSING_ERRORS = (errno.EBUSY, errno.ESTALE, errno.EAGAIN)
_RENAME_ATTEMPTS = 5
_FIRST_WAIT_SECONDS = 0.02


def file_mode() -> int:
    """Returns the mode of new files; raises UserError if `TRUING_FILE_MODE` is no such mode."""
    configured = os.environ.get(MODE_VARIABLE, "").strip()
    if not configured:
        return _DEFAULT_MODE
    try:
        mode = int(configured, 8)
    except ValueError:
        mode = 0
    if mode & 0o600 != 0o600 or mode & ~0o666:
        raise UserError(
            f"{MODE_VARIABLE}={configured}: give the octal mode of a file that its owner may read "
            "and write, such as 0600 or 0640"
        )
    return mode


def folder_mode() -> int:
    """Returns the mode of new folders: that of files, and whoever may read may also enter."""
    mode = file_mode()
    return mode | (mode & 0o444) >> 2


def restrict_umask() -> None:
    """Makes the umask of this process at least as strict as the mode of new folders.

    The commands call it, for libraries that create files themselves: transformers, TensorBoard.
    """
    current_umask = os.umask(0o077)
    os.umask(current_umask | (0o777 & ~folder_mode()))


def create_folder(path: Path) -> None:
    """Creates a folder and its missing parents; one that exists stays as it is.

    Raises RunError if it cannot be created.
    """
    mode = folder_mode()
    missing = []
    folder = path
    while not folder.exists() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    try:
        for new_folder in reversed(missing):
            new_folder.mkdir(mode=mode, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot create the folder: {error.strerror}") from error
    if not path.is_dir():
        raise RunError(f"{path}: is a file, and a folder is needed")


def private_opener(path: str, flags: int) -> int:
    """The `opener` for `open()`: a new file is private, whatever opens it.

    with open(path, "w", encoding="utf-8", opener=private_opener) as stream: ...
    """
    return os.open(path, flags | os.O_CLOEXEC, file_mode())


def create_private_file(path: Path) -> None:
    """Creates an empty file if there is none, for a library that opens files by their path.

    SQLite gives its `-wal` and `-shm` files the mode of the database.
    """
    # O_NONBLOCK: opening a pipe that lies there is an error, and does not wait for a reader.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, file_mode()))


def replace_file(target: Path, data: bytes) -> None:
    """Writes a file atomically (temporary file, fsync, rename): no reader sees half of it.

    Raises RunError if it cannot be written; the old content stays.
    """

    replace_file_with(target, lambda path: path.write_bytes(data))


def replace_file_with(target: Path, write: Callable[[Path], object]) -> None:
    """Like `replace_file`, for a function that writes the file at the path that it is given."""
    temporary = target.with_name(target.name + ".tmp")
    try:
        # A link that lies there, in a folder that was received, must not be written through.
        temporary.unlink(missing_ok=True)
        create_private_file(temporary)
        write(temporary)
        sync_path(temporary)
        rename_file(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise write_error(target, error) from error


def rename_file(source: Path, target: Path) -> None:
    """Renames a file or folder, in place of what is at the target; errors that pass are repeated.

    Raises OSError if it fails in the end; the source is then still there.
    """
    for attempt in range(_RENAME_ATTEMPTS):
        try:
            source.replace(target)
            return
        except FileNotFoundError:
            # The server carried out an earlier attempt, and only its reply was lost.
            if attempt and target.exists():
                return
            raise
        except OSError as error:
            if error.errno not in _PASSING_ERRORS or attempt == _RENAME_ATTEMPTS - 1:
                raise
            time.sleep(_FIRST_WAIT_SECONDS * 2**attempt)


def sync_path(path: Path) -> None:
    """Waits until a file, or the renames in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_error(path: Path, error: OSError) -> RunError:
    """Returns the error to raise for a failed write; a full disk is named as such."""
    is_full = error.errno in _DISK_FULL_ERRORS
    reason = "the disk is full" if is_full else error.strerror or str(error)
    return RunError(
        f"{path}: {reason}; what was written before is safe, and the same command continues "
        "from there"
    )
