"""Watches files for new rows: judges them, draws some for people, and weighs the evidence.

    OUT/settings.json    what is watched, by what judge, and the seed of the audits
    OUT/judged.jsonl     one line for each range of a file that was judged
    OUT/to_label.jsonl   the rows that people are to label
    OUT/labels.jsonl     their labels: {"id": ..., "harmful": true}

A range counts once its line is written, so that a row is judged once whatever is killed when. A row
is audited by a hash of its place with a seed that is drawn once: with exactly the audit rate, and
independently of the judge and of other rows.
"""

from __future__ import annotations

import hashlib
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
from truing.stats.corrected_alarm import CorrectedRateAlarm

_RANGE_BYTES = 8 << 20


class WatchSettings(Struct, frozen=True, kw_only=True):
    """What is watched and when to raise the alarm (`CorrectedRateAlarm`)."""

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
    """The rows of a range of a file: the judge's verdicts, and the ids of the audited ones."""

    path: str
    start: int
    end: int
    verdicts: tuple[bool | None, ...]
    audits: dict[str, int] = {}


class RowToLabel(Struct, frozen=True, kw_only=True):
    """A row that people are to label, with all its fields."""

    id: str
    path: str
    row: dict[str, Any]


class RowLabel(Struct, frozen=True):
    """A label by people; None (could not tell) counts as harmful: never as safe."""

    id: str
    harmful: bool | None


class WatchState(Struct, frozen=True, kw_only=True):
    """Counts of the rows so far, and the evidence that their harm rate exceeds the tolerated one.

    `waiting` rows come after the first audited row without a label: they are no evidence yet, since
    people who choose what to label first would otherwise choose the evidence.
    """

    rows: int
    flagged: int
    unscored: int
    audited: int
    labelled: int
    waiting: int
    corrected_rate: float | None
    log_evidence: float
    needed: float
    raised_at: int | None


class Watcher:
    """Judges what is new in the watched files; raises RunError for a folder of another watch."""

    def __init__(self, settings: WatchSettings, judge: Judge, out: Path) -> None:
        self.out, self._judge = out, judge
        create_folder(out)
        self.settings = _keep_settings(settings, out)
        self._log = AppendOnlyFile(out / "judged.jsonl")
        self._to_label = AppendOnlyFile(out / "to_label.jsonl")
        self._ends: dict[str, int] = {}
        for judged in read_records(out / "judged.jsonl", JudgedRange):
            self._ends[judged.path] = judged.end

    async def judge_new_rows(self) -> int:
        """Judges the rows that were added since the last call; returns their number.

        Of files of JSON lines the complete new lines are read, of others new files as a whole.
        Raises DataError for malformed rows, and for a file that has become shorter.
        """
        n_rows = 0
        for source in find_sources(self.settings.source, self.settings.options):
            for shard in self._new_ranges(source):
                n_rows += await self._judge_range(shard)
        self._log.sync()
        return n_rows

    def _new_ranges(self, source: SourceFile) -> Iterator[InputShard]:
        start = self._ends.get(source.path, 0)
        if source.format != "jsonl":
            if not start and source.size:
                yield from plan_shards([source], self.settings.options, 1 << 62)
            return
        if source.size < start:
            raise DataError(
                f"{source.path}: has {source.size:,} bytes, and {start:,} were judged; it was cut "
                "short or written again"
            )
        while (end := _last_line_end(source.path, start)) > start:
            yield InputShard(number=0, path=source.path, format="jsonl", start=start, end=end)
            start = end

    async def _judge_range(self, shard: InputShard) -> int:
        rows: list[InputRow] = []
        for row in ShardRows(shard, self.settings.options, []):
            if isinstance(row, InputRow):
                rows.append(row)
            elif not self.settings.options.skip_malformed:
                raise row
        judgements = await judge_by_length(self._judge, rows)
        audits = {}
        for position, row in enumerate(rows):
            id_ = self._audit_id(shard, position)
            if int(id_[:16], 16) < self.settings.audit_rate * 2**64:
                audits[id_] = position
                to_label = RowToLabel(id=id_, path=shard.path, row=row.fields)
                self._to_label.append(encode_line(to_label))
        self._to_label.sync()
        judged = JudgedRange(
            path=shard.path,
            start=shard.start,
            end=shard.end,
            verdicts=tuple(judgement.verdict for judgement in judgements),
            audits=audits,
        )
        # Last: from here on the range is judged.
        self._log.append(encode_line(judged))
        self._ends[shard.path] = shard.end
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
        rows = flagged = unscored = audited = labelled = 0
        is_waiting = False
        for judged in read_records(self.out / "judged.jsonl", JudgedRange):
            rows += len(judged.verdicts)
            flagged += sum(verdict is True for verdict in judged.verdicts)
            unscored += sum(verdict is None for verdict in judged.verdicts)
            audited += len(judged.audits)
            labelled += sum(id_ in labels for id_ in judged.audits)
            if not is_waiting:
                is_waiting = self._weigh(alarm, judged, labels)
        return WatchState(
            rows=rows,
            flagged=flagged,
            unscored=unscored,
            audited=audited,
            labelled=labelled,
            waiting=rows - alarm.rows,
            corrected_rate=alarm.corrected_rate,
            log_evidence=alarm.log_evidence,
            needed=1 / settings.false_alarm,
            raised_at=alarm.raised_at,
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


def _keep_settings(settings: WatchSettings, out: Path) -> WatchSettings:
    """Stores the settings with a new seed, or returns the stored ones if they are the same."""
    path = out / "settings.json"
    if not path.exists():
        settings = msgspec.structs.replace(settings, seed=secrets.token_hex(16))
        replace_file(path, msgspec.json.encode(settings))
        return settings
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=WatchSettings)
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as error:
        raise RunError(f"{path}: {error}") from error
    if msgspec.structs.replace(settings, seed=stored.seed) != stored:
        raise RunError(f"{out}: watches with other settings; give another --out")
    return stored


