"""Reads Inspect AI's logs (`.eval`, version 2; also those of Petri): scorers become judges.

A sample's epochs are several answers to it; the answer is the first choice of the output, with its
stop reason and its tool calls; an agent's calls and their results are the episode. A sample with a
result whose call it lacks is a failed response: turns are missing. A scorer answers the question
that `truing export inspect` noted, else ``passed``: true, C (correct) and 1 are yes, false, I
(incorrect), N (no answer) and 0 are no. Any other number is a value, each number of a dictionary of
scores (as Petri's judge gives them) a value with its key as the question; what is neither is
unscored.

The file is a zip archive of somebody else's: member names are only looked up, and what they
expand to is bounded.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from truing.core.bounds import FREE_EXPANDED_BYTES, MAX_EXPANSION, MAX_ROW_BYTES
from truing.core.errors import DataError
from truing.core.types import (
    Conversation,
    Judgement,
    Message,
    Response,
    Role,
    Row,
    Sample,
    ToolCall,
)
from truing.exchange.agent_traces import find_missing_turns, read_episode
from truing.exchange.base import (
    ToolResultsDataset,
    make_judgement,
    make_response,
    require_file,
)
from truing.specs.extras import needs_extra
from truing.specs.resolve import Args

_MEMBER = re.compile(r"samples/(?P<id>.+)_epoch_(?P<epoch>\d{1,6})\.json")
_ZSTANDARD = 93  # the number of the method in zip archives
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_NO_JSON = re.compile(rb"[:\[,]\s*(?:NaN|-?Infinity)\b")
_ATTACHMENT = "attachment://"
_YES_LETTERS, _NO_LETTERS = ("C", "Y"), ("I", "N")
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_MAX_DICTIONARY_SCORES = 200
_VERSION = 2
_FINISH_REASONS: dict[str, str] = {
    "stop": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


class _ScorerSpec(Struct):
    name: str = ""
    metadata: dict[str, Any] | None = None


class _EvalSpec(Struct):
    model: str = ""
    scorers: list[_ScorerSpec] | None = None


class _Header(Struct):
    eval: _EvalSpec
    version: int = 0


class _TracedCall(Struct):
    id: str = ""
    function: str = ""
    arguments: Any = None


class _ChatMessage(Struct):
    role: str = "user"
    content: str | list[dict[str, Any]] = ""
    tool_calls: list[_TracedCall] | None = None
    tool_call_id: str | None = None
    error: Any = None


class _Choice(Struct):
    message: _ChatMessage = field(default_factory=_ChatMessage)
    stop_reason: str = "stop"


class _Output(Struct):
    model: str = ""
    completion: str | None = None
    choices: list[_Choice] = field(default_factory=list)
    error: str | None = None


class _Score(Struct):
    value: Any = None
    explanation: str | None = None


class _Error(Struct):
    message: str = ""


class _EvalSample(Struct):
    id: str | int
    epoch: int = 1
    input: str | list[_ChatMessage] = ""
    choices: list[str] | None = None
    messages: list[_ChatMessage] = field(default_factory=list)
    output: _Output = field(default_factory=_Output)
    scores: dict[str, _Score] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    attachments: dict[str, str] = field(default_factory=dict)
    error: _Error | None = None


class _Log:
    """An open log: its members by sample, read within bounds."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path, self._archive = path, archive
        self._left = FREE_EXPANDED_BYTES + MAX_EXPANSION * path.stat().st_size
        header: Any = _decode(path, "header.json", self.read("header.json"), _Header)
        if header.version != _VERSION:
            reason = f"a log of version {header.version}; version {_VERSION} is read"
            raise DataError.at(path, None, f"header.json: {reason}")
        self.model: str = header.eval.model
        self.questions = {
            scorer.name: str((scorer.metadata or {}).get("question") or "passed")
            for scorer in header.eval.scorers or ()
        }

    def members(self) -> dict[str, list[str]]:
        """Returns sample -> its members in the order of the epochs."""
        by_sample: dict[str, list[tuple[int, str]]] = {}
        for name in self._archive.namelist():
            match = _MEMBER.fullmatch(name)
            if match:
                epochs = by_sample.setdefault(match["id"], [])
                epochs.append((int(match["epoch"]), name))
        return {id_: [name for _, name in sorted(epochs)] for id_, epochs in by_sample.items()}

    def read(self, name: str) -> bytes:
        """Returns a member; raises DataError if it is not there, damaged or too large."""
        try:
            member = self._archive.getinfo(name)
            if member.compress_type == _ZSTANDARD:
                member_bytes = read_zstandard_member(self._path, member)
            else:
                with self._archive.open(name) as stream:
                    member_bytes = stream.read(MAX_ROW_BYTES + 1)
        except KeyError as error:
            raise DataError.at(
                self._path, None, f"no log of Inspect: there is no {name}"
            ) from error
        except NotImplementedError as error:
            raise DataError.at(self._path, None, f"{name}: {error}") from error
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError) as error:
            raise DataError.at(self._path, None, f"{name}: {error}") from error
        self._left -= len(member_bytes)
        if len(member_bytes) > MAX_ROW_BYTES or self._left < 0:
            raise DataError.at(self._path, None, f"{name}: expands to more than is read")
        return member_bytes


