"""The state of a run folder as a list shows it: finished, running, stopped, damaged, of another
version; how far it is, and what identifies it. Reads little, and raises nothing for a bad folder.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from truing.core.errors import RunError
from truing.core.input_files import open_input, read_input_bytes
from truing.core.version import __version__
from truing.runs.parts import locate_record_files
from truing.runs.run_files import is_judgement_file, locate_run_file
from truing.runs.write_lock import is_being_written

Status = Literal["finished", "running", "stopped", "damaged", "other version", "gone"]
_MAX_MANIFEST_BYTES = 256 << 20
_MAX_CACHED = 20_000
_CHUNK_BYTES = 1 << 20
_MAX_BYTES_PER_LOOK = 64 << 20


class ListedData(Struct, frozen=True):
    """A data set of a manifest."""

    spec: str = ""
    sha256: str = ""
    n: int = 0


class ListedJudge(Struct, frozen=True):
    """A judge of a manifest, without its lineage, which may be long."""

    name: str
    question: str
    file: str


class ListedManifest(Struct, frozen=True, kw_only=True):
    """The part of a manifest that a list shows."""

    model: str = ""
    data: list[ListedData] = field(default_factory=list)
    judges: list[ListedJudge] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str = ""
    complete: bool = False
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def data_name(self) -> str:
        """The data sets by their specs."""
        return ", ".join(dict.fromkeys(data.spec for data in self.data))

    @property
    def data_key(self) -> tuple[str, ...]:
        """What runs on the same data have in common."""
        return tuple(data.sha256 or data.spec for data in self.data)


class _VersionsOnly(Struct):
    versions: dict[str, Any] = field(default_factory=dict)


class RunState(Struct, frozen=True, kw_only=True):
    """One run of the list: `reason` says why it is damaged or of another version.

    `answers` counts the stored answers, `expected` those that a finished run will have (0: not
    known), `judged` the judgements by file.
    """

    id: str
    path: Path
    name: str
    status: Status
    reason: str = ""
    manifest: ListedManifest = ListedManifest()
    answers: int = 0
    expected: int = 0
    judged: dict[str, int] = {}

    @property
    def version(self) -> str:
        """The version of truing that wrote the run."""
        return self.manifest.versions.get("truing", "")

    @property
    def readable(self) -> bool:
        """Whether its rows can be shown."""
        return self.status in ("finished", "running", "stopped")


class RunStateReader:
    """Reads the states of runs; unchanged files are not read again."""

    def __init__(self) -> None:
        self._manifests: OrderedDict[tuple[object, ...], ListedManifest | tuple[Status, str]] = (
            OrderedDict()
        )
        self._line_counts: OrderedDict[Path, tuple[int, int, int]] = OrderedDict()

    def read(self, id_: str, name: str, folder: Path) -> RunState:
        """Returns the state of the run at a folder."""
        manifest = self._read_manifest(folder)
        if isinstance(manifest, tuple):
            status, reason = manifest
            return RunState(id=id_, path=folder, name=name, status=status, reason=reason)
        status = "finished" if manifest.complete else "stopped"
        if is_being_written(folder):
            status = "running"
        answers, expected, judged = self._count(folder, manifest, status == "running")
        return RunState(
            id=id_,
            path=folder,
            name=name,
            status=status,
            manifest=manifest,
            answers=answers,
            expected=expected,
            judged=judged,
        )

    def _read_manifest(self, folder: Path) -> ListedManifest | tuple[Status, str]:
        try:
            path = locate_run_file(folder, "manifest.json")
            stat = path.stat()
        except FileNotFoundError:
            return "gone", "the folder has been deleted"
        except (OSError, RunError) as error:
            return "damaged", str(error)
        key = (path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if key not in self._manifests:
            self._manifests[key] = _decode_manifest(path)
            if len(self._manifests) > _MAX_CACHED:
                self._manifests.popitem(last=False)
        return self._manifests[key]

    def _count(
        self, folder: Path, manifest: ListedManifest, is_running: bool
    ) -> tuple[int, int, dict[str, int]]:
        """Returns the answers, how many there will be, and the judgements of a running run.

        Nothing is counted of a finished one: its figures say how many answers it has.
        """
        if manifest.complete and not is_running:
            return 0, 0, {}
        answers = self._count_lines(folder, "responses.jsonl")
        samples = self._count_lines(folder, "samples.jsonl")
        n = manifest.plan.get("n")
        expected = samples * (n if isinstance(n, int) and 0 < n <= 10_000 else 1)
        if manifest.plan.get("model") == "recorded":
            expected = answers
        judged = {
            judge.name: self._count_lines(folder, judge.file)
            for judge in manifest.judges[:20]
            if is_judgement_file(judge.file)
        }
        return answers, expected, judged

    def _count_lines(self, folder: Path, name: str) -> int:
        """Returns the number of lines of a run's file, of all parts of a sharded run."""
        try:
            return sum(self._count_file_lines(p) for p in locate_record_files(folder, name))
        except RunError:
            return 0

    def _count_file_lines(self, path: Path) -> int:
        """Returns the number of lines of a file, of which only what is new is read.

        Of a large file only a part is read at a time; the next look goes on.
        """
        try:
            with open_input(path) as stream:
                stat = path.stat()
                inode, offset, count = self._line_counts.pop(path, (stat.st_ino, 0, 0))
                if inode != stat.st_ino or stat.st_size < offset:
                    offset = count = 0
                stream.seek(offset)
                left = _MAX_BYTES_PER_LOOK
                while left > 0 and (chunk := stream.read(min(_CHUNK_BYTES, left))):
                    count += chunk.count(b"\n")
                    offset += len(chunk)
                    left -= len(chunk)
        except OSError:
            return 0
        self._line_counts[path] = (stat.st_ino, offset, count)
        if len(self._line_counts) > _MAX_CACHED:
            self._line_counts.popitem(last=False)
        return count


def _decode_manifest(path: Path) -> ListedManifest | tuple[Status, str]:
    try:
        content = read_input_bytes(path, _MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        return "gone", "the folder has been deleted"
    except OSError as error:
        return "damaged", f"manifest.json: {error.strerror}"
    try:
        return msgspec.json.decode(content, type=ListedManifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = f"manifest.json: {error}"
    try:
        version = msgspec.json.decode(content, type=_VersionsOnly).versions.get("truing")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "damaged", reason
    if isinstance(version, str) and version != __version__:
        return "other version", f"written by truing {version[:40]}, which this one cannot read"
    return "damaged", reason
