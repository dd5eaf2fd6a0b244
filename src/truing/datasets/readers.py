"""Reads rows of JSONL, JSON, CSV, TSV and Parquet files as a stream; errors name file and line.

Lines end at ``\\n`` and nowhere else (published rows hold U+2028 inside strings). ``.gz`` and
``.xz`` files are decompressed. What is read is bounded (`truing.core.bounds`). A malformed row is
yielded as a `DataError`, so that the caller may skip or raise it.
"""

from __future__ import annotations

import json
import lzma
import math
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec import Struct

from truing.core.bounds import MAX_DOCUMENT_BYTES
from truing.core.csv_rows import CsvTable, NumberedLine, decode_lines
from truing.core.errors import DataError, did_you_mean
from truing.core.json_text import describe_json_error, parse_json
from truing.core.parquet_rows import read_parquet_rows
from truing.datasets.compressed import open_decompressed

DocumentUnpacker = Callable[[Any], Iterable[tuple[str, Any]]]
_COMPRESSED_SUFFIXES = {".gz", ".xz"}
_KNOWN_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt")


class Record(Struct, frozen=True):
    """One row of a file, with typed accessors that raise a DataError with its place."""

    path: str
    place: str
    data: dict[str, Any]

    def error(self, what: str) -> DataError:
        """Returns an error that names this row."""
        return DataError(f"{self.path}{self.place}: {what}")

    def has(self, key: str) -> bool:
        """Returns whether the row has a value (not null) under the key."""
        return self.data.get(key) is not None

    def value(self, key: str) -> Any:
        """Returns the value under a key; the error for a missing key suggests the nearest name."""
        if key not in self.data:
            raise self.error(f"no column {key!r}{did_you_mean(key, self.data)}")
        return self.data[key]

    def text(self, key: str, *, empty: bool = False) -> str:
        """Returns the text under a key; blank text is an error unless `empty`."""
        value = self.value(key)
        if not isinstance(value, str):
            raise self.error(f"{key}: expected text, got {type(value).__name__}")
        if not empty and not value.strip():
            raise self.error(f"{key}: empty text")
        return value

    def optional_text(self, key: str) -> str | None:
        """Returns text (or a number as text); None if it is absent, null or empty."""
        value = self.data.get(key)
        if value is None or value == "":
            return None
        if isinstance(value, str | int | float):
            return str(value)
        raise self.error(f"{key}: expected text, got {type(value).__name__}")

    def number(self, key: str) -> float:
        """Returns a finite number, which may be written as text."""
        value = self.value(key)
        try:
            # bool is a subclass of int: float(True) would be 1.0.
            if isinstance(value, bool):
                raise ValueError
            number = float(value)
            if not math.isfinite(number):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise self.error(f"{key}: expected a number, got {_describe_value(value)}") from None
        return number

    def integer(self, key: str, *, low: int | None = None, high: int | None = None) -> int:
        """Returns a whole number between `low` and `high`, where these are given."""
        value = self.number(key)
        if (
            value != int(value)
            or (low is not None and value < low)
            or (high is not None and value > high)
        ):
            raise self.error(f"{key}: {value:g} is not a whole number from {low} to {high}")
        return int(value)

    def signs(self) -> tuple[int, int] | None:
        """Returns the safety signs of a pair's answers: +1 safe, -1 unsafe; None if not given."""
        if not self.has("signs"):
            return None
        signs = self.list_value("signs")
        if (
            len(signs) != 2
            # type() and not isinstance(): True is an int and equals 1.
            or any(type(s) is not int or s not in (-1, 1) for s in signs)
        ):
            raise self.error("signs: expected two numbers, each 1 (safe) or -1 (unsafe)")
        return signs[0], signs[1]

    def flag(self, key: str) -> bool:
        """Returns a boolean; also from 0, 1, true, false, yes and no in any case."""
        value = self.value(key)
        text = str(value).strip().lower()
        if text in ("true", "1", "yes", "1.0"):
            return True
        if text in ("false", "0", "no", "0.0"):
            return False
        raise self.error(f"{key}: expected true or false, got {_describe_value(value)}")

    def choice(self, key: str, valid: Iterable[str]) -> str:
        """Returns text that must be one of `valid`."""
        value = self.text(key).strip()
        choices = list(valid)
        if value not in choices:
            raise self.error(f"{key}: {_describe_value(value)} is none of {', '.join(choices)}")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        """Returns the object under a key."""
        value = self.value(key)
        if not isinstance(value, dict):
            raise self.error(f"{key}: expected an object, got {type(value).__name__}")
        return value

    def list_value(self, key: str) -> list[Any]:
        """Returns the list under a key; text that holds a JSON array is parsed."""
        value = self.value(key)
        if isinstance(value, str) and value.lstrip().startswith("["):
            try:
                value = parse_json(value)
            except ValueError as error:
                raise self.error(f"{key}: {describe_json_error(error)}") from error
        if not isinstance(value, list):
            raise self.error(f"{key}: expected a list, got {type(value).__name__}")
        return value

    def nested(self, key: str) -> Record:
        """Returns the object under a key as a record, for errors with the full path."""
        return Record(self.path, f"{self.place}.{key}", self.mapping(key))