def read_zstandard_member(path: Path, member: zipfile.ZipInfo) -> bytes:
    """Returns a member that is compressed by Zstandard, as Inspect writes them since 2025.

    Python reads them from 3.14 on; before, pyarrow does. Raises MissingExtra without it, OSError
    or ValueError for a damaged member; of a large one, no more than a byte over the bound is read.
    """
    with needs_extra("reading a log of Inspect"):
        import pyarrow

    with path.open("rb") as file:
        file.seek(member.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
            raise ValueError("the archive is damaged")
        # Its own lengths: those of the central directory may differ.
        name_length, extra_length = _LOCAL_HEADER.unpack(header)[-2:]
        file.seek(name_length + extra_length, os.SEEK_CUR)
        compressed = file.read(min(member.compress_size, MAX_ROW_BYTES))
    with pyarrow.CompressedInputStream(pyarrow.BufferReader(compressed), "zstd") as stream:
        data: bytes = stream.read(MAX_ROW_BYTES + 1)
    if len(data) <= MAX_ROW_BYTES and zlib.crc32(data) != member.CRC:
        raise ValueError("the checksum is not that of the archive")
    return data


def _decode(path: Path, name: str, data: bytes, kind: type) -> object:
    """Decodes a member; Inspect writes NaN, which is no JSON, for what is unscored."""
    try:
        if not _NO_JSON.search(data):
            return msgspec.json.decode(data, type=kind)
        document = json.loads(data, parse_constant=lambda _: None)
        return msgspec.convert(document, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DataError.at(path, None, f"{name}: {error}") from error


def _text(content: str | list[dict[str, Any]], attachments: dict[str, str]) -> str:
    """Returns the text of a message; reasoning and pictures are no part of what was said."""
    if not isinstance(content, str):
        parts = (p.get("text") for p in content if p.get("type", "text") == "text")
        content = "\n".join(part for part in parts if isinstance(part, str))
    if content.startswith(_ATTACHMENT):
        return attachments.get(content[len(_ATTACHMENT) :], content)
    return content


def _conversation(sample: _EvalSample) -> Conversation:
    if isinstance(sample.input, str):
        return Conversation.of(_text(sample.input, sample.attachments))
    return Conversation(
        tuple(
            Message(_ROLES.get(m.role, "user"), _text(m.content, sample.attachments))
            for m in sample.input
        )
    )


def _response(sample: _EvalSample, index: int, model: str) -> Response:
    output = sample.output
    answer: str | None = output.completion
    if output.choices:
        answer = _text(output.choices[0].message.content, sample.attachments)
    elif answer:
        answer = _text(answer, sample.attachments)
    error = sample.error.message if sample.error is not None else output.error or ""
    if not error and not output.choices and not answer:
        answer = None  # the log holds no answer, which is not an empty one
    before, messages = _messages(sample)
    error = error or find_missing_turns(messages, before)
    response = make_response(index, answer, output.model or model, error)
    if output.choices and response.failure is None:
        choice = output.choices[0]
        message = Message("assistant", answer or "", _tool_calls(choice.message))
        # A reason that Inspect does not know ("unknown") is none that truing could state.
        reason = _FINISH_REASONS.get(choice.stop_reason, "stop")
        response = replace(response, message=message, finish_reason=reason)
    failed = [m.tool_call_id for m in sample.messages if m.error is not None and m.tool_call_id]
    # What an agent did is from the first answer after the sample's input on.
    episode = read_episode(messages, failed)
    return response if episode is None else replace(response, episode=episode)


def _tool_calls(message: _ChatMessage) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(call.id, call.function, json.dumps(call.arguments or {}))
        for call in message.tool_calls or ()
    )


def _messages(sample: _EvalSample) -> tuple[list[Message], list[Message]]:
    """Returns the messages of the sample's input, and those after it."""
    messages = [
        Message(
            _ROLES.get(m.role, "user"),
            _text(m.content, sample.attachments),
            _tool_calls(m),
            m.tool_call_id,
        )
        for m in sample.messages
    ]
    n_input = 1 if isinstance(sample.input, str) else len(sample.input)
    return messages[:n_input], messages[n_input:]


def _verdict(value: Any) -> tuple[bool | None, float | None]:
    """Returns (the answer to a yes-or-no question, or a value), of which one at most is known."""
    if isinstance(value, bool):
        return value, None
    if isinstance(value, str):
        letter = value.strip().upper()
        if letter in _YES_LETTERS or letter in _NO_LETTERS:
            return letter in _YES_LETTERS, None
        try:
            value = float(value)
        except ValueError:
            return None, None
    if value in (0, 1):
        return bool(value), None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None, None
    return None, number if math.isfinite(number) else None


def _judgements(sample: _EvalSample, index: int, questions: dict[str, str]) -> Iterator[Judgement]:
    for name, score in (sample.scores or {}).items():
        question = questions.get(name.split("#")[0], "passed")
        values = {question: score.value}
        if isinstance(score.value, dict):
            values = dict(list(score.value.items())[:_MAX_DICTIONARY_SCORES])
        for part_question, value in values.items():
            is_part = isinstance(score.value, dict)
            verdict, number = _verdict(value)
            if is_part and verdict is not None and not isinstance(value, bool):
                verdict, number = None, float(bool(verdict))  # 1 of a scale is no yes
            yield make_judgement(
                f"inspect:{name}" + (f"/{part_question}" if is_part else ""),
                str(part_question),
                verdict,
                index=index,
                value=number,
                rationale=score.explanation,
            )


def read_inspect_log(path: Path) -> Iterator[Row]:
    """Yields the rows of a log; raises DataError with the member that cannot be read."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError.at(path, None, f"no log of Inspect (.eval): {error}") from error
    with archive:
        log = _Log(path, archive)
        members = log.members()
        if not members:
            raise DataError.at(path, None, "the log holds no samples")
        for names in members.values():
            epochs: list[_EvalSample] = []
            for name in names:
                sample: Any = _decode(path, name, log.read(name), _EvalSample)
                epochs.append(sample)
            yield _row(epochs, log)


def _row(epochs: list[_EvalSample], log: _Log) -> Row:
    first = epochs[0]
    metadata = first.metadata
    harms = metadata.get("harms")
    tags = {k: str(v) for k, v in metadata.items() if isinstance(v, str | int | float | bool)}
    sample = Sample(
        conversation=_conversation(first),
        harms=tuple(h for h in harms if isinstance(h, str)) if isinstance(harms, list) else (),
        choices=tuple(first.choices or ()),
        tags={**tags, "inspect_id": str(first.id)},
    )
    responses = tuple(_response(s, index, log.model) for index, s in enumerate(epochs))
    judgements = [
        judgement
        for index, epoch in enumerate(epochs)
        for judgement in _judgements(epoch, index, log.questions)
    ]
    return Row(sample=sample, responses=responses, judgements=tuple(judgements))


def build(args: Args) -> ToolResultsDataset:
    """Builds `inspect:FILE.eval`."""
    return ToolResultsDataset(
        str(args.spec), require_file(args, "an Inspect log"), "inspect", read_inspect_log
    )
