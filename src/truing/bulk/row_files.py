"""The rows that `truing moderate` reads and writes: JSON lines, CSV, TSV; it reads Parquet too."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Literal

import msgspec
from msgspec import Struct

from truing.core.bounds import MAX_JSON_DEPTH
from truing.core.csv_rows import CsvTable, UnreadableRest, decode_lines
from truing.core.errors import DataError, UserError, did_you_mean
from truing.core.input_files import open_input
from truing.core.json_text import describe_json_error, is_nested_deeper, parse_json
from truing.core.jsonl import number_lines_or_faults
from truing.core.parquet_rows import read_parquet_rows
from truing.core.types import Conversation, Message

Format = Literal["jsonl", "csv", "tsv", "parquet"]
_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
_OTHER_ENDINGS = (".xlsx", ".xls", ".ods", ".gz", ".xz")
JUDGED_FIELDS = ("prompt", "messages", "response", "text")
_STANDARD_PATH = Path("-")


class RowOptions(Struct, frozen=True, kw_only=True):
    """How rows are read.

    - `format`: of the input and the output; by the ending of the file if None
    - `prompt`, `response`, `text`: the columns or keys that hold them; with any of them, only these
      are judged
    - `skip_malformed`: leave malformed rows out and count them
    """

    format: Format | None = None
    prompt: str | None = None
    response: str | None = None
    text: str | None = None
    skip_malformed: bool = False

    @property
    def columns(self) -> dict[str, str]:
        """The names that the user gave, by what they hold."""
        names = {"prompt": self.prompt, "response": self.response, "text": self.text}
        return {key: name for key, name in names.items() if name is not None}


class InputRow(Struct, frozen=True):
    """A row of the input: line number, fields, and what is judged (no response: the prompt)."""

    number: int
    fields: dict[str, Any]
    conversation: Conversation
    response: Message | None


class TakenName(DataError):
    """A row has a field of the name that a judgement's field would get."""

    @classmethod
    def of(cls, path: Path, number: int, name: str) -> TakenName:
        """Returns the error for a row."""
        return cls(f"{path}:{number}: the row already has a field {name!r}; give --prefix")


