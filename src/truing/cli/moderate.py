"""`truing moderate`: judges the rows of a JSONL file, in order and resumably."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec
from cyclopts import Parameter
from msgspec import Struct

from truing.cli.parameters import Flag
from truing.cli.progress import ProgressBar
from truing.cli.tables import print_json, print_text
from truing.core.bounds import MAX_JSON_DEPTH
from truing.core.errors import DataError, RunError, UserError
from truing.core.flagged_categories import category_thresholds, flag_categories
from truing.core.input_files import open_input
from truing.core.json_text import is_nested_deeper
from truing.core.jsonl import number_nonblank_lines
from truing.core.licences import collect_licences, describe_restriction
from truing.core.private_files import create_folder, private_opener, replace_file
from truing.core.protocols import Closeable, Judge
from truing.core.types import Answer, Conversation, Judgement, Message, Response, Sample
from truing.http.limits import close_connections
from truing.judges.verdicts import text_of_message
from truing.specs.resolve import resolve

FIELDS = (
    "harmful",
    "flagged",
    "categories",
    "flagged_categories",
    "uncategorised",
    "failure",
)
"""The fields that are added to each row, without the prefix."""

CHUNK_SIZE = 256
"""Rows that are judged at once, and written together."""

MAX_FAULTS = 20
"""Faults of the input that are reported at once."""


class _OutputState(Struct, frozen=True, kw_only=True):
    """What an output was made from (stored as OUT.state): only the same command continues it."""

    judge: str
    judge_hash: str
    input_sha256: str
    prefix: str


class _InputRow(Struct, frozen=True):
    """A row of the input: line number, fields, and what is judged (no response: the prompt)."""

    number: int
    fields: dict[str, Any]
    conversation: Conversation
    response: Message | None


class _Counts(Struct):
    """Rows judged, rows that are flagged, rows without a verdict."""

    rows: int = 0
    flagged: int = 0
    unscored: int = 0


def command(
    *,
    judge: str,
    in_: Annotated[Path, Parameter(name="--in")],
    out: Path,
    prefix: str = "",
    json: Flag = False,
) -> int:
    """Judges every row of a JSONL file; the same command continues an interrupted one.

    The exit status is 1 if no row could be judged.

    Parameters
    ----------
    judge
        Spec of the judge, such as moderation:default, guard:llama-guard,model=(...) or keywords:.
    in_
        Rows with response and prompt or messages, with prompt alone, or with text; - is standard
        input.
    out
        The rows with harmful, flagged, categories, flagged_categories, uncategorised and failure
        added; - is standard output.
    prefix
        Put before the names of these fields, for rows that have such fields already.
    json
        Print the counts as JSON.
    """
    resolved_judge: Judge = resolve(judge, "judge")
    if str(in_) == "-" or str(out) == "-":
        counts, rows_before = _moderate_stream(resolved_judge, in_, out, prefix), 0
    else:
        counts, rows_before = _moderate_file(resolved_judge, in_, out, prefix, quiet=json)
    # With --out - standard output holds the rows.
    report_to = sys.stderr if str(out) == "-" else sys.stdout
    lineage = resolved_judge.lineage
    restriction = describe_restriction(resolved_judge.name, collect_licences(lineage))
    if json:
        fields = {
            "judge": resolved_judge.name,
            "judge_hash": resolved_judge.lineage.hash,
            "resumed_at": rows_before,
            **msgspec.structs.asdict(counts),
            **({"restriction": restriction} if restriction else {}),
        }
        print_json(msgspec.json.encode(fields), file=report_to)
    else:
        resumed = f" (continued at row {rows_before + 1})" if rows_before else ""
        print_text(
            f"{counts.rows} rows judged by {resolved_judge.name}{resumed}: "
            f"{counts.flagged} flagged, {counts.unscored} unscored",
            file=report_to,
        )
        if restriction:
            print_text(restriction, file=report_to)
    return 1 if counts.rows and counts.unscored == counts.rows else 0


# Reading the input


def _parse_row(line: bytes, path: Path, number: int) -> _InputRow:
    """Parses a line; raises DataError with file and line number if it cannot be judged at all."""
    try:
        if is_nested_deeper(line, MAX_JSON_DEPTH):
            raise DataError.at(path, number, f"JSON of more than {MAX_JSON_DEPTH} levels")
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError.at(path, number, f"no JSON object in UTF-8: {error}") from error
    try:
        conversation, response = _read_conversation(fields)
    except ValueError as error:
        raise DataError.at(path, number, str(error)) from error
    return _InputRow(number, fields, conversation, response)


def _text_field(fields: dict[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key}: expected text, got {type(value).__name__}")
    return value


def _read_conversation(fields: dict[str, Any]) -> tuple[Conversation, Message | None]:
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


def _number_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with sys.stdin.buffer if str(path) == "-" else open_input(path) as stream:
        yield from number_nonblank_lines(stream, path)


def _check_input(path: Path, prefix: str) -> tuple[str, int]:
    """Returns the SHA-256 and the number of rows of the input.

    Raises DataError with the faults of many rows at once, before the first row is judged.
    """
    sha256, row_count = hashlib.sha256(), 0
    faults: list[str] = []
    try:
        for number, line in _number_lines(path):
            sha256.update(line)
            row_count += 1
            try:
                row = _parse_row(line, path, number)
            except DataError as error:
                faults += error.faults
            else:
                faults += [
                    f"{path}:{number}: the row already has a field {name!r}; give --prefix"
                    for name in _taken_names(row, prefix)
                ]
            if len(faults) >= MAX_FAULTS:
                break
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if faults:
        raise DataError(*faults)
    return sha256.hexdigest(), row_count


def _taken_names(row: _InputRow, prefix: str) -> list[str]:
    """Returns the names of fields to be added that the row has already."""
    return [prefix + name for name in FIELDS if prefix + name in row.fields]


# Judging


async def _judge_row(judge: Judge, row: _InputRow) -> Judgement:
    sample = Sample(id=str(row.number), conversation=row.conversation)
    if row.response is not None:
        response = Response.of(sample.id, 0, "recorded", Answer(message=row.response))
        return await judge.judge(sample, response)
    # A classifier that was trained on prompts has a judge for them.
    make_prompt_judge = getattr(judge, "of_prompts", None)
    if make_prompt_judge is not None:
        prompt_judge: Judge = make_prompt_judge()
        no_answer = Response(sample_id=sample.id, message=Message("assistant", ""))
        return await prompt_judge.judge(sample, no_answer)
    # Every other judge reads all of the prompt as if it were an answer.
    text = "\n\n".join(filter(None, map(text_of_message, row.conversation.messages)))
    prompt = Response.of(sample.id, 0, "recorded", Answer.of(text))
    return await judge.judge(Sample(id=sample.id, conversation=Conversation()), prompt)


def _encode_row(judge: Judge, row: _InputRow, judgement: Judgement, prefix: str) -> bytes:
    """Returns the input row with the judgement's fields after its own, as a line of JSON."""
    failure = None
    if judgement.failure is not None:
        failure = {"kind": judgement.failure.kind, "message": judgement.failure.message}
    flagged: tuple[str, ...] = ()
    if judgement.verdict:
        flagged = flag_categories(judgement.harms, category_thresholds(judge))
    uncategorised = judgement.verdict is True and not flagged
    values = (
        judgement.score,
        judgement.verdict,
        judgement.harms,
        flagged,
        uncategorised,
        failure,
    )
    added = {prefix + name: value for name, value in zip(FIELDS, values)}
    return msgspec.json.encode({**row.fields, **added}) + b"\n"