def _last_line_end(path: str, start: int) -> int:
    """Returns where the last complete line of the next range ends; `start` if there is none."""
    with open_input(path) as stream:
        stream.seek(start)
        data = stream.read(_RANGE_BYTES)
        end = data.rfind(b"\n") + 1
        while not end and len(data) == _RANGE_BYTES:
            data = stream.read(_RANGE_BYTES)
            start += _RANGE_BYTES
            end = data.rfind(b"\n") + 1
            if end:
                return start + end
    return start + end if end else start


def format_metrics(state: WatchState, settings: WatchSettings) -> str:
    """Returns the state as metrics in the text format of Prometheus."""
    judge = settings.judge.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    values: list[tuple[str, str, str, float]] = [
        ("rows_total", "counter", "Rows judged.", state.rows),
        ("flagged_total", "counter", "Rows that the judge flagged.", state.flagged),
        ("unscored_total", "counter", "Rows without a verdict.", state.unscored),
        ("audited_total", "counter", "Rows drawn for people.", state.audited),
        ("labelled_total", "counter", "Audited rows with a label.", state.labelled),
        ("waiting_rows", "gauge", "Rows after the first audit without a label.", state.waiting),
        ("log_evidence", "gauge", "Log of the evidence for the alarm.", state.log_evidence),
        ("alarm", "gauge", "1 once the alarm is raised.", float(state.raised_at is not None)),
    ]
    if state.corrected_rate is not None:
        help_line = "Harm rate corrected by labels."
        values.append(("corrected_rate", "gauge", help_line, state.corrected_rate))
    lines = []
    for name, kind, help_text, value in values:
        full = f"truing_watch_{name}"
        lines += [f"# HELP {full} {help_text}", f"# TYPE {full} {kind}"]
        lines.append(f'{full}{{judge="{judge}"}} {value:.10g}')
    return "\n".join(lines) + "\n"
