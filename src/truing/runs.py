"""The run folder: what one run leaves on disk, append-only, crash-safe, resumable.

    manifest.json   samples.jsonl   responses.jsonl   judgements/<slug>-<hash8>.jsonl   rankings/<ranker>.jsonl
    summary.json    report.html

A line is written whole or not at all; a line that a crash cut off is truncated when the folder is opened for writing.
One process writes at a time (an advisory lock on the folder's `lock` file). Folders are private (0700).
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeVar

import msgspec
from msgspec import Struct, field

from truing.errors import RunError
from truing.types import Judgement, Lineage, Response, Sample

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


def _lines(path: Path, kind: type[T]) -> Iterator[T]:
    if not path.exists():
        return
    decode = msgspec.json.Decoder(kind).decode
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                return  # a line that is being written, or was cut off
            try:
                yield decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise RunError(f"{path}:{number}: {error}") from error


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
        return _lines(self.path / "samples.jsonl", Sample)

    def responses(self) -> Iterator[Response]:
        """In the order in which they came."""
        return _lines(self.path / "responses.jsonl", Response)

    def judgements(self, judge: str | None = None) -> Iterator[Judgement]:
        """Of one judge (by name), or of all."""
        for record in self.manifest.judges:
            if judge is None or record.name == judge:
                yield from _lines(self.path / record.file, Judgement)


class RunWriter(Run):
    """A run folder open for writing, by this process alone."""

    def __init__(self, path: str | Path, manifest: Manifest) -> None:
        self.path = Path(path)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.path / "judgements").mkdir(mode=0o700, exist_ok=True)
        self._files: dict[str, IO[bytes]] = {}
        self._lock = (self.path / "lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(f"{self.path}: another process is writing to this run folder") from error
        known = self.path / "manifest.json"
        if known.exists():
            old = self.manifest
            if old.plan_hash != manifest.plan_hash:
                raise RunError(f"{self.path}: holds a run of another plan ({old.plan_hash}, not {manifest.plan_hash})")
            self.record = old
        else:
            self.record = manifest
            self.save()

    def save(self) -> None:
        """Writes the manifest: to a temporary file, synced, then renamed."""
        target = self.path / "manifest.json"
        temporary = target.with_suffix(".tmp")
        with temporary.open("wb") as stream:
            stream.write(msgspec.json.format(msgspec.json.encode(self.record), indent=2) + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)

    def append(self, file: str, row: Struct) -> None:
        """Appends one line."""
        stream = self._files.get(file)
        if stream is None:
            path = self.path / file
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            truncate_torn(path)
            stream = self._files[file] = path.open("ab")
        stream.write(msgspec.json.encode(row) + b"\n")

    def flush(self) -> None:
        """Hands what was appended to the operating system and the disk."""
        for stream in self._files.values():
            stream.flush()
            os.fsync(stream.fileno())

    def close(self) -> None:
        """Flushes and lets go of the folder."""
        self.flush()
        for stream in self._files.values():
            stream.close()
        self._files.clear()
        self._lock.close()


def truncate_torn(path: Path) -> int:
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
                stream.truncate(keep)
                return size - keep
            at -= step
        stream.truncate(0)
        return size