class RowFile:
    """The rows of one input, and the form of its output.

    `added` are the names of the fields that each row gets; `table` is the header of a CSV or TSV
    input, once reading has begun. `open_stream` opens the input (default: the file, or standard
    input); a shard gives that of its range, and whether it `begins_file`. Raises UserError for a
    format that cannot be read.
    """

    def __init__(
        self,
        path: Path,
        options: RowOptions,
        added: Sequence[str],
        open_stream: Callable[[], BinaryIO] | None = None,
        *,
        begins_file: bool = True,
    ) -> None:
        self.path, self.options, self.added = path, options, added
        self._columns = options.columns
        self.format: Format = options.format or choose_format(path)
        if self.format == "parquet" and path == _STANDARD_PATH:
            raise UserError("--in -: Parquet cannot be read from standard input; name the file")
        # A Parquet file cannot be appended to row by row, nor continued after a crash.
        self.output_format: Format = "jsonl" if self.format == "parquet" else self.format
        self.table: CsvTable | None = None
        self._open_stream = open_stream or self._open_input
        self._begins_file = begins_file

    def _open_input(self) -> BinaryIO:
        return sys.stdin.buffer if self.path == _STANDARD_PATH else open_input(self.path)

    def rows(self) -> Iterator[InputRow | DataError]:
        """Yields each row, or the DataError of a malformed one, with its file and line.

        A row with a field of a name in `added` is a TakenName. Raises DataError if the header, or
        what follows a place in the file, cannot be read.
        """
        if self.format == "parquet":
            for index, fields in read_parquet_rows(self.path):
                if index == 0:
                    self._check_header(list(fields))
                yield self.parse_fields(index + 1, fields)
            return
        with closing(self._open_stream()) as stream:
            if self.format == "jsonl":
                for number, line in number_lines_or_faults(stream, self.path):
                    if isinstance(line, DataError):
                        yield line
                    else:
                        yield self._parse_line(number, line)
                return
            delimiter = "\t" if self.format == "tsv" else None
            self.table = CsvTable(decode_lines(stream, self.path), self.path, delimiter)
            self._check_header(self.table.header)
            for row in self.table.rows():
                if isinstance(row, UnreadableRest):
                    raise row
                yield row if isinstance(row, DataError) else self.parse_fields(row[0], row[1])

    def read_header(self) -> list[str]:
        """Returns the names of a table's columns, and reads no row."""
        with closing(self._open_stream()) as stream:
            delimiter = "\t" if self.format == "tsv" else None
            self.table = CsvTable(decode_lines(stream, self.path), self.path, delimiter)
        return self.table.header

    def _parse_line(self, number: int, line: bytes) -> InputRow | DataError:
        try:
            if is_nested_deeper(line, MAX_JSON_DEPTH):
                return DataError.at(self.path, number, f"JSON of more than {MAX_JSON_DEPTH} levels")
            fields = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            is_first = number == 1 and self._begins_file
            if is_first and not line.lstrip().startswith((b"{", b"[")):
                # The first line of a table: its other lines have the same fault.
                reason = "is no JSON object; if this is a table, give --format csv (or tsv)"
                raise DataError.at(self.path, number, reason) from error
            return DataError.at(self.path, number, f"no JSON object in UTF-8: {error}")
        return self.parse_fields(number, fields)

    def parse_fields(self, number: int, fields: dict[str, Any]) -> InputRow | DataError:
        """Returns a row of its fields, or the DataError of a malformed one."""
        try:
            conversation, response = read_conversation(self._judged_fields(fields))
        except ValueError as error:
            return DataError.at(self.path, number, str(error))
        for name in self.added:
            if name in fields:
                return TakenName.of(self.path, number, name)
        return InputRow(number, fields, conversation, response)

    def _judged_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Returns what is judged under its usual keys: only the columns that the user named, if he
        named any.
        """
        columns = self._columns
        for name in columns.values():
            if name not in fields:
                raise ValueError(f"no {name!r}{did_you_mean(name, fields)}")
        if columns:
            return {key: fields[name] for key, name in columns.items()}
        messages = fields.get("messages")
        if self.format == "jsonl" or not isinstance(messages, str):
            return fields
        other_fields = {key: value for key, value in fields.items() if key != "messages"}
        return (
            {**other_fields, "messages": _parse_messages(messages)}
            if messages.strip()
            else other_fields
        )

    def _check_header(self, header: list[str]) -> None:
        """Raises DataError if a table has no column that can be judged: each row would fail."""
        names = ", ".join(header) or "none"
        for name in self.added:
            if name in header:
                raise TakenName.of(self.path, 1, name)
        for key, name in self.options.columns.items():
            if name not in header:
                reason = (
                    f"--{key}: no column {name!r}{did_you_mean(name, header)}; columns: {names}"
                )
                raise DataError.at(self.path, 1, reason)
        if not self.options.columns and not any(key in header for key in JUDGED_FIELDS):
            reason = (
                "no column prompt, response, text or messages; name them by --prompt, --response "
                f"or --text; columns: {names}"
            )
            raise DataError.at(self.path, 1, reason)

    # The output

    def encode_header(self) -> bytes:
        """Returns what stands before the first row: of a table its header, with the byte-order
        mark that the input has.
        """
        if self.table is None:
            return b""
        mark = "\ufeff" if self.table.has_mark else ""
        return mark.encode() + self._encode_cells([*self.table.header, *self.added])

    def encode_row(self, row: InputRow, values: Sequence[Any]) -> bytes:
        """Returns a row with the values of the added fields after its own, line end included."""
        if self.table is None:
            return msgspec.json.encode({**row.fields, **dict(zip(self.added, values))}) + b"\n"
        return self._encode_cells([*row.fields.values(), *map(_write_cell, values)])

    def _encode_cells(self, cells: list[str]) -> bytes:
        assert self.table is not None
        text = io.StringIO()
        # With \r\n as line end the csv module quotes both characters inside of cells.
        csv.writer(text, delimiter=self.table.delimiter, lineterminator="\r\n").writerow(cells)
        return text.getvalue().encode()

    def count_written(self, path: Path) -> tuple[int, int]:
        """Returns how many whole rows an output holds, and where the last of them ends."""
        row_count = end = position = 0
        quotes_are_even = True
        with open_input(path) as stream:
            for line in stream:
                position += len(line)
                # A line break inside of quotes ends no row of a table.
                if self.output_format != "jsonl" and line.count(b'"') % 2:
                    quotes_are_even = not quotes_are_even
                if quotes_are_even and line.endswith(b"\n"):
                    row_count, end = row_count + 1, position
        if self.output_format != "jsonl":
            row_count -= 1 if row_count else 0
        return row_count, end


def choose_format(path: Path) -> Format:
    """Returns the format of a file by its ending. Raises UserError for one that is not read."""
    ending = path.suffix.lower()
    if ending in _OTHER_ENDINGS:
        raise UserError(f"{path}: {ending} is not read; save it as JSON lines, CSV, TSV or Parquet")
    return _FORMATS.get(ending, "jsonl")


def check_output_format(out: Path, form: Format) -> None:
    """Raises UserError if the ending of the output names another format than it gets."""
    named = _FORMATS.get(out.suffix.lower())
    if named is not None and named != form:
        raise UserError(
            f"--out {out}: the output has the format of the input, {form}; give a name that ends "
            f"in .{form}"
        )


def _write_cell(value: Any) -> str:
    """Returns a value as the text of a cell: null is empty, all but text is JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _parse_messages(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"messages: not JSON: {describe_json_error(error)}") from error


def _text_field(fields: dict[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key}: expected text, got {type(value).__name__}")
    return value


def read_conversation(fields: dict[str, Any]) -> tuple[Conversation, Message | None]:
    """Returns the conversation before the answer, and the answer (None: judge the prompt).

    They come from `prompt` or `messages` with `response`, or from `text` alone, which counts as an
    answer.
    """
    response, prompt, text = (_text_field(fields, key) for key in ("response", "prompt", "text"))
    if "messages" in fields:
        if not isinstance(fields["messages"], list):
            raise ValueError("messages: expected a list")
        conversation = Conversation.from_openai(fields["messages"])
        if response is None and conversation.messages and conversation.last.role == "assistant":
            return Conversation(conversation.messages[:-1]), conversation.last
        return conversation, _answer(response)
    if prompt is None and response is None and text is None:
        raise ValueError("neither prompt, messages, response nor text")
    if text is not None and response is None and prompt is None:
        return Conversation(), _answer(text)
    conversation = Conversation.of(prompt) if prompt is not None else Conversation()
    return conversation, _answer(response)


def _answer(text: str | None) -> Message | None:
    return None if text is None else Message("assistant", text)
