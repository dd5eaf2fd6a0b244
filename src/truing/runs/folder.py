"""The run folder: what one run leaves on disk, append-only, crash-safe, resumable.

    manifest.json   samples.jsonl   responses.jsonl   judgements/<slug>-<hash8>.jsonl   rankings/<ranker>.jsonl
    summary.json    report.html     parents.jsonl (in runs with an attack: the samples before it)

A line is written whole or not at all; a line that a crash cut off is truncated when the folder is opened for writing.
While a run goes on, lines stand in the order in which answers came; a finished run has them in the order of its
samples. One process writes at a time (an advisory lock on the folder's `lock` file). Folders are private (0700).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
from msgspec import Struct, field

from truing.core.errors import RunError
from truing.core.jsonl import read_records
from truing.core.types import Judgement, Lineage, Response, Sample
from truing.runs.index import LineSpans

T = TypeVar("T")


class DataRecord(Struct, frozen=True, kw_only=True):
    """A data set as the run read it."""

    spec: str
    source: str = ""
    licence: str = ""
    sha256: str = ""
    n: int = 0
    skipped: int = 0


class JudgeRecord(Struct, frozen=True, kw_only=True):
    """A judge whose judgements stand in `file` (relative to the folder)."""

    name: str
    question: str
    file: str
    lineage: Lineage = Lineage()
    struck: str | None = None


class Manifest(Struct, kw_only=True):
    """Everything needed to run again and to know what was run. `plan` is the plan as plain data."""

    plan: dict[str, Any] = field(default_factory=dict)
    plan_hash: str = ""
    model: str = ""
    lineage: Lineage = Lineage()
    data: list[DataRecord] = field(default_factory=list)
    judges: list[JudgeRecord] = field(default_factory=list)
    taxonomy: str = "beavertails"
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    created: str = ""
    complete: bool = False
    notes: dict[str, str] = field(default_factory=dict)


def judgement_file(name: str, hash_: str) -> str:
    """`judgements/<slug>-<hash8>.jsonl` for a judge."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "judge"
    return f"judgements/{slug}-{(hash_ or '0' * 8)[:8]}.jsonl"


