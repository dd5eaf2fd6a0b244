"""The indexes of the runs that somebody looks at: found, built in the background, replaced."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
import sqlite3
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct

from truing.core.errors import RunError
from truing.core.private_files import create_folder, private_opener, replace_file_with
from truing.hf.weights import cache_dir
from truing.runs.folder import Run
from truing.runs.parts import PARTS_FILE, locate_record_files
from truing.runs.run_files import locate_run_file
from truing.serve.ui.background import Fault, Pending, describe_error
from truing.serve.ui.row_index import FORMAT, IndexStopped, build_index
from truing.serve.ui.row_reader import RowIndex
from truing.serve.ui.run_state import RunState

_MAX_OPEN = 24
_INDEX_NAME = re.compile(r"ui-rows-\d+-[0-9a-f]{24}\.sqlite(?:\.tmp)?")
_PATIENCE_SECONDS = 0.6
# The index of a running run, and one that failed, is built again when this many times its own
# building time has passed.
_PAUSE_FACTOR = 10.0
_MIN_REST_SECONDS = 5.0


def load_index_key(folder: Path | None = None) -> bytes:
    """Returns the user's key for the names of indexes, creating it at the first call.

    A folder that was received may hold a prepared database in the place of an index. Its author
    cannot know the name that this key gives to the real one. Without a place to keep the key, it
    holds for this process.
    """
    try:
        path = (folder or cache_dir()) / "ui.key"
        create_folder(path.parent)
        with contextlib.suppress(FileExistsError), open(path, "xb", opener=private_opener) as new:
            new.write(secrets.token_bytes(32))
        key = path.read_bytes()
        if len(key) == 32:
            return key
    except (OSError, RunError):
        pass
    return secrets.token_bytes(32)


FileStat = tuple[int, int, int]
"""Modification time in nanoseconds, size and inode of a file."""


def fingerprint(
    state: RunState, more_files: tuple[str, ...] = ()
) -> tuple[str | FileStat | None, ...]:
    """Returns the folder with modification time, size and inode of every file of a run."""
    names = ["manifest.json", PARTS_FILE, "samples.jsonl", "responses.jsonl", *more_files]
    names += [judge.file for judge in state.manifest.judges]
    stats: list[FileStat | None] = []
    for path in _locate_files(state.path, names):
        try:
            stat = path.lstat()
            stats.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except (OSError, ValueError):
            stats.append(None)
    return (str(state.path), *stats)


def _locate_files(folder: Path, names: list[str]) -> Iterator[Path]:
    for name in names:
        try:
            yield from locate_record_files(folder, name)
        except RunError:
            yield folder / name


class _Entry(Struct):
    """What is known of one run's index."""

    fingerprint: tuple[object, ...] = ()
    index: RowIndex | None = None
    fault: str = ""
    building: bool = False
    share: float = 0.0
    next_build: float = 0.0


class RowIndexes:
    """Opens and builds the indexes of runs; builds one at a time."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._entries: OrderedDict[Path, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._pool = ThreadPoolExecutor(1, "index")
        self._stopping = False
        self._spare_folder: tempfile.TemporaryDirectory[str] | None = None

    def get(self, state: RunState) -> RowIndex | Pending | Fault:
        """Returns the index of a run, or how far its building is, or why there is none.

        Of a run that is being written, the index may be some seconds old.
        """
        current = fingerprint(state)
        with self._changed:
            index_entry = self._entries.setdefault(state.path, _Entry())
            self._entries.move_to_end(state.path)
            is_resting = time.monotonic() < index_entry.next_build
            # What failed may have had another reason than the files, such as a full disk.
            is_current = index_entry.fingerprint == current and (
                index_entry.index is not None or (bool(index_entry.fault) and is_resting)
            )
            is_old_but_usable = (
                index_entry.index is not None and state.status == "running" and is_resting
            )
            if not is_current and not is_old_but_usable and not index_entry.building:
                index_entry.building, index_entry.share = True, 0.0
                self._pool.submit(self._build, state, current, index_entry)
            if index_entry.index is None or (not is_current and state.status != "running"):
                # Small runs are ready within a moment, so that nobody sees a page that waits.
                self._changed.wait_for(lambda: not index_entry.building, _PATIENCE_SECONDS)
            self._evict()
            if index_entry.index is not None and (
                state.status == "running" or not index_entry.building
            ):
                return index_entry.index
            return Fault(index_entry.fault) if index_entry.fault else Pending(index_entry.share)

    def forget(self, state: RunState) -> None:
        """Drops the index of a run whose files turned out to be others."""
        with self._lock:
            self._entries.pop(state.path, None)

    def _evict(self) -> None:
        for path, entry in list(self._entries.items()):
            if len(self._entries) <= _MAX_OPEN:
                return
            if not entry.building:
                del self._entries[path]

    def _build(self, state: RunState, current: tuple[object, ...], index_entry: _Entry) -> None:
        started = time.monotonic()
        index, fault = None, ""

        def report(share: float) -> None:
            if self._stopping:
                raise IndexStopped
            index_entry.share = share

        try:
            index = self._open_or_build(Run(state.path), current, report)
        except IndexStopped:
            fault = "the server is stopping"
        except Exception as error:
            fault = describe_error(error)
        with self._changed:
            index_entry.fingerprint, index_entry.fault, index_entry.building = current, fault, False
            if index is not None:
                index_entry.index = index
            elif state.status != "running":
                index_entry.index = None
            seconds = time.monotonic() - started
            pause_seconds = max(_MIN_REST_SECONDS, _PAUSE_FACTOR * seconds)
            index_entry.next_build = time.monotonic() + pause_seconds
            self._changed.notify_all()

    def _open_or_build(
        self, run: Run, current: tuple[object, ...], report: Callable[[float], None]
    ) -> RowIndex:
        code = hmac.new(self._key, repr(current).encode(), hashlib.sha256).hexdigest()[:24]
        name = f"ui-rows-{FORMAT}-{code}.sqlite"
        path = locate_run_file(run.path, name)
        if path.exists():
            try:
                return RowIndex(run, path)
            except (sqlite3.Error, ValueError, KeyError):
                pass  # half written; it is replaced
        try:
            _delete_old_indexes(run.path)
            _build_file(run, path, report)
        except RunError:
            if _is_writable(run.path):
                raise
            # The folder is on a read-only disk, or somebody else's.
            path = self._spare_path(name)
            _build_file(run, path, report)
        return RowIndex(run, path)

    def _spare_path(self, name: str) -> Path:
        if self._spare_folder is None:
            self._spare_folder = tempfile.TemporaryDirectory(prefix="truing-ui-")
        return Path(self._spare_folder.name) / name

    def close(self) -> None:
        """Stops a build that is under way."""
        self._stopping = True
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._entries.clear()
        if self._spare_folder is not None:
            self._spare_folder.cleanup()


def _build_file(run: Run, path: Path, report: Callable[[float], None]) -> None:
    try:
        replace_file_with(path, lambda target: build_index(run, target, report))
    except BaseException:
        with contextlib.suppress(OSError):
            path.with_name(path.name + ".tmp").unlink(missing_ok=True)
        raise


def _is_writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _delete_old_indexes(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if _INDEX_NAME.fullmatch(path.name) and not path.is_symlink():
                path.unlink()
