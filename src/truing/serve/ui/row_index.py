"""The index of a run's rows, one SQLite file: what is filtered by, where the texts are, and words.

    arrays      one value a row: outcome, verdict codes of each judge, categories, offsets of texts
    samples     position in the run -> id
    judgements  where the judgements of a row are: file, offset, length
    prompts, answers, reasons       full-text indexes; the texts themselves are not stored

Rows are in the order of the run, by sample and then by answer. The verdicts and outcomes are those
of `truing.analysis`, so that a page shows what the report counts. The file is private, and
stands in the run folder: whoever deletes the run deletes it too.
"""

from __future__ import annotations

import re
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from truing.analysis.outcomes import OUTCOME_NAMES, outcome_arrays
from truing.analysis.rates import verdict_codes
from truing.analysis.verdict_table import (
    ABSENT,
    NO,
    UNSCORED,
    YES,
    VerdictTable,
    read_verdict_table,
)
from truing.core.errors import RunError
from truing.core.types import AnswerIndex
from truing.runs.folder import Run
from truing.runs.parts import read_located_run_records, record_bytes

T = TypeVar("T", bound=Struct)
Codes = NDArray[np.uint8]

FORMAT = 1
"""Part of the file's name: an index of another format is built again."""
MAX_INDEXED_CHARACTERS = 100_000
"""Of each text; a page shows the rest too, but the search does not reach it."""

_BATCH = 2_000
_TOKENS = "content='', tokenize='unicode61 remove_diacritics 2'"
# The rowid is the number of the sample (prompts), of the row (answers), or that in `reason-row`.
_SCHEMA = f"""
create table meta(content blob);
create table arrays(name text primary key, content blob);
create table samples(position integer primary key, id text unique);
create table judgements(row integer, judge integer, start integer, length integer,
  primary key(row, judge, start)) without rowid;
create virtual table prompts using fts5(text, {_TOKENS});
create virtual table answers using fts5(text, {_TOKENS});
create virtual table reasons using fts5(text, {_TOKENS});
"""
# Han, kana, Hangul and Thai are written without spaces: each character is indexed as a word.
_UNSPACED = re.compile("([\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff])")


class IndexedJudge(Struct, frozen=True):
    """The column of a judge and question: its file, why its figures are struck, if they are, and
    the probabilities from which its categories count.
    """

    name: str
    question: str
    file: str
    struck: str = ""
    thresholds: dict[str, float] = {}


class IndexMeta(Struct, frozen=True, kw_only=True):
    """What an index says about itself; `prompt_categories` and `judged_categories` are ids."""

    rows: int
    samples: int
    judges: tuple[IndexedJudge, ...]
    files: tuple[str, ...]
    prompt_categories: tuple[str, ...]
    judged_categories: tuple[str, ...]
    taxonomy: str
    model: str


class IndexStopped(Exception):
    """The building of an index was stopped, because the server ends."""


class _MessageText(Struct, frozen=True):
    role: str = ""
    content: str = ""


class _ConversationText(Struct, frozen=True):
    messages: tuple[_MessageText, ...] = ()


class _SampleText(Struct, frozen=True):
    id: str
    conversation: _ConversationText = _ConversationText()


class _ResponseText(Struct, frozen=True):
    sample_id: str
    index: AnswerIndex = 0
    message: _MessageText = _MessageText()


class _JudgementText(Struct, frozen=True):
    sample_id: str
    index: AnswerIndex = 0
    rationale: str | None = None


def split_words(text: str) -> str:
    """Returns a text as the index reads it: cut, and with spaces between unspaced characters."""
    return _UNSPACED.sub(r" \1 ", text[:MAX_INDEXED_CHARACTERS])


def build_index(run: Run, target: Path, report: Callable[[float], None]) -> None:
    """Writes the index of a run to a new file.

    `report` is called with the share that is done, and may raise `IndexStopped`. Raises RunError
    if a line of the run cannot be read, or the file cannot be written.
    """
    report(0.0)
    table = read_verdict_table(run, ids=True)
    builder = _IndexBuilder(run, table, target, report)
    try:
        builder.build()
    except sqlite3.Error as error:
        raise RunError(f"{target}: the index cannot be written: {error}") from error
    finally:
        builder.close()


