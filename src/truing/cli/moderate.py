"""`truing moderate`: judges the rows of a JSONL file; order kept, resumable, the input rows stay as they are."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from msgspec import Struct

from truing.cli.progress import Bar
from truing.core.errors import DataError, RunError, UserError
from truing.core.jsonl import number_nonblank_lines
from truing.core.protocols import Closeable, Judge
from truing.core.types import Answer, Conversation, Judgement, Message, Response, Sample
from truing.http.limits import close_connections
from truing.specs.resolve import resolve

FIELDS = ("harmful", "flagged", "categories", "flagged_categories", "failure")
_CHUNK = 256


class _State(Struct, frozen=True, kw_only=True):
    """What a half-written output was made of; kept beside it until it is whole."""

    judge: str
    judge_hash: str
    input_sha256: str
    prefix: str


class _Row(Struct, frozen=True):
    number: int
    data: dict[str, Any]
    conversation: Conversation
    response: str | None


def _chunks(rows: Iterator[_Row]) -> Iterator[tuple[_Row, ...]]:
    held: list[_Row] = []
    for row in rows:
        held.append(row)
        if len(held) == _CHUNK:
            yield tuple(held)
            held = []
    if held:
        yield tuple(held)


def _read(line: bytes, path: Path, number: int) -> _Row:
    """One row; DataError with file and line where it cannot be judged at all."""
    try:
        data = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DataError.at(path, number, f"no JSON object in UTF-8: {error}") from error
    try:
        conversation, response = _parts(data)
    except ValueError as error:
        raise DataError.at(path, number, str(error)) from error
    return _Row(number, data, conversation, response)


def _text(data: dict[str, Any], key: str) -> str | None:
    value = data.get(key)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{key}: expected text, got {type(value).__name__}")
    return value


def _parts(data: dict[str, Any]) -> tuple[Conversation, str | None]:
    """The conversation and the answer: of `prompt` or `messages`, and `response`; or of `text` alone."""
    response, prompt, text = (_text(data, key) for key in ("response", "prompt", "text"))
    if "messages" in data:
        if not isinstance(data["messages"], list):
            raise ValueError("messages: expected a list")
        conversation = Conversation.from_openai(data["messages"])
        if response is None and conversation.messages and conversation.last.role == "assistant":
            return Conversation(conversation.messages[:-1]), conversation.last.content
        return conversation, response
    if prompt is None and response is None and text is None:
        raise ValueError("neither prompt, messages, response nor text")
    if text is not None and response is None and prompt is None:
        return Conversation(), text
    return Conversation.of(prompt) if prompt is not None else Conversation(), response


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    stream = sys.stdin.buffer if str(path) == "-" else path.open("rb")
    with stream:
        yield from number_nonblank_lines(stream)


def _check(path: Path, prefix: str) -> tuple[str, int]:
    """SHA-256 and rows of the input; all its faults at once, before the first row is judged."""
    whole, rows = hashlib.sha256(), 0
    faults: list[str] = []
    names = {prefix + f for f in FIELDS}
    try:
        for number, line in _lines(path):
            whole.update(line)
            rows += 1
            try:
                row = _read(line, path, number)
            except DataError as error:
                faults += error.faults
            else:
                faults += [
                    f"{path}:{number}: the row has a field {n!r} already; give --prefix"
                    for n in names & row.data.keys()
                ]
            if len(faults) >= 20:
                break
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    if faults:
        raise DataError(*faults)
    return whole.hexdigest(), rows


def _done(out: Path, state: _State, state_file: Path, rows: int) -> int:
    """How many rows of the output stand already; a line that a crash cut off is dropped."""
    if not out.exists() or not state_file.exists():
        if out.exists() and out.stat().st_size:
            raise RunError(
                f"{out}: exists and is no half-done output of this command; give another --out"
            )
        return 0
    try:
        before = msgspec.json.decode(state_file.read_bytes(), type=_State)
    except (msgspec.DecodeError, OSError) as error:
        raise RunError(f"{state_file}: {error}") from error
    if before != state:
        raise RunError(f"{out}: was begun with another judge, input or prefix; give another --out")
    body = out.read_bytes()
    whole = body.rfind(b"\n") + 1
    if whole != len(body):
        os.truncate(out, whole)
    count = body[:whole].count(b"\n")
    if count > rows:
        raise RunError(f"{out}: holds {count} rows, the input {rows}")
    return count


def _flags(judge: Judge, found: Judgement) -> list[str]:
    own = getattr(judge, "flagged", None)  # a classifier has a threshold for each category
    return (
        list(own(found.harms)) if callable(own) else [c for c, p in found.harms.items() if p >= 0.5]
    )


async def _judge(judge: Judge, row: _Row) -> Judgement:
    sample = Sample(id=str(row.number), conversation=row.conversation)
    if row.response is not None:
        return await judge.judge(
            sample, Response.of(sample.id, 0, "recorded", Answer.of(row.response))
        )
    prompts = getattr(judge, "of_prompts", None)  # a classifier that judges a prompt as a prompt
    if prompts is not None:
        empty = Response(sample_id=sample.id, message=Message("assistant", ""))
        made: Judgement = await prompts().judge(sample, empty)
        return made
    return await judge.judge(
        Sample(id=sample.id, conversation=Conversation()),
        Response.of(sample.id, 0, "recorded", Answer.of(sample.prompt)),
    )


def _written(judge: Judge, row: _Row, found: Judgement, prefix: str) -> bytes:
    """The input row with the judgement behind it."""
    failure = (
        None
        if found.failure is None
        else {"kind": found.failure.kind, "message": found.failure.message}
    )
    flagged = _flags(judge, found) if found.verdict is not None else []
    made = (found.score, found.verdict, found.harms, flagged, failure)
    return (
        msgspec.json.encode({**row.data, **{prefix + f: v for f, v in zip(FIELDS, made)}}) + b"\n"
    )


async def _work(
    judge: Judge, rows: Iterator[_Row], prefix: str, sink: Any, bar: Bar, total: int, done: int
) -> dict[str, int]:
    counts = {"rows": 0, "flagged": 0, "unscored": 0}
    try:
        for chunk in _chunks(rows):
            found = await asyncio.gather(*(_judge(judge, row) for row in chunk))
            sink.write(
                b"".join(_written(judge, row, one, prefix) for row, one in zip(chunk, found))
            )
            sink.flush()
            counts["rows"] += len(chunk)
            counts["flagged"] += sum(one.verdict is True for one in found)
            counts["unscored"] += sum(one.verdict is None for one in found)
            bar(done + counts["rows"], total, counts["unscored"])
    finally:
        if isinstance(judge, Closeable):
            await judge.close()
        await close_connections()
    return counts


def command(
    *,
    judge: str,
    in_: Annotated[Path, Parameter(name="--in")],
    out: Path,
    prefix: str = "",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Judges every row of a JSONL file; the same command goes on where it stopped.

    Parameters
    ----------
    judge
        Spec of the judge, such as moderation:default, guard:llama-guard,model=(...) or keywords:.
    in_
        Rows with response and prompt or messages; with prompt alone; or with text. - reads standard input.
    out
        The rows with harmful, flagged, categories, flagged_categories and failure; - writes to standard output.
    prefix
        Put before the names of these fields, where the rows have such fields already.
    json
        Print the counts as JSON.
    """
    made: Judge = resolve(judge, "judge")
    if str(in_) == "-" or str(out) == "-":
        counts, done, _ = _stream(made, in_, out, prefix)
    else:
        counts, done, _ = _file(made, in_, out, prefix, quiet=json)
    shown = {"judge": made.name, "judge_hash": made.lineage.hash, "resumed_at": done, **counts}
    where = sys.stderr if str(out) == "-" else sys.stdout
    if json:
        print(msgspec.json.encode(shown).decode(), file=where)
    else:
        went_on = f" (went on at row {done + 1})" if done else ""
        print(
            f"{counts['rows']} rows judged by {made.name}{went_on}: {counts['flagged']} flagged, "
            f"{counts['unscored']} unscored",
            file=where,
        )
    return 1 if counts["rows"] and counts["unscored"] == counts["rows"] else 0


