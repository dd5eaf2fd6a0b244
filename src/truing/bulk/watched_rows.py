"""Watches files for new rows: judges them, draws some for people, and weighs the evidence.

    OUT/settings.json    what is watched, by what judge, and the seed of the audits
    OUT/judged.jsonl     one line for each range of a file that was judged
    OUT/to_label.jsonl   the rows that people are to label
    OUT/labels.jsonl     their labels: {"id": ..., "harmful": true}

A range counts once its line is written, so that a row is judged once whatever is killed when; a
lock keeps a second process out. A row is audited by a hash of its place with a seed that is drawn
once: with exactly the audit rate, and independently of the judge and of other rows.

Judged bytes must stay as they are, in the file of that name: of each range the log holds a hash of
the first and last bytes up to its end, and a file that was written again, grew as a table or was
renamed within the watched folder is an error, not rows that are lost or judged twice.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from truing.bulk.input_shards import InputShard, ShardRows, SourceFile, find_sources, plan_shards
from truing.bulk.row_files import InputRow, RowOptions
from truing.bulk.row_judgements import judge_by_length
from truing.core.errors import DataError, RunError
from truing.core.input_files import open_input
from truing.core.jsonl import read_records
from truing.core.private_files import create_folder, replace_file
from truing.core.protocols import Judge
from truing.runs.append_only_file import AppendOnlyFile
from truing.runs.folder import encode_line
from truing.runs.write_lock import acquire_write_lock
from truing.stats.corrected_alarm import CorrectedRateAlarm

_RANGE_BYTES = 8 << 20
_COMPARED_BYTES = 4096
_MAX_FAULTS = 20


class WatchSettings(Struct, frozen=True, kw_only=True):
    """What is watched and when to raise the alarm (`CorrectedRateAlarm`).

    `options.skip_malformed` may change from one call to the next.
    """

    source: str
    judge: str
    judge_hash: str
    options: RowOptions
    tolerated: float
    false_alarm: float
    audit_rate: float
    restarts: bool
    seed: str = ""


class JudgedRange(Struct, frozen=True, kw_only=True):
    """The rows of a range of a file: the judge's verdicts, and the ids of the audited ones.

    - `size`, `content`: the bytes of the file up to the end of the range, and a hash of the first
      and last of them
    - `inode`: of the file, which it keeps when it is renamed
    - `skipped`, `faults`: number of malformed rows that were left out, and the first of them
    """

    path: str
    start: int
    end: int
    size: int
    content: str
    inode: int
    verdicts: tuple[bool | None, ...]
    audits: dict[str, int] = {}
    skipped: int = 0
    faults: tuple[str, ...] = ()


class RowToLabel(Struct, frozen=True, kw_only=True):
    """A row that people are to label, with all its fields."""

    id: str
    path: str
    row: dict[str, Any]


class _DrawnId(Struct, frozen=True):
    """The id of a `RowToLabel`."""

    id: str


class RowLabel(Struct, frozen=True):
    """A label by people; None (could not tell) counts as harmful: never as safe."""

    id: str
    harmful: bool | None


class WatchState(Struct, frozen=True, kw_only=True):
    """Counts of the rows so far, and the evidence that their harm rate exceeds the tolerated one.

    `waiting` rows come after the first audited row without a label: they are no evidence yet, since
    people who choose what to label first would otherwise choose the evidence. The alarm is raised
    when `log_evidence` reaches `needed_log_evidence`. `skipped` malformed rows are in no other
    count; `unknown_labels` have an id that no row was drawn with.
    """

    rows: int
    flagged: int
    unscored: int
    skipped: int
    audited: int
    labelled: int
    waiting: int
    corrected_rate: float | None
    log_evidence: float
    needed_log_evidence: float
    raised_at: int | None
    unknown_labels: int


class Watcher:
    """Judges what is new in the watched files.

    Raises RunError for a folder of another watch, or one that another process writes to, DataError
    for a folder within the watched one.
    """

    def __init__(self, settings: WatchSettings, judge: Judge, out: Path) -> None:
        if Path(settings.source).is_dir():
            _check_outside(settings.source, Path(settings.source), out)
        self.out, self._judge = out, judge
        create_folder(out)
        self._lock = acquire_write_lock(out)
        try:
            self.settings = _keep_settings(settings, out)
            self._options = settings.options
            self._log = AppendOnlyFile(out / "judged.jsonl")
            self._to_label = AppendOnlyFile(out / "to_label.jsonl")
            self._last = {judged.path: judged for judged in _read_ranges(out)}
            # A process that was killed may have drawn rows of a range that it did not finish.
            drawn = read_records(out / "to_label.jsonl", _DrawnId)
            self._drawn = {row.id for row in drawn}
        except BaseException:
            self._lock.close()
            raise

    async def judge_new_rows(self) -> int:
        """Judges the rows that were added since the last call; returns their number.

        Of files of JSON lines the complete new lines are read, of others new files as a whole.
        Raises DataError, after all other files, for malformed rows and for files whose judged part
        has changed.
        """
        n_rows = 0
        faults: list[str] = []
        for source in find_sources(self.settings.source, self.settings.options):
            try:
                _check_outside(source.path, self.out, Path(source.path))
                for shard in self._new_ranges(source):
                    n_rows += await self._judge_range(shard)
            except DataError as error:
                faults += error.faults
        self._log.sync()
        if faults:
            raise DataError(*faults[:_MAX_FAULTS])
        return n_rows

    def _new_ranges(self, source: SourceFile) -> Iterator[InputShard]:
        last = self._last.get(source.path)
        if last is None:
            self._check_not_renamed(source)
        else:
            self._check_unchanged(source, last)
        if source.format != "jsonl":
            if last is None and source.size:
                yield from plan_shards([source], self._options, 1 << 62)
            return
        start = last.end if last is not None else 0
        while (end := _last_line_end(source.path, start)) > start:
            yield InputShard(number=0, path=source.path, format="jsonl", start=start, end=end)
            start = end

    def _check_unchanged(self, source: SourceFile, last: JudgedRange) -> None:
        if source.size < last.size:
            raise DataError(
                f"{source.path}: has {source.size:,} bytes, and {last.size:,} were judged; it was "
                "cut short or written again"
            )
        if source.format != "jsonl" and source.size > last.size:
            raise DataError(
                f"{source.path}: has {source.size:,} bytes, and {last.size:,} were judged; tables "
                "must be complete when they appear: write them elsewhere, and rename them into "
                "place"
            )
        if _hash_content(source.path, last.size) != last.content:
            raise DataError(
                f"{source.path}: does not begin with the bytes that were judged; it was written "
                "again, or another file has its name"
            )

    def _check_not_renamed(self, source: SourceFile) -> None:
        """Raises DataError if a new file begins with what was judged of another one."""
        inode = Path(source.path).stat().st_ino
        for last in self._last.values():
            # Short logs may begin alike; the same file has the same number.
            is_comparable = last.size >= _COMPARED_BYTES or inode == last.inode
            if not is_comparable or last.size > source.size:
                continue
            if _hash_content(source.path, last.size) == last.content:
                raise DataError(
                    f"{source.path}: holds what was judged as {last.path}; files must not be "
                    "renamed or copied within the watched folder"
                )

    def _read_rows(self, shard: InputShard) -> tuple[list[InputRow], list[str]]:
        """Returns the rows of a range, and the faults of those that are skipped."""
        rows: list[InputRow] = []
        faults: list[str] = []
        for row in ShardRows(shard, self._options, []):
            if isinstance(row, InputRow):
                rows.append(row)
            elif self._options.skip_malformed:
                faults.append(str(row))
            else:
                raise row
        return rows, faults

    async def _judge_range(self, shard: InputShard) -> int:
        file = Path(shard.path).stat()
        # The range of a Parquet file is one of row groups.
        size = file.st_size if shard.format == "parquet" else shard.end
        content = _hash_content(shard.path, size)
        rows, faults = self._read_rows(shard)
        judgements = await judge_by_length(self._judge, rows)
        audits = {}
        for position, row in enumerate(rows):
            id_ = self._audit_id(shard, position)
            if int(id_[:16], 16) < self.settings.audit_rate * 2**64:
                audits[id_] = position
                if id_ not in self._drawn:
                    to_label = RowToLabel(id=id_, path=shard.path, row=row.fields)
                    self._to_label.append(encode_line(to_label))
                    self._drawn.add(id_)
        self._to_label.sync()
        judged = JudgedRange(
            path=shard.path,
            start=shard.start,
            end=shard.end,
            size=size,
            content=content,
            inode=file.st_ino,
            verdicts=tuple(judgement.verdict for judgement in judgements),
            audits=audits,
            skipped=len(faults),
            faults=tuple(faults[:_MAX_FAULTS]),
        )
        # Last: from here on the range is judged.
        self._log.append(encode_line(judged))
        self._last[shard.path] = judged
        return len(rows)

    def _audit_id(self, shard: InputShard, position: int) -> str:
        place = f"{self.settings.seed}\0{shard.path}\0{shard.start}\0{position}"
        return hashlib.blake2b(place.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def state(self) -> WatchState:
        """Returns the counts and the evidence of all rows so far; reads the log and the labels."""
        settings = self.settings
        alarm = CorrectedRateAlarm(
            settings.tolerated,
            false_alarm=settings.false_alarm,
            audit_rate=settings.audit_rate,
            restarts=settings.restarts,
        )
        labels = {
            label.id: label.harmful for label in read_records(self.out / "labels.jsonl", RowLabel)
        }
        rows = flagged = unscored = skipped = audited = labelled = 0
        is_waiting = False
        for judged in _read_ranges(self.out):
            rows += len(judged.verdicts)
            flagged += sum(verdict is True for verdict in judged.verdicts)
            unscored += sum(verdict is None for verdict in judged.verdicts)
            skipped += judged.skipped
            audited += len(judged.audits)
            labelled += sum(id_ in labels for id_ in judged.audits)
            if not is_waiting:
                is_waiting = self._weigh(alarm, judged, labels)
        return WatchState(
            rows=rows,
            flagged=flagged,
            unscored=unscored,
            skipped=skipped,
            audited=audited,
            labelled=labelled,
            waiting=rows - alarm.rows,
            # Without a label it is the judge's rate, of the few rows before the first audit.
            corrected_rate=alarm.corrected_rate if alarm.labels else None,
            log_evidence=alarm.log_evidence,
            needed_log_evidence=-math.log(settings.false_alarm),
            raised_at=alarm.raised_at,
            unknown_labels=len(labels) - labelled,
        )

    def _weigh(
        self, alarm: CorrectedRateAlarm, judged: JudgedRange, labels: dict[str, bool | None]
    ) -> bool:
        """Adds the rows up to the first audited one without a label; returns if there is one."""
        id_of = {position: id_ for id_, position in judged.audits.items()}
        for position, verdict in enumerate(judged.verdicts):
            label = None
            if position in id_of:
                if id_of[position] not in labels:
                    return True
                label = 0.0 if labels[id_of[position]] is False else 1.0
            # Whatever is predicted for an unscored row, the mean of Z is that of the labels.
            prediction = self.settings.tolerated if verdict is None else float(verdict)
            alarm.observe([prediction], [label])
        return False

    def close(self) -> None:
        """Closes the files; may be called twice."""
        self._log.close()
        self._to_label.close()
        self._lock.close()


def _keep_settings(settings: WatchSettings, folder: Path) -> WatchSettings:
    """Stores the settings with a new seed, or returns the stored ones if they are the same."""
    path = folder / "settings.json"
    options = msgspec.structs.replace(settings.options, skip_malformed=False)
    settings = msgspec.structs.replace(settings, options=options)
    if not path.exists():
        settings = msgspec.structs.replace(settings, seed=secrets.token_hex(16))
        replace_file(path, msgspec.json.encode(settings))
        return settings
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=WatchSettings)
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
        raise RunError(f"{path}: {error}") from error
    settings = msgspec.structs.replace(settings, seed=stored.seed)
    changed_settings = [
        name
        for name in settings.__struct_fields__
        if getattr(settings, name) != getattr(stored, name)
    ]
    if changed_settings:
        names = ", ".join(name.replace("_", " ") for name in changed_settings)
        raise RunError(f"{folder}: watches with other settings ({names}); give another --out")
    return stored


def _check_outside(named: str, folder: Path, path: Path) -> None:
    """Raises DataError if a path lies in a folder: a watch would judge what it writes."""
    if path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{named}: --out lies in what is watched; give a folder outside of it")


def _read_ranges(out: Path) -> Iterator[JudgedRange]:
    """Yields the ranges that were judged; raises RunError if two of a file do not follow on."""
    ends: dict[str, int] = {}
    for judged in read_records(out / "judged.jsonl", JudgedRange):
        if judged.start != ends.get(judged.path, judged.start):
            raise RunError(
                f"{out / 'judged.jsonl'}: {judged.path} was judged to {ends[judged.path]:,}, and "
                f"then from {judged.start:,}; rows are missing or counted twice: begin with "
                "another --out"
            )
        ends[judged.path] = judged.end
        yield judged


def _hash_content(path: str, size: int) -> str:
    """Returns a hash of the first and the last bytes of a file's first `size` bytes."""
    with open_input(path) as stream:
        content = stream.read(min(size, _COMPARED_BYTES))
        stream.seek(max(0, size - _COMPARED_BYTES))
        content += stream.read(min(size, _COMPARED_BYTES))
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _last_line_end(path: str, start: int) -> int:
    """Returns where the last complete line of the next range ends; `start` if there is none."""
    with open_input(path) as stream:
        position = stream.seek(start)
        while data := stream.read(_RANGE_BYTES):
            if length := data.rfind(b"\n") + 1:
                return position + length
            position += len(data)
    return start


