"""The run folder: the files of one run, append-only, crash-safe and resumable.

    manifest.json   samples.jsonl   responses.jsonl   judgements/<slug>-<short_hash>.jsonl
    summary.json    report.html     rankings/<ranker>.jsonl
    parents.jsonl   (only in runs with an attack: the samples before the attack)

A line is written completely or not at all; a line that a crash cut off is truncated when the folder
is opened for writing. During a run, lines are in order of arrival; a finished run has them in the
order of its samples. One process writes at a time (an advisory lock on the file `lock`). Folders
and files are private (`truing.core.private_files`). A folder may come from somebody else: see
`truing.runs.run_files`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from truing.core.errors import RunError
from truing.core.input_files import read_input_bytes
from truing.core.lineage import digest
from truing.core.prices import Spending
from truing.core.private_files import (
    create_folder,
    rename_file,
    replace_file,
    replace_file_with,
    sync_path,
    write_error,
)
from truing.core.types import Judgement, Lineage, Response, Sample
from truing.runs.append_only_file import AppendOnlyFile
from truing.runs.damage import LineFault, describe_faults, set_aside_lines
from truing.runs.index import LineSpans
from truing.runs.parts import PARTS_FILE, read_run_records
from truing.runs.run_files import delete_run_file, is_judgement_file, locate_run_file, open_run_file
from truing.runs.write_lock import acquire_write_lock

_log = logging.getLogger(__name__)

_BUFFER_BYTES = 1 << 20
_MAX_SHOWN_DIFFERENCES = 4
_MAX_FAULTS = 20
_MAX_NOTE_CHARS = 2000
# The hashes of a judge's training prompts make up most of a large manifest.
_MAX_MANIFEST_BYTES = 256 << 20


class DataRecord(Struct, frozen=True, kw_only=True):
    """The data set of a run, as it was read."""

    spec: str
    source: str = ""
    licence: str = ""
    sha256: str = ""
    n: int = 0
    skipped: int = 0


class JudgeRecord(Struct, frozen=True, kw_only=True):
    """A judge of a run; its judgements are in `file`, relative to the folder.

    `struck` is the reason why no rate may come from this judge (see `find_judge_conflict`), or
    None. `category_thresholds` are the probabilities from which the judge's own categories count,
    where it brings any; runs of older versions have none.
    """

    name: str
    question: str
    file: str
    lineage: Lineage = Lineage()
    struck: str | None = None
    category_thresholds: dict[str, float] | UnsetType = UNSET


class Manifest(Struct, kw_only=True):
    """Everything needed to repeat a run and to know what was run.

    `plan` holds the settings as plain data; `plan_hash` identifies them, so that a folder is only
    continued with the same settings. `spending` is what the answers cost, of runs with a price or a
    budget.
    """

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
    spending: Spending | UnsetType = UNSET


def judgement_file(name: str, hash_: str) -> str:
    """Returns `judgements/<slug>-<short_hash>.jsonl` for a judge's name and hash."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "judge"
    # The hash comes from the judge, which may be anybody's code or model folder.
    short_hash = re.sub(r"[^A-Za-z0-9]", "", hash_)[:8] or "0" * 8
    return f"judgements/{slug}-{short_hash}.jsonl"


def label_hash(judge: str, question: str) -> str:
    """Returns the hash under which the labels that come with a data set are stored."""
    return digest("people", judge, question)


