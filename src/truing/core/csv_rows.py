"""Reads the rows of CSV and TSV text as spreadsheets and logs write it: with a byte-order mark, in
UTF-16, with semicolons or tabs, with line breaks inside of quotes.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from truing.core.bounds import MAX_ROW_BYTES
from truing.core.errors import DataError

_CHUNK_BYTES = 1 << 20
_QUOTED = re.compile(r'"[^"]*"?')
_EXCEL_SEPARATOR = re.compile(r"sep=([,;\t])\r?\n?", re.IGNORECASE)

NumberedLine = tuple[int, str | DataError]


class UnreadableRest(DataError):
    """What follows a place in a file cannot be read, so that its rows are lost as well."""


def decode_lines(stream: IO[bytes], path: Path) -> Iterator[NumberedLine]:
    """Yields the number (from 1) and the text of each line; a DataError for a broken one.

    The text is UTF-8, or UTF-16 if it begins with the byte-order mark of that; a mark stays the
    first character. Memory: one line.
    """
    first = stream.readline(MAX_ROW_BYTES + 1)
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield from _decode_utf16(first, stream, path)
        return
    # A binary stream splits at \n only, and each line is decoded by itself, so that one broken
    # line does not end the file.
    for number, line in _read_lines(stream, path, first):
        if isinstance(line, DataError):
            yield number, line
            continue
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            reason = f"invalid UTF-8 at byte {error.start} of the line"
            yield number, DataError.at(path, number, reason)


def _read_lines(
    stream: IO[bytes], path: Path, first: bytes | None = None
) -> Iterator[tuple[int, bytes | DataError]]:
    """Yields the number (from 1) and the bytes of each line; a DataError for one that is too long.

    `first` is the first line, if it was read from the stream already, by
    `readline(MAX_ROW_BYTES + 1)`. Memory: one line of at most `MAX_ROW_BYTES`.
    """
    number = 0
    line = stream.readline(MAX_ROW_BYTES + 1) if first is None else first
    while line:
        number += 1
        if len(line) <= MAX_ROW_BYTES:
            yield number, line
        else:
            reason = f"a line of more than {MAX_ROW_BYTES >> 20} MiB"
            yield number, DataError.at(path, number, reason)
            while line and not line.endswith(b"\n"):
                line = stream.readline(MAX_ROW_BYTES)
        line = stream.readline(MAX_ROW_BYTES + 1)


def _decode_utf16(first: bytes, stream: IO[bytes], path: Path) -> Iterator[NumberedLine]:
    decoder = codecs.getincrementaldecoder("utf-16")()
    chunk, unread, number = first, "\ufeff", 0
    while chunk:
        chunk_before, chunk = chunk, stream.read(_CHUNK_BYTES)
        try:
            unread += decoder.decode(chunk_before, final=not chunk)
        except UnicodeDecodeError:
            yield number + 1, UnreadableRest.at(path, number + 1, "invalid UTF-16")
            return
        *lines, unread = unread.split("\n")
        for line in lines:
            number += 1
            yield number, line + "\n"
        if len(unread) > MAX_ROW_BYTES:
            reason = f"a line of more than {MAX_ROW_BYTES >> 20} MiB"
            yield number + 1, UnreadableRest.at(path, number + 1, reason)
            return
    if unread:
        yield number + 1, unread


def find_delimiter(header: str) -> str:
    """Returns what separates the columns of a header: a comma if it has one, else a semicolon or
    a tab that it has; a comma for a single column.
    """
    unquoted = _QUOTED.sub("", header)
    return next((d for d in (",", ";", "\t") if d in unquoted), ",")


class CsvTable:
    """The header of a table, and its rows as a stream.

    `header` holds the names of the columns, `delimiter` what separates them, `has_mark` whether the
    text began with a byte-order mark. Raises DataError for a header that cannot be read.
    """

    def __init__(
        self, lines: Iterator[NumberedLine], path: Path, delimiter: str | None = None
    ) -> None:
        self.path = path
        self._lines = lines
        self._lines_before = self._row_size = 0
        self._broken: list[DataError] = []
        first = self._read_first_line()
        separator = _EXCEL_SEPARATOR.fullmatch(first)
        if separator:
            # A line for Excel, which other programs take for the header.
            self._lines_before, delimiter = 1, separator[1]
            first = self._read_first_line()
        self.delimiter = delimiter or find_delimiter(first)
        # The csv module rejects fields over 128 KiB by default; published dialogues are longer.
        csv.field_size_limit(MAX_ROW_BYTES)
        # Without strict=True the csv module silently accepts a quote that is never closed and
        # reads the rest of the file as one field.
        self._reader = csv.reader(self._read_texts(first), delimiter=self.delimiter, strict=True)
        self.header = self._read_header()

    def _read_first_line(self) -> str:
        _, line = next(self._lines, (0, ""))
        if isinstance(line, DataError):
            raise line
        if self._lines_before == 0:
            self.has_mark = line.startswith("\ufeff")
            line = line.removeprefix("\ufeff")
        if "\0" in line:
            reason = "a zero byte in the header; is it UTF-16? save it as UTF-8"
            raise DataError.at(self.path, 1, reason)
        return line

    def _read_texts(self, first: str) -> Iterator[str]:
        yield first
        for number, line in self._lines:
            if isinstance(line, DataError):
                self._broken.append(line)
                if isinstance(line, UnreadableRest):
                    return
                # Keeps line_num in step with the file.
                line = "\n"
            self._row_size += len(line)
            if self._row_size > MAX_ROW_BYTES:
                reason = f"a row of more than {MAX_ROW_BYTES >> 20} MiB; is a quote not closed?"
                raise UnreadableRest.at(self.path, number, reason)
            yield line

    def _read_header(self) -> list[str]:
        try:
            header = next(self._reader, [])
        except csv.Error as error:
            raise DataError.at(self.path, 1, f"not CSV: {error}") from error
        if self._broken:
            raise self._broken[0]
        return _deduplicate_header(header)

    def rows(self) -> Iterator[tuple[int, dict[str, str]] | DataError]:
        """Yields the first line and the fields by column of each row; a DataError for a row that is
        malformed, an UnreadableRest as the last if what follows is lost.
        """
        while True:
            # line_num counts physical lines; a quoted field may span several, and the error
            # should name the first.
            start = self._lines_before + self._reader.line_num + 1
            self._row_size = 0
            try:
                row = next(self._reader, None)
            except csv.Error as error:
                yield UnreadableRest.at(self.path, start, f"not CSV: {error}")
                return
            except UnreadableRest as error:
                yield error
                return
            if self._broken:  # the row around an undecodable line is lost as a whole
                yield from self._broken
                self._broken.clear()
            elif row is None:
                return
            elif row and len(row) != len(self.header):
                yield DataError.at(self.path, start, self._describe_length(row))
            elif row:
                yield start, dict(zip(self.header, row))

    def _describe_length(self, row: list[str]) -> str:
        comparison = "more" if len(row) > len(self.header) else "fewer"
        return f"{comparison} fields than the header's {len(self.header)}"


def _deduplicate_header(header: list[str]) -> list[str]:
    # Repeated names (one published set has some) get .2, .3, ...; the first keeps its name.
    name_counts: Counter[str] = Counter()
    unique_names = []
    for name in header:
        name_counts[name] += 1
        unique_names.append(name if name_counts[name] == 1 else f"{name}.{name_counts[name]}")
    return unique_names