def format_metrics(state: WatchState, settings: WatchSettings) -> str:
    """Returns the state as metrics in the text format of Prometheus."""
    judge = settings.judge.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    metrics: list[tuple[str, str, str, float]] = [
        ("rows_total", "counter", "Rows judged.", state.rows),
        ("flagged_total", "counter", "Rows that the judge flagged.", state.flagged),
        ("unscored_total", "counter", "Rows without a verdict.", state.unscored),
        ("skipped_total", "counter", "Malformed rows that were left out.", state.skipped),
        ("audited_total", "counter", "Rows drawn for people.", state.audited),
        ("labelled_total", "counter", "Audited rows with a label.", state.labelled),
        ("waiting_rows", "gauge", "Rows after the first audit without a label.", state.waiting),
        ("log_evidence", "gauge", "Log of the evidence for the alarm.", state.log_evidence),
        (
            "needed_log_evidence",
            "gauge",
            "Log of the evidence that raises the alarm.",
            state.needed_log_evidence,
        ),
        ("alarm", "gauge", "1 once the alarm is raised.", float(state.raised_at is not None)),
    ]
    if state.corrected_rate is not None:
        help_line = "Harm rate corrected by labels."
        metrics.append(("corrected_rate", "gauge", help_line, state.corrected_rate))
    lines = []
    for name, kind, help_text, value in metrics:
        full = f"truing_watch_{name}"
        lines += [f"# HELP {full} {help_text}", f"# TYPE {full} {kind}"]
        lines.append(f'{full}{{judge="{judge}"}} {value:.10g}')
    return "\n".join(lines) + "\n"
