"""`truing moderate`: judges the rows of a JSONL, CSV or TSV file, in order and resumably."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, TextIO

import msgspec
from cyclopts import Parameter
from msgspec import Struct

from truing.bulk.input_shards import DEFAULT_SHARD_BYTES
from truing.cli.moderate_rows import RowFlags
from truing.cli.parameters import Flag
from truing.cli.ray_flags import RayFlags
from truing.cli.tables import print_json, print_text
from truing.core.batches import split_batches
from truing.core.errors import DataError, RunError, UserError
from truing.core.private_files import create_folder, private_opener, replace_file
from truing.core.protocols import Closeable, Judge

if TYPE_CHECKING:
    from truing.bulk.row_files import InputRow, RowFile
    from truing.cli.progress import ProgressBar

MAX_FAULTS = 20
"""Faults of the input that are reported at once."""


class _OutputState(Struct, frozen=True, kw_only=True):
    """What an output was made from (stored as OUT.state): only the same command continues it."""

    judge: str
    judge_hash: str
    input_sha256: str
    prefix: str
    format: str = "jsonl"
    columns: dict[str, str] = {}
    skip_malformed: bool = False


class _Counts(Struct):
    """Rows judged, rows that are flagged, rows without a verdict, malformed rows left out."""

    rows: int = 0
    flagged: int = 0
    unscored: int = 0
    skipped: int = 0


def command(
    *,
    judge: str,
    in_: Annotated[str | Path, Parameter(name="--in", allow_leading_hyphen=True)],
    out: Annotated[str | Path, Parameter(allow_leading_hyphen=True)],
    rows: RowFlags | None = None,
    prefix: str = "",
    ray: RayFlags | None = None,
    shard_mib: float = DEFAULT_SHARD_BYTES / (1 << 20),
    json: Flag = False,
) -> int:
    """Judges every row of a JSONL, CSV, TSV or Parquet file; the same command continues an
    interrupted one.

    The exit status is 1 if no row could be judged.

    Parameters
    ----------
    judge
        Spec of the judge, such as moderation:default, guard:llama-guard,model=(...) or keywords:.
    in_
        Rows with response and prompt or messages, with prompt alone, or with text; - is standard
        input. With --on: a file, a folder, a pattern, or a URL of an object store; Parquet too.
    out
        The rows with harmful, flagged, categories, flagged_categories, uncategorised and failure
        added, in the format of the input (of Parquet: JSONL); - is standard output. With --on: a
        folder or a URL.
    prefix
        Put before the names of these fields, for rows that have such fields already.
    shard_mib
        With --on: size of a shard in MiB; what is lost when a worker dies, and what it holds in
        memory.
    json
        Print the counts as JSON.
    """
    from truing.bulk.row_files import RowFile, check_output_format
    from truing.bulk.row_judgements import ADDED_FIELDS
    from truing.cli.moderate_shards import moderate_in_shards
    from truing.specs.resolve import resolve

    row_flags = rows or RowFlags()
    if ray is not None and ray.on:
        return moderate_in_shards(
            judge,
            str(in_),
            str(out),
            row_flags.options,
            prefix,
            ray,
            shard_mib=shard_mib,
            as_json=json,
        )
    in_, out = Path(in_), Path(out)
    resolved_judge: Judge = resolve(judge, "judge")
    source = RowFile(in_, row_flags.options, [prefix + name for name in ADDED_FIELDS])
    if str(out) != "-":
        check_output_format(out, source.output_format)
    if str(in_) == "-" or str(out) == "-":
        counts, rows_before = _moderate_stream(resolved_judge, source, out), 0
    else:
        counts, rows_before = _moderate_file(resolved_judge, source, out, prefix, quiet=json)
    # With --out - standard output holds the rows.
    report_to = sys.stderr if str(out) == "-" else sys.stdout
    _print_counts(counts, rows_before, resolved_judge, report_to, as_json=json)
    return 1 if counts.rows and counts.unscored == counts.rows else 0


def _print_counts(
    counts: _Counts, rows_before: int, judge: Judge, file: TextIO, *, as_json: bool
) -> None:
    from truing.core.licences import collect_licences, describe_restriction

    restriction = describe_restriction(judge.name, collect_licences(judge.lineage))
    if as_json:
        fields = {
            "judge": judge.name,
            "judge_hash": judge.lineage.hash,
            "resumed_at": rows_before,
            **msgspec.structs.asdict(counts),
            **({"restriction": restriction} if restriction else {}),
        }
        print_json(msgspec.json.encode(fields), file=file)
        return
    resumed = f" (continued at row {rows_before + 1})" if rows_before else ""
    skipped = f", {counts.skipped} malformed rows skipped" if counts.skipped else ""
    print_text(
        f"{counts.rows} rows judged by {judge.name}{resumed}: "
        f"{counts.flagged} flagged, {counts.unscored} unscored{skipped}",
        file=file,
    )
    if restriction:
        print_text(restriction, file=file)


# Reading the input


def _check_input(source: RowFile) -> tuple[str, int]:
    """Returns the SHA-256 of the input and the number of its rows that can be judged.

    Raises DataError with the faults of many rows at once, before the first row is judged.
    """
    from truing.bulk.row_files import InputRow
    from truing.core.input_files import open_input

    row_count = 0
    faults: list[str] = []
    try:
        sha256 = hashlib.sha256()
        with open_input(source.path) as stream:
            while block := stream.read(1 << 20):
                sha256.update(block)
        for row in source.rows():
            if isinstance(row, InputRow):
                row_count += 1
            elif not _is_skipped(source, row):
                faults += row.faults
            if len(faults) >= MAX_FAULTS:
                break
    except DataError as error:
        faults += error.faults
    except OSError as error:
        raise DataError(f"{source.path}: {error.strerror or error}") from error
    if faults:
        raise DataError(*faults)
    return sha256.hexdigest(), row_count


def _is_skipped(source: RowFile, fault: DataError) -> bool:
    from truing.bulk.row_files import TakenName

    return source.options.skip_malformed and not isinstance(fault, TakenName)


def _select_rows(source: RowFile, counts: _Counts) -> Iterator[InputRow]:
    """Yields the rows that can be judged; counts the malformed ones if they are skipped, else
    raises their DataError.
    """
    from truing.bulk.row_files import InputRow

    for row in source.rows():
        if isinstance(row, InputRow):
            yield row
        elif _is_skipped(source, row):
            counts.skipped += 1
        else:
            raise row


# Judging


async def _judge_rows(
    judge: Judge,
    source: RowFile,
    output: BinaryIO,
    progress: ProgressBar,
    *,
    total: int = 0,
    rows_before: int = 0,
    continues: bool = False,
) -> _Counts:
    """Judges rows chunk by chunk and writes each chunk in the order of the input.

    The first `rows_before` rows are in the output already; an output that `continues` has its
    header, too.
    """
    from truing.bulk.row_judgements import CHUNK_SIZE, judge_rows, judged_values
    from truing.http.limits import close_connections

    counts = _Counts()
    rows = itertools.islice(_select_rows(source, counts), rows_before, None)
    has_header = continues
    try:
        for chunk in split_batches(rows, CHUNK_SIZE):
            judgements = await judge_rows(judge, chunk)
            lines = [
                source.encode_row(row, judged_values(judge, judgement))
                for row, judgement in zip(chunk, judgements)
            ]
            if not has_header:
                lines.insert(0, source.encode_header())
                has_header = True
            output.write(b"".join(lines))
            output.flush()
            counts.rows += len(chunk)
            counts.flagged += sum(j.verdict is True for j in judgements)
            counts.unscored += sum(j.verdict is None for j in judgements)
            progress(rows_before + counts.rows, total, counts.unscored)
        if not has_header:
            output.write(source.encode_header())
    finally:
        if isinstance(judge, Closeable):
            await judge.close()
        await close_connections()
    return counts


# Writing the output


def _moderate_file(
    judge: Judge, source: RowFile, out: Path, prefix: str, *, quiet: bool
) -> tuple[_Counts, int]:
    """Appends the judged rows to OUT; returns the counts and how many rows OUT had before."""
    from truing.cli.progress import ProgressBar

    if source.path.resolve() == out.resolve():
        raise UserError(f"--out {out}: is also the input")
    sha256, total = _check_input(source)
    state = _OutputState(
        judge=judge.name,
        judge_hash=judge.lineage.hash,
        input_sha256=sha256,
        prefix=prefix,
        format=source.format,
        columns=source.options.columns,
        skip_malformed=source.options.skip_malformed,
    )
    state_file = out.with_name(out.name + ".state")
    rows_before = _count_finished_rows(source, out, state, state_file, total)
    create_folder(out.parent)
    replace_file(state_file, msgspec.json.encode(state))
    with (
        open(out, "ab", opener=private_opener) as output,
        ProgressBar("moderating", quiet=quiet) as progress,
    ):
        counts = asyncio.run(
            _judge_rows(
                judge,
                source,
                output,
                progress,
                total=total,
                rows_before=rows_before,
                continues=output.tell() > 0,
            )
        )
        output.flush()
        os.fsync(output.fileno())
    return counts, rows_before


def _count_finished_rows(
    source: RowFile, out: Path, state: _OutputState, state_file: Path, total: int
) -> int:
    """Returns how many rows an earlier call wrote; cuts off a row that a crash left unfinished.

    Raises RunError if OUT was not made by the same command from the same input.
    """
    if not out.exists() or not state_file.exists():
        if out.exists() and out.stat().st_size:
            raise RunError(
                f"{out}: exists and is no unfinished output of this command; give another --out"
            )
        return 0
    try:
        stored_state = msgspec.json.decode(state_file.read_bytes(), type=_OutputState)
    except (msgspec.DecodeError, OSError) as error:
        raise RunError(f"{state_file}: {error}") from error
    if stored_state != state:
        raise RunError(
            f"{out}: was begun with another judge, input, prefix or format; give another --out"
        )
    row_count, end = source.count_written(out)
    if end != out.stat().st_size:
        os.truncate(out, end)
    if row_count > total:
        raise RunError(f"{out}: holds {row_count} rows, the input {total}")
    return row_count


def _moderate_stream(judge: Judge, source: RowFile, out: Path) -> _Counts:
    """Judges rows from or to a pipe; a stream cannot be checked beforehand nor continued."""
    from truing.cli.progress import ProgressBar

    is_stdout = str(out) == "-"
    with (
        contextlib.nullcontext(sys.stdout.buffer)  # not ours to close
        if is_stdout
        else open(out, "xb", opener=private_opener)
    ) as output:
        progress = ProgressBar("moderating", quiet=True)
        return asyncio.run(_judge_rows(judge, source, output, progress))
