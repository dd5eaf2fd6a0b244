"""Reads the index of a run: which rows a filter selects, and what is in the row's records."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from truing.analysis.outcomes import OUTCOME_NAMES
from truing.analysis.verdict_table import EXPECTS, NO, UNSCORED, YES
from truing.core.errors import RunError, UserError
from truing.core.types import Judgement, Response, Sample
from truing.runs.folder import Run
from truing.runs.parts import RecordReader
from truing.serve.ui.row_index import IndexMeta, split_words

T = TypeVar("T")
Mask = NDArray[np.bool_]
Codes = NDArray[np.uint8]

MAX_RECORD_BYTES = 8 << 20
"""Of a longer line of the run the page says that it is too long to be shown."""
MAX_SEARCH_SECONDS = 4.0
_STEPS_BETWEEN_CHECKS = 20_000
_MAX_SEARCH_TERMS = 8
_MAX_CACHED_SEARCHES = 32
_TERM = re.compile(r'"([^"]+)"|(\S+)')
_VERDICT_CODES = {"yes": YES, "no": NO, "unscored": UNSCORED}


class RunChanged(Exception):
    """The files of a run are no longer those that were indexed."""


class RowFilter(Struct, frozen=True, kw_only=True):
    """Which rows to show; an empty field selects all.

    `category` is one of the prompt or one that a judge assigned; `judge` the number of a judge,
    with `verdict` yes, no or unscored; `words` all have to occur in a prompt, an answer or a
    judge's reason. `flips` are rows whose outcome differs between the runs shown.
    """

    outcome: str = ""
    category: str = ""
    judge: int | None = None
    verdict: str = ""
    disagrees: bool = False
    unscored: bool = False
    flips: bool = False
    words: str = ""


class RowRecords(Struct, kw_only=True):
    """The records of one row; None where a line is too long to be shown."""

    sample: Sample | None
    response: Response | None
    judgements: list[Judgement]


class RowIndex:
    """An open index, for several threads. Raises sqlite3.Error or ValueError if it is not whole."""

    def __init__(self, run: Run, path: Path) -> None:
        self.run, self.path = run, path
        address = f"file:{quote(str(path))}?mode=ro&immutable=1"
        self._database = sqlite3.connect(address, uri=True, check_same_thread=False)
        self._lock = threading.Lock()
        self._searches: OrderedDict[str, Mask] = OrderedDict()
        try:
            for pragma in ("trusted_schema=off", "cache_size=-16384", "mmap_size=268435456"):
                self._database.execute(f"pragma {pragma}")
            (meta,) = self._database.execute("select content from meta").fetchone() or (b"",)
            self.meta = msgspec.json.decode(meta, type=IndexMeta)
            self._arrays: dict[str, bytes] = dict(
                self._database.execute("select name, content from arrays")
            )
            self.position = self._array("position", np.uint32)
            self.answer = self._array("answer", np.uint16)
            self.outcome: Codes = self._array("outcome", np.uint8)
            self.expect: Codes = self._array("expect", np.uint8)
            answers = self._array("row-of", np.int32)
            self._row_of = answers.reshape(-1, max(1, self.meta.samples))
            if not len(self.position) == len(self.outcome) == self.meta.rows:
                raise ValueError("the index is not whole")
        except BaseException:
            self._database.close()
            raise

    def __del__(self) -> None:
        # Not by whoever replaces an index: a request may still be reading it.
        if hasattr(self, "_database"):
            self._database.close()

    def _array(self, name: str, kind: Any) -> NDArray[Any]:
        return np.frombuffer(self._arrays[name], kind)

    @property
    def size(self) -> int:
        """The number of rows."""
        return self.meta.rows

    # -- rows

    def find(self, sample_id: str, answer: int) -> int | None:
        """Returns the number of a row, or None."""
        with self._lock:
            place = self._database.execute(
                "select position from samples where id = ?", (sample_id,)
            ).fetchone()
        if place is None or not 0 <= answer < len(self._row_of):
            return None
        row = int(self._row_of[answer, place[0]])
        return row if row >= 0 else None

    def key_of(self, row: int) -> tuple[str, int]:
        """Returns the id of a row's sample and the number of its answer."""
        with self._lock:
            (sample_id,) = self._database.execute(
                "select id from samples where position = ?", (int(self.position[row]),)
            ).fetchone()
        return str(sample_id), int(self.answer[row])

    def _sample_ids(self) -> list[str]:
        with self._lock:
            rows = self._database.execute("select id from samples order by position").fetchall()
        return [sample_id for (sample_id,) in rows]

    def align(self, other: RowIndex) -> NDArray[np.int32]:
        """Returns for each row the number of the same sample and answer in another run, or -1."""
        other_positions = {id_: position for position, id_ in enumerate(other._sample_ids())}
        positions = np.array([other_positions.get(id_, -1) for id_ in self._sample_ids()], np.int64)
        numbers = np.full(self.size, -1, np.int32)
        of_rows = positions[self.position] if len(positions) else np.zeros(0, np.int64)
        is_shared = (of_rows >= 0) & (self.answer < len(other._row_of))
        numbers[is_shared] = other._row_of[self.answer[is_shared], of_rows[is_shared]]
        return numbers

    def outcome_name(self, row: int) -> str:
        """Returns the outcome of a row."""
        return OUTCOME_NAMES[int(self.outcome[row])]

    def expect_name(self, row: int) -> str:
        """Returns what a good answer to the row's prompt is expected to do."""
        return EXPECTS[int(self.expect[row])]

    def judge_codes(self, judge: int) -> Codes:
        """Returns the verdict codes of a judge of `meta.judges`."""
        return self._array(f"judge-{judge}", np.uint8)

    def categories(self, row: int) -> tuple[str, ...]:
        """Returns the categories of the row's prompt."""
        return tuple(
            category
            for number, category in enumerate(self.meta.prompt_categories)
            if self._array(f"prompt-category-{number}", np.uint8)[row]
        )

    # -- filters

    def select(self, row_filter: RowFilter, flips: Mask | None = None) -> Mask:
        """Returns which rows a filter selects; `flips` are the rows that differ between runs."""
        mask = np.ones(self.size, bool)
        if row_filter.outcome in OUTCOME_NAMES:
            mask &= self.outcome == OUTCOME_NAMES.index(row_filter.outcome)
        if row_filter.category:
            mask &= self._category_mask(row_filter.category)
        if row_filter.judge is not None and 0 <= row_filter.judge < len(self.meta.judges):
            code = _VERDICT_CODES.get(row_filter.verdict)
            codes = self.judge_codes(row_filter.judge)
            mask &= (codes == code) if code is not None else np.isin(codes, [YES, NO, UNSCORED])
        if row_filter.disagrees:
            mask &= self._array("disagrees", np.uint8) > 0
        if row_filter.unscored:
            mask &= self._array("unscored", np.uint8) > 0
        if row_filter.flips:
            mask &= flips if flips is not None else np.zeros(self.size, bool)
        return mask

    def _category_mask(self, category: str) -> Mask:
        mask = np.zeros(self.size, bool)
        for prefix, names in (
            ("prompt-category", self.meta.prompt_categories),
            ("judged-category", self.meta.judged_categories),
        ):
            if category in names:
                mask |= self._array(f"{prefix}-{names.index(category)}", np.uint8) > 0
        return mask

    def count_outcomes(self, mask: Mask) -> dict[str, int]:
        """Returns outcome -> number of selected rows, without those that do not occur."""
        counts = np.bincount(self.outcome[mask], minlength=len(OUTCOME_NAMES))
        return {name: int(n) for name, n in zip(OUTCOME_NAMES, counts) if n}

    def search(self, words: str) -> list[Mask]:
        """Returns for each word or "quoted phrase" the rows in whose texts it occurs.

        A term that ends in `*` stands for all words that begin so. Raises UserError if the search
        takes longer than `MAX_SEARCH_SECONDS`.
        """
        terms = [phrase or word for phrase, word in _TERM.findall(words)][:_MAX_SEARCH_TERMS]
        return [self._search_term(term) for term in terms]

    def _search_term(self, term: str) -> Mask:
        with self._lock:
            cached = self._searches.get(term)
            if cached is not None:
                return cached
            deadline = time.monotonic() + MAX_SEARCH_SECONDS
            # A beginning that thousands of words share has the rows of all of them merged.
            self._database.set_progress_handler(
                lambda: time.monotonic() > deadline, _STEPS_BETWEEN_CHECKS
            )
            try:
                mask = self._find_term(term)
            except sqlite3.OperationalError as error:
                raise UserError(
                    f"The search took more than {MAX_SEARCH_SECONDS:g} s; give more letters."
                ) from error
            finally:
                self._database.set_progress_handler(None, 0)
            self._searches[term] = mask
            if len(self._searches) > _MAX_CACHED_SEARCHES:
                self._searches.popitem(last=False)
            return mask

    def _find_term(self, term: str) -> Mask:
        mask = np.zeros(self.size, bool)
        # A phrase of plain words: nothing of it is query syntax.
        tokens = re.sub(r"[^\w\s]", " ", split_words(term)).split()
        if not tokens:
            return mask
        query = '"' + " ".join(tokens) + '"' + ("*" if term.endswith("*") else "")

        def row_ids(table: str) -> NDArray[np.int64]:
            cursor = self._database.execute(
                f"select rowid from {table} where {table} match ?", (query,)
            )
            return np.fromiter((row for (row,) in cursor), np.int64)

        samples = np.zeros(self.meta.samples, bool)
        samples[row_ids("prompts")] = True
        mask |= samples[self.position]
        mask[row_ids("answers")] = True
        mask[self._array("reason-row", np.uint32)[row_ids("reasons")]] = True
        return mask

    # -- records

    def read_rows(self, rows: Sequence[int]) -> list[RowRecords]:
        """Returns the records of some rows, read from the run's files.

        Raises RunChanged if the files are not those that were indexed, or are gone; RunError with
        file and line for a line that is whole, but no record.
        """
        files = _RunFiles(self.run)
        try:
            return [self._read_row(files, row) for row in rows]
        except OSError as error:
            raise RunChanged from error
        finally:
            files.close()

    def _read_row(self, files: _RunFiles, row: int) -> RowRecords:
        position = self.position[row]
        sample = files.read(
            "samples.jsonl",
            self._array("sample-start", np.uint64)[position],
            self._array("sample-length", np.uint32)[position],
            Sample,
        )
        response = files.read(
            "responses.jsonl",
            self._array("answer-start", np.uint64)[row],
            self._array("answer-length", np.uint32)[row],
            Response,
        )
        if sample is not None and response is not None and sample.id != response.sample_id:
            raise RunChanged
        with self._lock:
            places = self._database.execute(
                "select judge, start, length from judgements where row = ? order by judge, start"
                " limit 200",
                (row,),
            ).fetchall()
        judgements = [
            judgement
            for number, start, length in places
            if (judgement := files.read(self.meta.files[number], start, length, Judgement))
        ]
        if sample is not None and any(j.sample_id != sample.id for j in judgements):
            raise RunChanged
        return RowRecords(sample=sample, response=response, judgements=judgements)