class Run:
    """A run folder for reading; never loads more than one line at a time unless you keep them."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "manifest.json").is_file():
            raise RunError(f"{self.path}: no run folder (no manifest.json)")

    @property
    def manifest(self) -> Manifest:
        """Read afresh at each call."""
        try:
            return msgspec.json.decode((self.path / "manifest.json").read_bytes(), type=Manifest)
        except msgspec.DecodeError as error:
            raise RunError(f"{self.path / 'manifest.json'}: {error}") from error

    def samples(self) -> Iterator[Sample]:
        """In the order in which the run read them."""
        return read_records(self.path / "samples.jsonl", Sample)

    def responses(self) -> Iterator[Response]:
        """In the order in which they came."""
        return read_records(self.path / "responses.jsonl", Response)

    def judgements(self, judge: str | None = None) -> Iterator[Judgement]:
        """Of one judge (by name), or of all."""
        for record in self.manifest.judges:
            if judge is None or record.name == judge:
                yield from read_records(self.path / record.file, Judgement)


class AppendOnlyFile:
    """One append-only file: what is appended goes to the operating system whole and at once, or is taken back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            truncate_partial_line(path)
            self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self.size = os.fstat(self._fd).st_size
        except OSError as error:
            raise _trouble(path, error) from error
        self._dirty = False

    def append(self, data: bytes | bytearray) -> int:
        """Appends whole lines and gives the offset of the first; if the disk is full, RunError, and no part stays."""
        at = self.size
        try:
            done = os.write(self._fd, data)
            while done < len(data):
                done += os.write(self._fd, bytes(data[done:]))
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, at)
            raise _trouble(self.path, error) from error
        self.size = at + len(data)
        self._dirty = True
        return at

    def sync(self) -> None:
        """Waits until the disk has it."""
        if self._dirty:
            self._dirty = False
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise _trouble(self.path, error) from error

    def close(self) -> None:
        """Lets go of the file; may be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _trouble(path: Path, error: OSError) -> RunError:
    word = (
        "the disk is full"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        else error.strerror
    )
    return RunError(
        f"{path}: {word}; what was written before is safe, and the same command goes on from there"
    )


class RunWriter(Run):
    """A run folder open for writing, by this process alone.

    Each line reaches the operating system when it is appended, so that a killed process loses nothing that it
    appended; `sync` waits for the disk and is called about once a second (group commit), against a power cut.
    """

    def __init__(self, path: str | Path, manifest: Manifest) -> None:
        self.path = Path(path)
        self._journals: dict[str, AppendOnlyFile] = {}
        self._lock = self._hold()
        known = self.path / "manifest.json"
        try:
            if known.exists():
                old = self.manifest
                if old.plan_hash != manifest.plan_hash:
                    raise RunError(
                        f"{self.path}: holds a run of another plan{_differences(old, manifest)}"
                    )
                self.record = old
                self.fresh = False
            else:
                self.record = manifest
                self.fresh = True
                self.save()
        except RunError:
            self._lock.close()
            raise

    def _hold(self) -> IO[bytes]:
        try:
            if not self.path.exists():
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.path / "judgements").mkdir(mode=0o700, exist_ok=True)
            lock = (self.path / "lock").open("ab")
        except OSError as error:
            raise RunError(f"{self.path}: cannot be a run folder: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise RunError(f"{self.path}: another process is writing to this run folder") from error
        return lock

    def save(self) -> None:
        """Writes the manifest: to a temporary file, synced, then renamed."""
        self.replace(
            "manifest.json", msgspec.json.format(msgspec.json.encode(self.record), indent=2) + b"\n"
        )

    def replace(self, file: str, data: bytes) -> None:
        """Writes a whole file under its name at once: whoever reads sees the old one or the new one."""
        replace_file(self.path / file, data)

    def open_file(self, file: str) -> AppendOnlyFile:
        """The open append-only file of that name; a line that a crash cut off is gone."""
        found = self._journals.get(file)
        if found is None:
            found = self._journals[file] = AppendOnlyFile(self.path / file)
        return found

    def append(self, file: str, row: Struct) -> int:
        """Appends one line and gives its offset."""
        return self.open_file(file).append(encode_line(row))

    def rename(self, old: str, new: str) -> None:
        """Closes a file that is whole now, and gives it its name."""
        journal = self._journals.pop(old, None)
        if journal is not None:
            journal.sync()
            journal.close()
        (self.path / old).replace(self.path / new)
        self._sync_folder((self.path / new).parent)

    def rewrite_in_order(self, file: str, spans: LineSpans) -> bool:
        """Puts the lines of a file in the order of their keys (and drops those without one), if they are not yet so.

        Lines are appended as answers come, so that nothing waits in memory; this makes a finished run the same, byte
        for byte, whatever order the answers came in and however often the run was killed.
        """
        journal = self.open_file(file)
        if spans.ordered and sum(spans.lengths) == journal.size:
            return False
        journal.sync()
        source = os.open(journal.path, os.O_RDONLY | os.O_CLOEXEC)
        target = journal.path.with_name(journal.path.name + ".tmp")
        try:
            with target.open("wb", buffering=1 << 20) as stream:
                os.fchmod(stream.fileno(), 0o600)
                for start, length in zip(spans.starts, spans.lengths):
                    if length:
                        stream.write(os.pread(source, length, start))
                stream.flush()
                os.fsync(stream.fileno())
            self._journals.pop(file).close()
            target.replace(journal.path)
            self._sync_folder(journal.path.parent)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise _trouble(target, error) from error
        finally:
            os.close(source)
        return True

    @staticmethod
    def _sync_folder(folder: Path) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def sync(self) -> None:
        """Waits until the disk has all that was appended; safe to call from a thread."""
        for journal in tuple(self._journals.values()):
            journal.sync()

    flush = sync

    def discard(self) -> None:
        """Takes back a folder in which nothing was answered yet (the data turned out to be unreadable)."""
        for journal in self._journals.values():
            journal.close()
        self._journals.clear()
        for name in ("manifest.json", "lock"):
            (self.path / name).unlink(missing_ok=True)
        for part in self.path.rglob("*.part"):
            part.unlink()
        for folder in (self.path / "judgements", self.path):
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._lock.close()

    def close(self) -> None:
        """Syncs and lets go of the folder; may be called twice."""
        try:
            self.sync()
        finally:
            for journal in self._journals.values():
                journal.close()
            self._journals.clear()
            self._lock.close()


def _differences(old: Manifest, new: Manifest) -> str:
    """Which parts of the plan differ, by name."""
    keys = [k for k in {**old.plan, **new.plan} if old.plan.get(k) != new.plan.get(k)]
    shown = [f"{k}: {_short(old.plan.get(k))}, not {_short(new.plan.get(k))}" for k in keys[:4]]
    return f" ({'; '.join(shown)})" if shown else f" ({old.plan_hash}, not {new.plan_hash})"


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


_encode = msgspec.json.Encoder().encode


def encode_line(row: Struct) -> bytes:
    """One line of JSON; text that is not Unicode (lone surrogates) is written with replacement characters."""
    try:
        return _encode(row) + b"\n"
    except UnicodeEncodeError:
        return _encode(replace_surrogates(msgspec.to_builtins(row))) + b"\n"


def replace_surrogates(value: Any) -> Any:
    """The same plain data with lone surrogates replaced."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {replace_surrogates(k): replace_surrogates(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_surrogates(v) for v in value]
    return value


def replace_file(target: Path, data: bytes) -> None:
    """Writes to a temporary file beside the target, syncs, renames: no reader ever sees half a file."""
    temporary = target.with_name(target.name + ".tmp")
    try:
        with temporary.open("wb") as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise _trouble(target, error) from error


def truncate_partial_line(path: Path) -> int:
    """Cuts a last line without a newline off a file; gives the number of bytes cut."""
    if not path.exists():
        return 0
    size = path.stat().st_size
    with path.open("rb+") as stream:
        at = size
        while at > 0:
            step = min(65536, at)
            stream.seek(at - step)
            found = stream.read(step).rfind(b"\n")
            if found >= 0:
                keep = at - step + found + 1
                if keep < size:
                    stream.truncate(keep)
                return size - keep
            at -= step
        stream.truncate(0)
        return size
