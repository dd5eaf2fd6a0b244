"""The folder that shards are written to: on a disk that all workers see, or in an object store.

Each file is written whole, under its final name or not at all: by a rename on a disk, by the store
itself elsewhere.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from truing.bulk.remote_files import is_remote, open_filesystem, repeat_passing_errors
from truing.core.errors import RunError
from truing.core.private_files import (
    create_folder,
    private_opener,
    rename_file,
    sync_path,
    write_error,
)
from truing.runs.write_lock import acquire_write_lock

_TEMPORARY_ENDING = ".tmp"
_READ_AT_ONCE = 64


class ShardStore:
    """A folder of whole files, by names such as `parts/000042.jsonl`."""

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self._filesystem, self._root = None, ""
        if is_remote(self.url):
            self._filesystem, self._root = open_filesystem(self.url)

    def path(self, name: str) -> str:
        """Returns the path or URL of a file."""
        return f"{self.url.rstrip('/')}/{name}"

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file, or None if there is none."""
        try:
            if self._filesystem is None:
                return Path(self.path(name)).read_bytes()
            filesystem, path = self._filesystem, f"{self._root}/{name}"
            data: bytes = repeat_passing_errors(lambda: filesystem.cat_file(path))
            return data
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunError(f"{self.path(name)}: {error.strerror or error}") from error

    def read_many(self, names: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
        """Yields the names with the contents of files, None for those that do not exist.

        Of a store, many at a time: one after the other would take a round trip each.
        """
        for start in range(0, len(names), _READ_AT_ONCE):
            chunk = names[start : start + _READ_AT_ONCE]
            contents: dict[str, Any] = {}
            if self._filesystem is not None:
                paths = [f"{self._root}/{name}" for name in chunk]
                with contextlib.suppress(Exception):  # then they are read one by one
                    contents = self._filesystem.cat(paths, on_error="return")
            for name in chunk:
                data = contents.get(f"{self._root}/{name}")
                yield name, data if isinstance(data, bytes) else self.read(name)

    def exists(self, name: str) -> bool:
        """Returns whether there is a file of that name."""
        if self._filesystem is None:
            return Path(self.path(name)).is_file()
        filesystem, path = self._filesystem, f"{self._root}/{name}"
        return bool(repeat_passing_errors(lambda: filesystem.isfile(path)))

    def write(self, name: str, data: bytes, *, durable: bool = True) -> None:
        """Writes a whole file in place of what was there; raises RunError if it cannot be.

        A `durable` file is on the disk when this returns: a power failure does not lose it.
        """
        if self._filesystem is not None:
            filesystem, path = self._filesystem, f"{self._root}/{name}"
            try:
                repeat_passing_errors(lambda: filesystem.pipe_file(path, data))
            except OSError as error:
                raise write_error(Path(self.path(name)), error) from error
            return
        target = Path(self.path(name))
        create_folder(target.parent)
        # A name of its own: two workers may write the same file, one of them thought dead.
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}{_TEMPORARY_ENDING}")
        try:
            with open(temporary, "wb", opener=private_opener) as stream:
                stream.write(data)
            if durable:
                sync_path(temporary)
            rename_file(temporary, target)
            if durable:
                sync_path(target.parent)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise write_error(target, error) from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the lock of a folder on a disk; an object store has none.

        Raises RunError if another process holds it.
        """
        if self._filesystem is not None:
            yield
            return
        create_folder(Path(self.url))
        with acquire_write_lock(Path(self.url)):
            yield

    def names(self, folder: str) -> set[str]:
        """Returns the names of the files in a folder; of a store it may lack the newest."""
        if self._filesystem is None:
            place = Path(self.path(folder))
            if not place.is_dir():
                return set()
            return {p.name for p in place.iterdir() if not p.name.endswith(_TEMPORARY_ENDING)}
        filesystem, path = self._filesystem, f"{self._root}/{folder}"
        try:
            filesystem.invalidate_cache(path)
            paths = repeat_passing_errors(lambda: filesystem.ls(path, detail=False))
        except FileNotFoundError:
            return set()
        return {str(name).rstrip("/").rsplit("/", 1)[-1] for name in paths}

    def delete(self, name: str) -> None:
        """Deletes a file; one that does not exist is no error."""
        with contextlib.suppress(FileNotFoundError):
            if self._filesystem is None:
                Path(self.path(name)).unlink()
            else:
                self._filesystem.rm_file(f"{self._root}/{name}")

    def delete_temporary_files(self, folder: str) -> None:
        """Deletes what killed workers left half written; call it while nobody writes."""
        if self._filesystem is None:
            for part in Path(self.path(folder)).glob(f".*{_TEMPORARY_ENDING}"):
                part.unlink(missing_ok=True)