def _chunk_rows(rows: Iterator[_InputRow]) -> Iterator[list[_InputRow]]:
    chunk: list[_InputRow] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK_SIZE:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


async def _judge_rows(
    judge: Judge,
    rows: Iterator[_InputRow],
    prefix: str,
    output: BinaryIO,
    progress: ProgressBar,
    *,
    total: int = 0,
    rows_before: int = 0,
) -> _Counts:
    """Judges rows chunk by chunk and writes each chunk in the order of the input."""
    counts = _Counts()
    try:
        for chunk in _chunk_rows(rows):
            judgements = await asyncio.gather(*(_judge_row(judge, row) for row in chunk))
            lines = [_encode_row(judge, row, j, prefix) for row, j in zip(chunk, judgements)]
            output.write(b"".join(lines))
            output.flush()
            counts.rows += len(chunk)
            counts.flagged += sum(j.verdict is True for j in judgements)
            counts.unscored += sum(j.verdict is None for j in judgements)
            progress(rows_before + counts.rows, total, counts.unscored)
    finally:
        if isinstance(judge, Closeable):
            await judge.close()
        await close_connections()
    return counts


# Writing the output


def _moderate_file(
    judge: Judge, in_: Path, out: Path, prefix: str, *, quiet: bool
) -> tuple[_Counts, int]:
    """Appends the judged rows to OUT; returns the counts and how many rows OUT had before."""
    if in_.resolve() == out.resolve():
        raise UserError(f"--out {out}: is also the input")
    sha256, total = _check_input(in_, prefix)
    state = _OutputState(
        judge=judge.name, judge_hash=judge.lineage.hash, input_sha256=sha256, prefix=prefix
    )
    state_file = out.with_name(out.name + ".state")
    rows_before = _count_finished_rows(out, state, state_file, total)
    create_folder(out.parent)
    replace_file(state_file, msgspec.json.encode(state))
    rows = (
        _parse_row(line, in_, number)
        for index, (number, line) in enumerate(_number_lines(in_))
        if index >= rows_before
    )
    with (
        open(out, "ab", opener=private_opener) as output,
        ProgressBar("moderating", quiet=quiet) as progress,
    ):
        counts = asyncio.run(
            _judge_rows(judge, rows, prefix, output, progress, total=total, rows_before=rows_before)
        )
        os.fsync(output.fileno())
    return counts, rows_before


def _count_finished_rows(out: Path, state: _OutputState, state_file: Path, total: int) -> int:
    """Returns how many rows an earlier call wrote; cuts off a line that a crash left unfinished.

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
        raise RunError(f"{out}: was begun with another judge, input or prefix; give another --out")
    content = out.read_bytes()
    end = content.rfind(b"\n") + 1
    if end != len(content):
        os.truncate(out, end)
    row_count = content[:end].count(b"\n")
    if row_count > total:
        raise RunError(f"{out}: holds {row_count} rows, the input {total}")
    return row_count


def _moderate_stream(judge: Judge, in_: Path, out: Path, prefix: str) -> _Counts:
    """Judges rows from or to a pipe; a stream cannot be checked beforehand nor continued."""

    def read_rows() -> Iterator[_InputRow]:
        for number, line in _number_lines(in_):
            row = _parse_row(line, in_, number)
            taken = _taken_names(row, prefix)
            if taken:
                message = f"the row already has a field {min(taken)!r}; give --prefix"
                raise DataError.at(in_, number, message)
            yield row

    with sys.stdout.buffer if str(out) == "-" else open(out, "xb", opener=private_opener) as output:
        progress = ProgressBar("moderating", quiet=True)
        return asyncio.run(_judge_rows(judge, read_rows(), prefix, output, progress))