def _describe_value(value: object) -> str:
    # Labels only, never the text of a row: a value of more than a few words is described, not
    # shown.
    text = repr(value)
    return text if len(text) <= 24 else f"{type(value).__name__} of {len(text)} characters"


def data_suffix(path: Path) -> str:
    """Returns the suffix of the format, without .gz or .xz."""
    endings = [s.lower() for s in path.suffixes]
    if endings and endings[-1] in _COMPRESSED_SUFFIXES:
        endings.pop()
    return endings[-1] if endings else ""


def read_records(
    path: Path, *, unpack: DocumentUnpacker | None = None
) -> Iterator[Record | DataError]:
    """Yields the rows of a file in order; `unpack` takes the rows out of a JSON document."""
    kind = data_suffix(path)
    if kind not in _KNOWN_SUFFIXES:
        raise DataError(
            f"{path}: unknown format {kind or '(no suffix)'}; known: {', '.join(_KNOWN_SUFFIXES)}"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if kind in (".jsonl", ".ndjson", ".txt"):
        return _read_jsonl(path) if kind != ".txt" else _read_text_lines(path)
    if kind == ".json":
        return _read_json(path, unpack)
    return (
        _read_parquet(path)
        if kind == ".parquet"
        else _read_csv(path, "\t" if kind == ".tsv" else None)
    )


def _decode_lines(path: Path) -> Iterator[NumberedLine]:
    with closing(open_decompressed(path)) as stream:
        number = 0
        try:
            for number, line in decode_lines(stream, path):
                if number == 1 and isinstance(line, str):
                    line = line.removeprefix("\ufeff")
                yield number, line
        # gzip raises EOFError for a truncated file, BadGzipFile (an OSError) or zlib.error for a
        # damaged one.
        except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
            raise DataError.at(path, number + 1, f"cannot be unpacked: {error}") from error


def _read_jsonl(path: Path) -> Iterator[Record | DataError]:
    for number, line in _decode_lines(path):
        if isinstance(line, DataError):
            yield line
            continue
        if not line.strip():
            continue
        if number == 1 and line.lstrip().startswith(
            "["
        ):  # published as .jsonl, and yet one JSON array
            yield from _read_json(path, None)
            return
        try:
            row = parse_json(line)
        except ValueError as error:
            yield DataError.at(path, number, f"not JSON: {describe_json_error(error)}")
            continue
        if isinstance(row, dict):
            yield Record(str(path), f":{number}", row)
        else:
            yield DataError.at(path, number, f"expected an object, got {type(row).__name__}")


def _read_text_lines(path: Path) -> Iterator[Record | DataError]:
    for number, line in _decode_lines(path):
        if isinstance(line, DataError):
            yield line
        elif line.strip():
            yield Record(str(path), f":{number}", {"line": line.rstrip("\r\n")})


def unpack_instances(document: Any) -> Iterable[tuple[str, Any]]:
    """Returns the rows of a plain array, or of an object whose rows stand under `instances`, as in
    JUDGE-BENCH.
    """
    if isinstance(document, dict) and isinstance(document.get("instances"), list):
        return ((f".instances[{index}]", row) for index, row in enumerate(document["instances"]))
    if isinstance(document, list):
        return ((f"[{index}]", row) for index, row in enumerate(document))
    raise ValueError("expected an array of objects")


def _read_json(path: Path, unpack: DocumentUnpacker | None) -> Iterator[Record | DataError]:
    try:
        with closing(open_decompressed(path)) as stream:
            content = stream.read(MAX_DOCUMENT_BYTES + 1)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise DataError.at(path, None, f"cannot be unpacked: {error}") from error
    if len(content) > MAX_DOCUMENT_BYTES:
        reason = f"a JSON document of more than {MAX_DOCUMENT_BYTES >> 20} MiB; write it as JSONL"
        raise DataError.at(path, None, reason)
    try:
        document = parse_json(content.decode("utf-8-sig"))
        rows = (unpack or unpack_instances)(document)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError.at(path, line, "invalid UTF-8") from error
    except json.JSONDecodeError as error:
        raise DataError.at(path, error.lineno, f"not JSON: {error.msg}") from error
    except ValueError as error:
        raise DataError.at(path, None, str(error)) from error
    for place, row in rows:
        if isinstance(row, dict):
            yield Record(str(path), place, row)
        else:
            yield DataError(f"{path}{place}: expected an object, got {type(row).__name__}")


def _read_csv(path: Path, delimiter: str | None) -> Iterator[Record | DataError]:
    for row in CsvTable(_decode_lines(path), path, delimiter).rows():
        if isinstance(row, DataError):
            yield row
        else:
            line, fields = row
            yield Record(str(path), f":{line}", fields)


def _read_parquet(path: Path) -> Iterator[Record | DataError]:
    for index, fields in read_parquet_rows(path):
        yield Record(str(path), f"[{index}]", fields)