class _IndexBuilder:
    """Builds one index; memory is some bytes a row."""

    def __init__(
        self, run: Run, table: VerdictTable, target: Path, report: Callable[[float], None]
    ) -> None:
        self._run, self._table, self._report = run, table, report
        self._files = tuple(dict.fromkeys(c.record.file for c in table.columns.values()))
        names = ["samples.jsonl", "responses.jsonl", *self._files]
        self._bytes = sum(record_bytes(run.path, name) for name in names) or 1
        self._bytes_read = 0
        states = [np.frombuffer(s, np.uint8) for s in table.response_states]
        shape = (len(states), table.size)
        answered = (np.stack(states) if states else np.zeros(shape, np.uint8)) != ABSENT
        # By sample, then by answer.
        self._positions, self._answers = np.nonzero(answered.T)
        self._row_of = np.full(shape, -1, np.int64)
        self._row_of[self._answers, self._positions] = np.arange(len(self._positions))
        self._database = sqlite3.connect(target, isolation_level=None)

    def build(self) -> None:
        """Writes all tables, in one transaction."""
        database = self._database
        for pragma in ("journal_mode=off", "synchronous=off", "cache_size=-32768"):
            database.execute(f"pragma {pragma}")
        database.executescript(_SCHEMA)
        database.execute("begin")
        ids = self._table.ids or []
        # A run that repeats an id is faulty; its first sample of that id is the one that is found.
        database.executemany("insert or ignore into samples values(?, ?)", enumerate(ids))
        self._write_arrays()
        self._index_samples()
        self._index_responses()
        self._index_judgements()
        # Last: an index without it is not complete.
        database.execute("insert into meta values(?)", (msgspec.json.encode(self._meta()),))
        database.execute("commit")
        self._report(1.0)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

    def _meta(self) -> IndexMeta:
        table = self._table
        prompt_categories, judged_categories = self._category_names()
        return IndexMeta(
            rows=len(self._positions),
            samples=table.size,
            judges=tuple(
                IndexedJudge(
                    column.record.name,
                    question,
                    column.record.file,
                    table.struck_reason(column.record) or "",
                    column.thresholds,
                )
                for (_, question), column in table.columns.items()
            ),
            files=self._files,
            prompt_categories=prompt_categories,
            judged_categories=judged_categories,
            taxonomy=table.manifest.taxonomy,
            model=table.manifest.model,
        )

    # -- arrays

    def _store(self, name: str, values: NDArray[np.generic] | array[int]) -> None:
        self._database.execute("insert into arrays values(?, ?)", (name, values.tobytes()))

    def _gather(self, by_answer: Sequence[bytes | bytearray | Codes]) -> Codes:
        """Returns the values of all rows from arrays by answer index over the samples."""
        values = np.zeros(self._row_of.shape, np.uint8)
        for index, of_answer in enumerate(by_answer[: len(values)]):
            values[index] = np.frombuffer(of_answer, np.uint8)
        return values[self._answers, self._positions]

    def _write_arrays(self) -> None:
        table = self._table
        outcomes = self._gather([o.tobytes() for o in outcome_arrays(table)])
        self._store("row-of", self._row_of.astype(np.int32))
        self._store("position", self._positions.astype(np.uint32))
        self._store("answer", self._answers.astype(np.uint16))
        self._store("outcome", outcomes)
        self._store("expect", np.array(table.expect_ids, np.uint8)[self._positions])
        by_question: dict[str, list[Codes]] = {}
        unscored = outcomes == OUTCOME_NAMES.index("unscored")
        for number, ((_, question), column) in enumerate(table.columns.items()):
            codes = self._gather(verdict_codes(table, column))
            self._store(f"judge-{number}", codes)
            by_question.setdefault(question, []).append(codes)
            unscored |= codes == UNSCORED
        disagrees = np.zeros(len(outcomes), bool)
        for columns in by_question.values():
            of_question = np.stack(columns)
            disagrees |= (of_question == YES).any(axis=0) & (of_question == NO).any(axis=0)
        self._store("disagrees", disagrees.astype(np.uint8))
        self._store("unscored", unscored.astype(np.uint8))
        self._write_categories()

    def _category_names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        table = self._table
        prompts = dict.fromkeys(c for names in table.category_sets for c in names)
        judged = dict.fromkeys(
            c for column in table.columns.values() for c in column.predicted_categories
        )
        return tuple(prompts), tuple(judged)

    def _write_categories(self) -> None:
        table = self._table
        prompts, judged = self._category_names()
        set_ids = np.array(table.category_ids, np.uint16)[self._positions]
        for number, category in enumerate(prompts):
            has_it = np.array([category in names for names in table.category_sets], bool)
            self._store(f"prompt-category-{number}", has_it[set_ids].astype(np.uint8))
        for number, category in enumerate(judged):
            marks = np.zeros(len(self._positions), np.uint8)
            for column in table.columns.values():
                marks |= self._gather(column.predicted_categories.get(category, []))
            self._store(f"judged-category-{number}", marks)

    # -- texts

    def _read(self, name: str, kind: type[T]) -> Iterator[tuple[int, int, T]]:
        """Yields the located records of a file, and reports how far the build is."""
        base = self._bytes_read
        for number, (start, length, record) in enumerate(
            read_located_run_records(self._run.path, name, kind)
        ):
            if number % _BATCH == 0:
                self._report(min(0.99, (base + start) / self._bytes))
            yield start, length, record
            self._bytes_read = base + start + length

    def _add_words(self, table: str, texts: Iterable[tuple[int, str]]) -> None:
        self._database.executemany(f"insert into {table}(rowid, text) values(?, ?)", texts)

    def _index_samples(self) -> None:
        starts, lengths = array("Q", bytes(8 * self._table.size)), array("I")
        lengths.frombytes(bytes(4 * self._table.size))

        def read_words() -> Iterator[tuple[int, str]]:
            for position, (start, length, sample) in enumerate(
                self._read("samples.jsonl", _SampleText)
            ):
                if position >= len(starts):  # the run has grown since the table was read
                    return
                starts[position], lengths[position] = start, length
                text = "\n".join(m.content for m in sample.conversation.messages)
                yield position, split_words(text)

        self._add_words("prompts", read_words())
        self._store("sample-start", starts)
        self._store("sample-length", lengths)

    def _row(self, sample_id: str, index: int) -> int:
        """Returns the number of a row, or -1."""
        position = self._table.position_of(sample_id)
        if position is None or index >= len(self._row_of):
            return -1
        return int(self._row_of[index, position])

    def _index_responses(self) -> None:
        n_rows = len(self._positions)
        starts, lengths = np.zeros(n_rows, np.uint64), np.zeros(n_rows, np.uint32)

        def read_words() -> Iterator[tuple[int, str]]:
            for start, length, response in self._read("responses.jsonl", _ResponseText):
                row = self._row(response.sample_id, response.index)
                if row < 0:
                    continue
                is_first = lengths[row] == 0
                starts[row], lengths[row] = start, length  # of a repeated answer the last counts
                if is_first:
                    yield row, split_words(response.message.content)

        self._add_words("answers", read_words())
        self._store("answer-start", starts)
        self._store("answer-length", lengths)

    def _index_judgements(self) -> None:
        reason_rows = array("I")
        for number, name in enumerate(self._files):
            places: list[tuple[int, int, int, int]] = []
            texts: list[tuple[int, str]] = []
            for start, length, judgement in self._read(name, _JudgementText):
                row = self._row(judgement.sample_id, judgement.index)
                if row < 0:
                    continue
                places.append((row, number, start, length))
                if judgement.rationale:
                    texts.append((len(reason_rows), split_words(judgement.rationale)))
                    reason_rows.append(row)
                if len(places) >= _BATCH:
                    self._add_judgements(places, texts)
            self._add_judgements(places, texts)
        self._store("reason-row", reason_rows)

    def _add_judgements(
        self, places: list[tuple[int, int, int, int]], texts: list[tuple[int, str]]
    ) -> None:
        self._database.executemany("insert into judgements values(?, ?, ?, ?)", places)
        self._add_words("reasons", texts)
        places.clear()
        texts.clear()