class Run:
    """A run folder for reading; all iterators hold one line in memory at a time."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.file("manifest.json").exists():
            raise RunError(f"{self.path}: no run folder (no manifest.json)")

    def __repr__(self) -> str:
        try:
            manifest = self.manifest
        except (RunError, OSError):  # a folder that was deleted or damaged still has a name
            return f"<run {self.path}: cannot be read>"
        data_names = ", ".join(dict.fromkeys(d.spec for d in manifest.data))
        state = "" if manifest.complete else ", not complete"
        return f"<run {self.path}: {manifest.model} on {data_names or 'no data'}{state}>"

    def file(self, name: str) -> Path:
        """Returns the path of a file of the run; raises RunError like `locate_run_file`."""
        return locate_run_file(self.path, name)

    @property
    def manifest(self) -> Manifest:
        """The manifest, read from disk at each access."""
        return _read_manifest(self.file("manifest.json"))

    def samples(self) -> Iterator[Sample]:
        """Yields the samples in the order of the data set."""
        return read_run_records(self.path, "samples.jsonl", Sample)

    def responses(self) -> Iterator[Response]:
        """Yields the responses; in the order of the samples if the run is complete."""
        return read_run_records(self.path, "responses.jsonl", Response)

    def judgements(self, judge: str | None = None) -> Iterator[Judgement]:
        """Yields the judgements of one judge (by name) or of all."""
        for record in self.manifest.judges:
            if judge is None or record.name == judge:
                yield from read_run_records(self.path, record.file, Judgement)


def _read_manifest(path: Path) -> Manifest:
    """Reads and checks a manifest, which may come from somebody else."""
    try:
        content = read_input_bytes(path, _MAX_MANIFEST_BYTES)
        manifest = msgspec.json.decode(content, type=Manifest)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RunError(f"{path}: cannot be read as a manifest: {error}") from error
    files = [record.file for record in manifest.judges]
    faults = [
        f"{path}: judges[{index}].file: {file!r:.200} is no file judgements/NAME.jsonl"
        for index, file in enumerate(files)
        if not is_judgement_file(file)
    ]
    # Replacing the judgements of one judge would delete those of the other.
    if not faults and len(set(files)) < len(files):
        faults = [f"{path}: two judges name the same file of judgements"]
    if faults:
        raise RunError(*faults[:_MAX_FAULTS])
    return manifest


class RunWriter(Run):
    """A run folder that is open for writing by this process alone.

    An appended line reaches the operating system at once, so a killed process loses nothing that it
    appended. Against a power failure `sync` waits for the disk; the scheduler calls it about once a
    second (group commit). `is_new` says whether the folder held no run before. `sharded`: the
    folder of a sharded run, whose records are written to its parts.
    """

    def __init__(self, path: str | Path, manifest: Manifest, *, sharded: bool = False) -> None:
        # Not super().__init__, which requires a manifest.
        self.path = Path(path)
        self._files: dict[str, AppendOnlyFile] = {}
        create_folder(self.path)
        create_folder(self.path / "judgements")
        self._lock = acquire_write_lock(self.path)
        try:
            manifest_path = self.file("manifest.json")
            self.is_new = not manifest_path.exists()
            self._check_layout(sharded)
            if self.is_new:
                self._manifest = manifest
                self.save_manifest()
            else:
                self._manifest = _read_manifest(manifest_path)
                if self._manifest.plan_hash != manifest.plan_hash:
                    differences = _describe_differences(self._manifest, manifest)
                    raise RunError(f"{self.path}: holds a run of another plan{differences}")
        except RunError:
            self._lock.close()
            raise

    def _check_layout(self, sharded: bool) -> None:
        """Raises RunError if the folder holds a run of the other layout (`truing.runs.parts`)."""
        is_sharded = self.file(PARTS_FILE).exists()
        if is_sharded and not sharded:
            raise RunError(
                f"{self.path}: is a sharded run; continue it, or judge it, with --on ray"
            )
        if sharded and self.file("samples.jsonl").exists():
            raise RunError(f"{self.path}: is a run of one process; continue it without --on")

    @property
    def manifest(self) -> Manifest:
        """The manifest in memory; changes are written by `save_manifest`."""
        return self._manifest

    def save_manifest(self) -> None:
        """Writes the manifest atomically."""
        encoded = msgspec.json.format(msgspec.json.encode(self._manifest), indent=2)
        self.replace("manifest.json", encoded + b"\n")

    def replace(self, file: str, data: bytes) -> None:
        """Writes a complete file atomically: a reader sees the old or the new content."""
        replace_file(self.file(file), data)

    def open_file(self, file: str) -> AppendOnlyFile:
        """Returns the append-only file of that name; opens it at the first call."""
        if file not in self._files:
            self._files[file] = AppendOnlyFile(self.file(file))
        return self._files[file]

    def append(self, file: str, row: Struct) -> int:
        """Appends one record as a line and returns its offset."""
        return self.open_file(file).append(encode_line(row))

    def rename(self, old: str, new: str) -> None:
        """Syncs and closes a complete file, then renames it."""
        open_file = self._files.pop(old, None)
        if open_file is not None:
            open_file.sync()
            open_file.close()
        target = self.file(new)
        try:
            rename_file(self.file(old), target)
            sync_path(target.parent)
        except OSError as error:
            raise write_error(target, error) from error

    def delete(self, file: str) -> None:
        """Closes and deletes a file of the run; one that does not exist is no error."""
        open_file = self._files.pop(file, None)
        if open_file is not None:
            open_file.close()
        delete_run_file(self.path, file)

    def set_aside(self, file: str, faults: list[LineFault]) -> None:
        """Moves damaged lines of a file to `FILE.damaged`, and notes it in the manifest."""
        open_file = self._files.pop(file, None)
        if open_file is not None:
            open_file.close()
        set_aside_lines(self.path, file, faults)
        self._note_damage(f"{describe_faults(self.path / file, faults)}; kept in {file}.damaged")

    def set_aside_file(self, file: str, reason: str) -> None:
        """Renames a damaged file to `FILE.damaged`, and notes it in the manifest."""
        self.rename(file, f"{file}.damaged")
        self._note_damage(f"{reason}; the file is kept as {file}.damaged")

    def _note_damage(self, text: str) -> None:
        _log.warning("%s", text)
        notes = self._manifest.notes
        # Relative to the folder: a run's manifest does not depend on where it lies.
        text = text.replace(f"{self.path}/", "")
        notes["damaged"] = "; ".join(filter(None, (notes.get("damaged"), text)))[:_MAX_NOTE_CHARS]
        self.save_manifest()

    def rewrite_in_order(self, file: str, spans: LineSpans) -> bool:
        """Sorts a file's lines by key and drops lines without one; returns whether it had to.

        Lines are appended in order of arrival, so that no answer waits in memory for an earlier
        one. After this rewrite a finished run has the same bytes, whatever the order of arrival and
        however often the run was interrupted.
        """
        open_file = self.open_file(file)
        if spans.ordered and sum(spans.lengths) == open_file.size:
            return False
        open_file.sync()
        source = open_run_file(self.path, file)

        def write_lines(path: Path) -> None:
            with path.open("wb", buffering=_BUFFER_BYTES) as stream:
                for start, length in zip(spans.starts, spans.lengths):
                    if length:
                        stream.write(os.pread(source, length, start))
            # The descriptor of the old file would go on appending to a deleted file.
            self._files.pop(file).close()

        try:
            replace_file_with(open_file.path, write_lines)
            sync_path(open_file.path.parent)
        except OSError as error:
            raise write_error(open_file.path, error) from error
        finally:
            os.close(source)
        return True

    def sync(self) -> None:
        """Waits until all appended data is on the disk; may be called from another thread."""
        for open_file in tuple(self._files.values()):
            open_file.sync()

    def discard(self) -> None:
        """Deletes a new folder without answers, for example because the data set is unreadable."""
        for open_file in self._files.values():
            open_file.close()
        self._files.clear()
        for name in ("manifest.json", "lock"):
            (self.path / name).unlink(missing_ok=True)
        for part in self.path.rglob("*.part"):
            part.unlink()
        # rmdir fails, as it should, if the folder holds files of the user.
        for folder in (self.path / "judgements", self.path):
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._lock.close()

    def close(self) -> None:
        """Syncs, closes all files and releases the lock; may be called twice."""
        try:
            self.sync()
        finally:
            for open_file in self._files.values():
                open_file.close()
            self._files.clear()
            self._lock.close()


def _describe_differences(old: Manifest, new: Manifest) -> str:
    """Returns the settings that differ, by name, in parentheses."""
    keys = [k for k in {**old.plan, **new.plan} if old.plan.get(k) != new.plan.get(k)]
    differences = [
        f"{k}: {_shorten(old.plan.get(k))}, not {_shorten(new.plan.get(k))}"
        for k in keys[:_MAX_SHOWN_DIFFERENCES]
    ]
    return (
        f" ({'; '.join(differences)})"
        if differences
        else f" ({old.plan_hash}, not {new.plan_hash})"
    )


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


_encode = msgspec.json.Encoder().encode


def encode_line(row: Struct) -> bytes:
    """Returns a record as one line of JSON; lone surrogates are replaced by `?`."""
    try:
        return _encode(row) + b"\n"
    except UnicodeEncodeError:
        # Rare, so the slow way through Python objects is only taken here.
        return _encode(replace_surrogates(msgspec.to_builtins(row))) + b"\n"


def replace_surrogates(value: Any) -> Any:
    """Returns plain data with lone surrogates, which UTF-8 cannot encode, replaced by `?`."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {replace_surrogates(k): replace_surrogates(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [replace_surrogates(v) for v in value]
    return value
