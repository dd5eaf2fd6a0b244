"""Splits inputs into shards: ranges of a file that workers read on their own.

A shard of JSON lines is a range of bytes: it holds the lines that begin in it. A shard of a table
begins at a row, found by reading the table once. A shard of a Parquet file is a range of row
groups. The plan depends on the sizes of the files alone, so that a later call plans the same shards
and can leave out the finished ones.

Paths with `://` (s3, gs, az, hf, ...) are read by fsspec, `sql:TABLE` from a database
(`sql_rows`), all others from the disk.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from msgspec import Struct
from msgspec.structs import replace

from truing.bulk.remote_files import is_remote, list_remote_files, open_remote, stat_remote
from truing.bulk.row_files import JUDGED_FIELDS, InputRow, RowFile, RowOptions, choose_format
from truing.bulk.sql_rows import (
    KeyRange,
    is_sql,
    parse_sql_table,
    plan_key_ranges,
    read_key_range,
    read_table_facts,
)
from truing.core.bounds import MAX_ROW_BYTES
from truing.core.errors import DataError, UserError, did_you_mean
from truing.core.input_files import open_input
from truing.core.lineage import digest
from truing.specs.extras import needs_extra

ShardFormat = Literal["jsonl", "csv", "tsv", "parquet"]

DEFAULT_SHARD_BYTES = 32 << 20
"""A worker holds a shard, its texts and its output in memory: about ten times as much."""

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_MAX_WHOLE_BYTES = 512 << 20
_FILE_ENDINGS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_PARQUET_BATCH_ROWS = 1024
_SQL_ROW_BYTES = 320  # of a row of a table, to plan shards of like size
_MAX_FAULTS = 20


class SourceFile(Struct, frozen=True, kw_only=True):
    """A file of the input: its size in bytes, and what changes when it is written again."""

    path: str
    format: ShardFormat
    size: int
    version: str


class InputShard(Struct, frozen=True, kw_only=True):
    """A range of a file: bytes from `start` to before `end`, row groups of a Parquet file, or keys
    of a table of a database.

    `header_end` is where the header of a table ends, which each of its shards is read with; `rows`
    the number of a database's rows.
    """

    number: int
    path: str
    format: ShardFormat
    start: int
    end: int
    header_end: int = 0
    rows: int = 0

    @property
    def label(self) -> str:
        """The file, and where in it the shard begins, for messages."""
        if not self.start or (self.header_end and self.start == self.header_end):
            return self.path
        if is_sql(self.path):
            return f"{self.path} (from key {self.start})"
        unit = "row group" if self.format == "parquet" else "byte"
        return f"{self.path} (from {unit} {self.start})"


def find_sources(path: str, options: RowOptions) -> list[SourceFile]:
    """Returns the files of an input: a file, a folder, or a pattern such as `logs/*.jsonl`.

    They come in the order of their names. Raises DataError if there is none, or if they have
    different formats.
    """
    if is_sql(path):
        return [_describe_source(path, options)]
    names = list_remote_files(path, _FILE_ENDINGS) if is_remote(path) else _list_files(path)
    if not names:
        raise DataError(f"{path}: no files of rows ({', '.join(_FILE_ENDINGS)})")
    sources = [_describe_source(name, options) for name in sorted(names)]
    formats = sorted({source.format for source in sources})
    if len(formats) > 1:
        raise DataError(
            f"{path}: holds files of several formats ({', '.join(formats)}); give a pattern"
        )
    return sources


def _list_files(path: str) -> list[str]:
    place = Path(path)
    if place.is_dir():
        return [str(p) for p in place.rglob("*") if p.suffix in _FILE_ENDINGS and p.is_file()]
    if place.exists() or not any(character in path for character in "*?["):
        return [path]
    anchor = Path(place.anchor or ".")
    return [str(p) for p in anchor.glob(str(place.relative_to(place.anchor))) if p.is_file()]


def _describe_source(path: str, options: RowOptions) -> SourceFile:
    if is_sql(path):
        facts = read_table_facts(parse_sql_table(path))
        version = f"keys {facts.least} to {facts.largest}"
        return SourceFile(path=path, format="jsonl", size=facts.rows, version=version)
    is_parquet = options.format is None and path.lower().endswith(".parquet")
    form: ShardFormat = "parquet" if is_parquet else options.format or choose_format(Path(path))
    if is_remote(path):
        size, version = stat_remote(path)
    else:
        try:
            with open_input(path) as stream:
                size = stream.seek(0, io.SEEK_END)
            version = str(Path(path).stat().st_mtime_ns)
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from error
    return SourceFile(path=path, format=form, size=size, version=version)


def plan_shards(
    sources: Sequence[SourceFile], options: RowOptions, shard_bytes: int = DEFAULT_SHARD_BYTES
) -> list[InputShard]:
    """Returns the shards of the sources, numbered in their order, each of about `shard_bytes`.

    Raises DataError if the tables or Parquet files lack a column that is judged, or differ in it.
    """
    if shard_bytes < 1:
        raise UserError(f"shards of {shard_bytes} bytes: give 1 or more")
    ranges: list[InputShard] = []
    columns: dict[str, dict[str, str]] = {}
    for source in sources:
        n_rows: list[int] = []
        if is_sql(source.path):
            columns[source.path], keys = _plan_sql(source, shard_bytes)
            of_source = [(k.start, k.end, 0) for k in keys]
            n_rows = [k.rows for k in keys]
        elif source.format == "parquet":
            columns[source.path], of_source = _plan_parquet(source, shard_bytes)
        elif source.format == "jsonl":
            of_source = [
                (start, min(start + shard_bytes, source.size), 0)
                for start in range(0, source.size, shard_bytes)
            ]
        else:
            columns[source.path], of_source = _plan_table(source, shard_bytes)
        for position, (start, end, header_end) in enumerate(of_source):
            shard = InputShard(
                number=len(ranges),
                path=source.path,
                format=source.format,
                start=start,
                end=end,
                header_end=header_end,
                rows=n_rows[position] if n_rows else 0,
            )
            ranges.append(shard)
    if faults := _find_column_faults(columns, options):
        raise DataError(*faults)
    return ranges


def _find_column_faults(columns: dict[str, dict[str, str]], options: RowOptions) -> list[str]:
    """Returns where the judged columns of several tables are missing or of another type.

    A column that is renamed between two files would otherwise leave half of the rows unjudged.
    """
    if not columns:
        return []
    first_path, first = next(iter(columns.items()))
    judged = list(options.columns.values()) or [c for c in JUDGED_FIELDS if c in first]
    if not judged:
        names = ", ".join(first) or "none"
        return [
            f"{first_path}: no column {', '.join(JUDGED_FIELDS)}; name them by --prompt, "
            f"--response or --text; columns: {names}"
        ]
    # The parts of a Parquet output are one table, so that all of its columns must agree.
    is_parquet = first_path.lower().endswith(".parquet")
    if is_parquet:
        judged = list(dict.fromkeys([*judged, *first]))
    faults = []
    for path, types in columns.items():
        common_columns = [
            c for c in types if is_parquet or (c in JUDGED_FIELDS and not options.columns)
        ]
        for name in judged:
            if name not in types:
                faults.append(f"{path}: no column {name!r}{did_you_mean(name, types)}")
            elif name in first and types[name] != first[name]:
                faults.append(
                    f"{path}: column {name!r} is {types[name]}, in {first_path} {first[name]}"
                )
        faults += [
            f"{path}: has a column {name!r} that {first_path} has not"
            for name in common_columns
            if name not in judged
        ]
    return faults[:_MAX_FAULTS]


def name_key_ranges(sources: list[SourceFile], shards: list[InputShard]) -> list[SourceFile]:
    """Returns the sources; the version of a table of a database names its ranges of keys, too.

    Rows that come and go between two commands may move the ranges, and a row into none of them.
    """
    if not is_sql(sources[0].path):
        return sources
    ranges = digest(repr([(shard.start, shard.end, shard.rows) for shard in shards]))
    return [replace(sources[0], version=f"{sources[0].version}, ranges {ranges}")]


def check_unchanged(source: SourceFile, options: RowOptions) -> None:
    """Raises DataError if a file has another size or version than when the work was planned.

    Of a table of a database, the reader of a range counts its rows.
    """
    if is_sql(source.path):
        return
    present = _describe_source(source.path, options)
    if present != source:
        raise DataError(
            f"{source.path}: has {present.size:,} bytes, and had {source.size:,} when the work was "
            "planned, or was written again since; the work needs one version of each file"
        )


# Tables


def _plan_table(
    source: SourceFile, shard_bytes: int
) -> tuple[dict[str, str], list[tuple[int, int, int]]]:
    """Returns the columns of a table, and the ranges of its rows."""
    header = RowFile(
        Path(source.path), RowOptions(format=_table_format(source)), [], lambda: _open(source.path)
    )
    names = header.read_header()
    columns = dict.fromkeys(names, "text")
    with _open(source.path) as stream:
        is_utf16 = stream.read(2) in _UTF16_MARKS
        if is_utf16:
            if source.size > _MAX_WHOLE_BYTES:
                raise DataError(
                    f"{source.path}: a table in UTF-16 is read whole, and this one has more than "
                    f"{_MAX_WHOLE_BYTES >> 20} MiB; save it as UTF-8"
                )
            return columns, [(0, source.size, 0)]
        stream.seek(0)
        assert header.table is not None
        starts = _find_row_starts(source.path, stream, header.table.delimiter, shard_bytes)
    header_end, *later_starts = starts
    starts = [header_end, *later_starts]
    ends = [*later_starts, source.size]
    return columns, [(start, end, header_end) for start, end in zip(starts, ends)]


def _table_format(source: SourceFile) -> Literal["csv", "tsv"]:
    return "tsv" if source.format == "tsv" else "csv"


def _find_row_starts(path: str, stream: BinaryIO, delimiter: str, shard_bytes: int) -> list[int]:
    """Returns where the first row begins, and the first row after every `shard_bytes` bytes.

    The csv module decides where rows end, as it does when they are read: a line break inside of
    quotes ends none. Raises DataError where it finds none.
    """
    offset = 0

    def read_lines() -> Iterator[str]:
        nonlocal offset
        while line := stream.readline(MAX_ROW_BYTES + 1):
            offset += len(line)
            # Every byte is a character of Latin-1; quotes and delimiters are the same in UTF-8.
            yield line.decode("latin-1").removeprefix("\xef\xbb\xbf" if offset == len(line) else "")

    csv.field_size_limit(MAX_ROW_BYTES)
    reader = csv.reader(read_lines(), delimiter=delimiter, strict=True)
    starts: list[int] = []
    try:
        for cells in reader:
            if not starts:
                # A line `sep=;` for Excel stands before the header.
                if len(cells) <= 2 and cells and cells[0].lower().startswith("sep="):
                    continue
                starts.append(offset)
            elif offset - starts[-1] >= shard_bytes:
                starts.append(offset)
    except csv.Error as error:
        # Nothing after this place can be cut into rows: it would be one shard, of whatever size.
        reason = f"the row that ends at byte {offset:,} is malformed: {error}; mend the file"
        raise DataError.at(path, reader.line_num, reason) from error
    if len(starts) > 1 and starts[-1] == offset:
        starts.pop()  # no row begins at the end of the file
    return starts or [0]


def _plan_sql(source: SourceFile, shard_bytes: int) -> tuple[dict[str, str], list[KeyRange]]:
    """Returns the columns of a table of a database, and the ranges of its keys."""
    table = parse_sql_table(source.path)
    ranges = plan_key_ranges(table, max(1, shard_bytes // _SQL_ROW_BYTES))
    return read_table_facts(table).columns, ranges


# Parquet


@contextmanager
def open_parquet(path: str) -> Iterator[Any]:
    """Yields a `pyarrow.parquet.ParquetFile`; raises DataError if it cannot be read."""
    with needs_extra("reading Parquet", "ray"):
        import pyarrow
        import pyarrow.parquet
    with _open(path) as stream:
        try:
            yield pyarrow.parquet.ParquetFile(stream)
        except (pyarrow.ArrowException, OSError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
            raise DataError(f"{path}: cannot be read as Parquet: {reason}") from error


def _plan_parquet(
    source: SourceFile, shard_bytes: int
) -> tuple[dict[str, str], list[tuple[int, int, int]]]:
    """Returns the columns of a Parquet file with their types, and the ranges of its row groups."""
    ranges: list[tuple[int, int, int]] = []
    start = size = 0
    with open_parquet(source.path) as file:
        metadata, schema = file.metadata, file.schema_arrow
        columns = {name: str(schema.field(name).type) for name in schema.names}
        for group in range(metadata.num_row_groups):
            size += metadata.row_group(group).total_byte_size
            if size >= shard_bytes or group == metadata.num_row_groups - 1:
                ranges.append((start, group + 1, 0))
                start, size = group + 1, 0
    return columns, ranges


# Reading a shard


class ShardRows:
    """The rows of one shard; `file` encodes them for the output.

    Iterating yields rows, and the DataError of malformed ones. Raises DataError if the file was cut
    short or written again since it was planned.
    """

    def __init__(self, shard: InputShard, options: RowOptions, added: Sequence[str]) -> None:
        self.shard = shard
        self._options, self._added = options, added
        form = "jsonl" if shard.format == "parquet" else shard.format
        self.file = RowFile(
            Path(shard.label),
            options_with_format(options, form),
            added,
            lambda: _read_range(shard),
            begins_file=not shard.start,
        )

    def __iter__(self) -> Iterator[InputRow | DataError]:
        if self.shard.format == "parquet":
            return self._parquet_rows()
        if is_sql(self.shard.path):
            return self._sql_rows()
        return self.file.rows()

    def _sql_rows(self) -> Iterator[InputRow | DataError]:
        keys = KeyRange(start=self.shard.start, end=self.shard.end, rows=self.shard.rows)
        read = read_key_range(parse_sql_table(self.shard.path), keys)
        for number, fields in enumerate(read, 1):
            yield self.file.parse_fields(number, fields)

    def _parquet_rows(self) -> Iterator[InputRow | DataError]:
        number = 0
        with open_parquet(self.shard.path) as file:
            if file.metadata.num_row_groups < self.shard.end:
                raise _cut_short(self.shard)
            groups = range(self.shard.start, self.shard.end)
            for batch in file.iter_batches(_PARQUET_BATCH_ROWS, row_groups=groups):
                for fields in batch.to_pylist():
                    number += 1
                    yield self.file.parse_fields(number, fields)


def options_with_format(options: RowOptions, form: Literal["jsonl", "csv", "tsv"]) -> RowOptions:
    """Returns the options of a reader of that format."""
    return RowOptions(
        format=form,
        prompt=options.prompt,
        response=options.response,
        text=options.text,
        skip_malformed=options.skip_malformed,
    )


def _read_range(shard: InputShard) -> BinaryIO:
    """Returns the bytes of a shard as a stream: its lines, after the header of a table."""
    try:
        with _open(shard.path) as stream:
            header = stream.read(shard.header_end)
            if shard.format == "jsonl" and shard.start:
                # The line that this byte belongs to begins in the shard before.
                stream.seek(shard.start - 1)
                start = shard.start - 1
                # A line that is longer than a row may be is passed over in pieces.
                while piece := stream.readline(MAX_ROW_BYTES + 1):
                    start += len(piece)
                    if piece.endswith(b"\n") or start >= shard.end:
                        break
            else:
                start = stream.seek(shard.start)
            shard_bytes = stream.read(max(0, shard.end - start))
            if start + len(shard_bytes) < shard.end:
                raise _cut_short(shard)
            if shard.format == "jsonl" and shard_bytes and not shard_bytes.endswith(b"\n"):
                shard_bytes += stream.readline(MAX_ROW_BYTES + 1)
    except OSError as error:
        raise DataError(f"{shard.path}: {error.strerror or error}") from error
    return io.BytesIO(header + shard_bytes)


def _cut_short(shard: InputShard) -> DataError:
    unit = "row groups" if shard.format == "parquet" else "bytes"
    return DataError(
        f"{shard.path}: ends before the {shard.end:,} {unit} that it had when the work was "
        "planned; it was cut short or written again"
    )


def _open(path: str) -> BinaryIO:
    return open_remote(path) if is_remote(path) else open_input(path)
