"""Stored answers or production logs as a model: `answers:FILE`.

The file is JSONL (or CSV and TSV as spreadsheets write them, or Parquet) with rows of `prompt` or
`messages` and `response` (other names by `prompt=COLUMN,response=COLUMN`); rows of OpenAI request
logs (`request.messages`, `response.choices`) are read too. A folder that a run left is read as its
samples and responses. A conversation is found by all its messages, else by its newest prompt; what
is not there is a failure of kind ``missing``. Several rows of one prompt are several answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from truing.core.csv_rows import CsvTable, decode_lines
from truing.core.errors import DataError, SpecError, did_you_mean
from truing.core.json_text import describe_json_error, parse_json
from truing.core.jsonl import number_nonblank_lines
from truing.core.lineage import digest
from truing.core.parquet_rows import read_parquet_rows
from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.runs.folder import Run
from truing.runs.parts import locate_record_files
from truing.specs.resolve import Args

_RESPONSES = ("response", "answer", "completion", "output")


def _conversation_key(conversation: Conversation) -> bytes:
    # Keys are 8-byte digests, not texts: a production log may hold millions of long prompts.
    text = "\0".join(f"{m.role}\1{m.content}" for m in conversation.messages)
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()


def _prompt_key(prompt: str) -> bytes:
    # `person` separates the two kinds of key: they share one table.
    return hashlib.blake2b(
        prompt.strip().encode("utf-8", "replace"), digest_size=8, person=b"prompt"
    ).digest()


class StoredAnswers:
    """A table of conversations and their stored answers."""

    def __init__(
        self, pairs: Iterator[tuple[Conversation, str]], *, name: str, version: str = ""
    ) -> None:
        self.name = name
        self._answers: dict[bytes, list[str]] = {}
        # The newest prompt is a second key: a log often lacks the turns before it.
        for conversation, text in pairs:
            for key in (_conversation_key(conversation), _prompt_key(conversation.prompt)):
                self._answers.setdefault(key, []).append(text)
        if not self._answers:
            raise DataError(f"{name}: no stored answers")
        self.lineage = Lineage(name=name, hash=digest("answers", version or name))

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Returns the first `n` answers in the order of the file; missing ones are failures."""
        stored = (
            self._answers.get(_conversation_key(conversation))
            or self._answers.get(_prompt_key(conversation.prompt))
            or []
        )
        missing = Answer.failed(
            "missing", f"there are {len(stored)} stored answers to this prompt, not {sampling.n}"
        )
        return tuple(
            Answer.of(stored[i]) if i < len(stored) else missing for i in range(sampling.n)
        )


def _read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line or row number, row) of a JSONL, CSV, TSV or Parquet file."""
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        # Parquet has no lines: the number in an error message is that of the row.
        for index, fields in read_parquet_rows(path):
            yield index + 1, fields
    elif suffix in (".csv", ".tsv"):
        with path.open("rb") as stream:
            delimiter = "\t" if suffix == ".tsv" else None
            for row in CsvTable(decode_lines(stream, path), path, delimiter).rows():
                if isinstance(row, DataError):
                    raise row
                yield row
    else:
        with path.open("rb") as stream:
            for number, line in number_nonblank_lines(stream, path):
                try:
                    row = parse_json(line.decode())
                except UnicodeDecodeError as error:
                    raise DataError.at(path, number, "not UTF-8") from error
                except ValueError as error:
                    reason = f"not JSON: {describe_json_error(error)}"
                    raise DataError.at(path, number, reason) from error
                if not isinstance(row, dict):
                    raise DataError.at(path, number, "expected an object")
                yield number, row


def _read_conversation(row: dict[str, Any], column: str | None) -> Conversation | None:
    request = row.get("request")
    messages = request.get("messages") if isinstance(request, dict) else row.get("messages")
    # A column that the user names wins over `messages`, which many logs hold as well.
    if column is None and isinstance(messages, list):
        return Conversation.from_openai(messages)
    prompt = row.get(column or "prompt")
    return Conversation.of(prompt) if isinstance(prompt, str) else None


def _read_answer_text(row: dict[str, Any], column: str | None) -> str | None:
    for name in (column,) if column else _RESPONSES:
        value = row.get(name)
        # `response` of an OpenAI request log is the whole completion object.
        if isinstance(value, dict) and value.get("choices"):
            value = (value["choices"][0].get("message") or {}).get("content")
        if isinstance(value, str):
            return value
    return None


def read_stored_answers(
    path: Path, prompt: str | None = None, response: str | None = None
) -> Iterator[tuple[Conversation, str]]:
    """Yields the conversations and answers of a file or of a run folder.

    Raises DataError with file and line for rows that cannot be read.
    """
    if path.is_dir():
        run = Run(path)
        conversations = {s.id: s.conversation for s in run.samples()}
        for r in run.responses():
            if r.failure is None and r.sample_id in conversations:
                yield conversations[r.sample_id], r.text
        return
    for number, row in _read_rows(path):
        try:
            conversation, text = _read_conversation(row, prompt), _read_answer_text(row, response)
        except (ValueError, AttributeError, TypeError, IndexError) as error:
            raise DataError.at(path, number, str(error)) from error
        if conversation is None:
            raise DataError.at(
                path,
                number,
                f"no column {prompt or 'prompt'!r}{did_you_mean(prompt or 'prompt', row)}",
            )
        if text is None:
            column = response or "response"
            raise DataError.at(path, number, f"no column {column!r}{did_you_mean(column, row)}")
        # Logs often list the answer as the last message too; the key is what came before it.
        if conversation.messages and conversation.last.role == "assistant":
            conversation = Conversation(conversation.messages[:-1])
        yield conversation, text


def build(args: Args) -> StoredAnswers:
    """Returns the model of an `answers:` spec."""
    path = Path(args.name)
    if not args.name or not (path.is_file() or path.is_dir()):
        raise SpecError(f"spec '{args.spec}': there is no file {args.name!r}")
    files = locate_record_files(path, "responses.jsonl") if path.is_dir() else [path]
    # The content, not the path, is the version: a resumed run must notice changed answers.
    sha256 = hashlib.sha256()
    for file in filter(Path.is_file, files):
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                sha256.update(chunk)
    version = sha256.hexdigest()
    pairs = read_stored_answers(path, args.text("prompt"), args.text("response"))
    return StoredAnswers(pairs, name=f"answers:{path.name}", version=version)