def _file(
    judge: Judge, in_: Path, out: Path, prefix: str, *, quiet: bool
) -> tuple[dict[str, int], int, int]:
    if in_.resolve() == out.resolve():
        raise UserError(f"--out {out}: is the input")
    sha256, total = _check(in_, prefix)
    state = _State(
        judge=judge.name, judge_hash=judge.lineage.hash, input_sha256=sha256, prefix=prefix
    )
    state_file = out.with_name(out.name + ".state")
    done = _done(out, state, state_file, total)
    out.parent.mkdir(parents=True, exist_ok=True)
    state_file.write_bytes(msgspec.json.encode(state))
    rows = (_read(line, in_, number) for at, (number, line) in enumerate(_lines(in_)) if at >= done)
    with out.open("ab") as sink, Bar("moderating", quiet=quiet) as bar:
        counts = asyncio.run(_work(judge, rows, prefix, sink, bar, total, done))
        os.fsync(sink.fileno())
    return counts, done, total


def _stream(judge: Judge, in_: Path, out: Path, prefix: str) -> tuple[dict[str, int], int, int]:
    def rows() -> Iterator[_Row]:
        for number, line in _lines(in_):
            row = _read(line, in_, number)
            taken = {prefix + f for f in FIELDS} & row.data.keys()
            if taken:
                raise DataError.at(
                    in_, number, f"the row has a field {min(taken)!r} already; give --prefix"
                )
            yield row

    with sys.stdout.buffer if str(out) == "-" else out.open("xb") as sink:
        return (
            asyncio.run(_work(judge, rows(), prefix, sink, Bar("moderating", quiet=True), 0, 0)),
            0,
            0,
        )