class _RunFiles:
    """The files of a run while a page is read, each opened once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._readers: dict[str, RecordReader] = {}

    def read(self, name: str, start: Any, length: Any, kind: type[T]) -> T | None:
        """Returns the record of a line; None if it is too long. Raises OSError or RunChanged."""
        if length > MAX_RECORD_BYTES:
            return None
        begin = int(start)
        try:
            if name not in self._readers:
                self._readers[name] = RecordReader(self._run.path, name)
            reader = self._readers[name]
            line = reader.read(int(length), begin)
            before = reader.read(1, begin - 1) if begin else b"\n"
        except RunError as error:
            raise RunChanged from error
        if before != b"\n" or line.find(b"\n") != len(line) - 1:
            raise RunChanged
        try:
            return msgspec.json.decode(line, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            # The index, which reads a part of each line, has taken it; to index again helps nobody.
            number = _count_lines(reader, begin) + 1
            reason = str(error) if isinstance(error, msgspec.ValidationError) else "no such record"
            raise RunError(f"{self._run.path / name}:{number}: {reason}") from error

    def close(self) -> None:
        """Closes the files."""
        for reader in self._readers.values():
            reader.close()


def _count_lines(reader: RecordReader, end: int) -> int:
    """Returns how many lines of a file end before a position."""
    lines = position = 0
    while position < end and (part := reader.read(min(1 << 20, end - position), position)):
        lines += part.count(b"\n")
        position += len(part)
    return lines
