"""Reads garak's report (`*.report.jsonl`): attempts are samples, detectors are judges.

Detector scores run from 0 to 1, 1 meaning that the probe hit; garak counts a hit from
`run.eval_threshold` on (0.5 unless the report or `threshold=` sets another). Reports of garak 0.9
to 0.17 are read: prompts as texts, as turns, or as whole conversations.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from truing.core.errors import DataError
from truing.core.jsonl import number_nonblank_lines
from truing.core.types import Conversation, Judgement, Message, Response, Role, Row, Sample
from truing.exchange.base import (
    HIT_QUESTION,
    ToolResultsDataset,
    decode_json,
    make_judgement,
    make_response,
    require_file,
)
from truing.specs.resolve import Args

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


class _TextContent(Struct):
    text: str | None = None


class _Turn(Struct):
    role: str
    content: _TextContent | str | None = None


class _Dialogue(Struct):
    turns: list[_Turn] = field(default_factory=list)


class _EntryHeader(Struct):
    """The keys that all lines share; `entry_type` is the type of a line."""

    entry_type: str = ""
    uuid: str = ""
    status: int | None = None


class _Attempt(Struct):
    prompt: _Dialogue | str | None = None
    probe_classname: str = ""
    outputs: list[_TextContent | str | None] = field(default_factory=list)
    detector_results: dict[str, list[float | None]] = field(default_factory=dict)
    conversations: list[_Dialogue | None] | None = None
    goal: str | None = None
    intent: str | None = None
    status: int | None = None


class _RunSetup(Struct):
    threshold: float | None = field(default=None, name="run.eval_threshold")
    target_type: str | None = field(default=None, name="plugins.target_type")
    target_name: str | None = field(default=None, name="plugins.target_name")
    model_type: str | None = field(default=None, name="plugins.model_type")  # before 0.13
    model_name: str | None = field(default=None, name="plugins.model_name")

    @property
    def model(self) -> str:
        """Returns `type:name` of the generator."""
        parts = (self.target_type or self.model_type, self.target_name or self.model_name)
        return ":".join(p for p in parts if p)


def _iter_lines(path: Path) -> Iterator[tuple[int, bytes, _EntryHeader]]:
    with path.open("rb") as stream:
        for number, line in number_nonblank_lines(stream, path):
            head = decode_json(path, line, _EntryHeader, number)
            assert isinstance(head, _EntryHeader)
            yield number, line, head


def _plain_text(content: _TextContent | str | None) -> str | None:
    return content.text if isinstance(content, _TextContent) else content


def _to_messages(turns: _Dialogue) -> tuple[Message, ...]:
    return tuple(
        Message(_ROLES.get(t.role, "user"), _plain_text(t.content) or "") for t in turns.turns
    )


def _input_messages(attempt: _Attempt, index: int) -> tuple[Message, ...]:
    """Returns the messages before the `index`-th output: its conversation, or else the prompt."""
    conversations = attempt.conversations or []
    if index < len(conversations) and conversations[index] is not None:
        messages = _to_messages(conversations[index])  # type: ignore[arg-type]
        # A conversation includes the output itself as its last turn.
        while messages and messages[-1].role == "assistant":
            messages = messages[:-1]
        if messages:
            return messages
    if isinstance(attempt.prompt, str):
        return (Message("user", attempt.prompt),)
    return _to_messages(attempt.prompt) if attempt.prompt is not None else ()


def _convert_attempt(attempt: _Attempt, model: str, threshold: float) -> Iterator[Row]:
    """Yields one row for all outputs after the same messages; in a dialogue these differ."""
    groups: dict[tuple[Message, ...], list[int]] = {}
    for index in range(max(1, len(attempt.outputs))):
        groups.setdefault(_input_messages(attempt, index), []).append(index)
    tags = {
        k: v
        for k, v in (
            ("probe", attempt.probe_classname),
            ("intent", attempt.intent),
            ("goal", attempt.goal),
        )
        if v
    }
    for messages, indexes in groups.items():
        if not messages:
            continue
        sample = Sample(
            conversation=Conversation(messages),
            tags=tags,
            source=f"garak:{attempt.probe_classname}",
        )
        responses: list[Response] = []
        judgements: list[Judgement] = []
        for response_index, index in enumerate(indexes if attempt.outputs else ()):
            responses.append(
                make_response(response_index, _plain_text(attempt.outputs[index]), model)
            )
            for detector, scores in attempt.detector_results.items():
                score = scores[index] if index < len(scores) else None
                verdict = None if score is None else score >= threshold
                # `score` is a probability in our records; the verdict still uses the raw number.
                bounded = score if score is not None and 0 <= score <= 1 else None
                judgements.append(
                    make_judgement(
                        f"garak:{detector}",
                        HIT_QUESTION,
                        verdict,
                        index=response_index,
                        score=bounded,
                    )
                )
        yield Row(sample=sample, responses=tuple(responses), judgements=tuple(judgements))


def read_garak_report(path: Path, threshold: float | None = None) -> Iterator[Row]:
    """Yields the rows of a report.

    garak writes an attempt before and after its detectors ran; the later entry (status 2) is used.
    """
    # Two passes: whether an attempt has a later entry is known only at the end of the file, and
    # reports are too large to keep in memory.
    setup, finished_ids, attempts = _RunSetup(), set(), 0
    for number, line, head in _iter_lines(path):
        if head.entry_type == "start_run setup":
            decoded_setup: Any = decode_json(path, line, _RunSetup, number)
            setup = decoded_setup
        elif head.entry_type == "attempt":
            attempts += 1
            if head.status == 2:
                finished_ids.add(head.uuid)
    if not attempts:
        raise DataError.at(path, None, "no attempts: is this a garak report (*.report.jsonl)?")
    limit = (
        threshold
        if threshold is not None
        else setup.threshold
        if setup.threshold is not None
        else 0.5
    )
    decoder = msgspec.json.Decoder(_Attempt)
    for number, line, head in _iter_lines(path):
        if head.entry_type != "attempt" or (head.status != 2 and head.uuid in finished_ids):
            continue
        try:
            attempt = decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise DataError.at(path, number, str(error)) from error
        yield from _convert_attempt(attempt, setup.model, limit)


def build(args: Args) -> ToolResultsDataset:
    """Builds `garak:FILE.report.jsonl[,threshold=0.5]`."""
    path, threshold = require_file(args, "a garak report"), args.number("threshold")
    return ToolResultsDataset(
        str(args.spec), path, "garak", lambda file: read_garak_report(file, threshold)
    )
