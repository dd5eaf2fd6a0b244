"""garak's report (`*.report.jsonl`): each attempt is a sample, its outputs are answers, its detectors judges.

Detector scores run from 0 to 1, 1 meaning that the probe hit; garak counts a hit from `run.eval_threshold` on (0.5
unless the report says otherwise, or `threshold=` does). Reports of garak 0.9 to 0.17 are read: prompts as texts, as
turns, or as whole conversations.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from truing.core.errors import DataError
from truing.core.jsonl import number_nonblank_lines
from truing.core.types import Conversation, Judgement, Message, Response, Row, Sample
from truing.exchange.base import HIT, Report, answered, decoded, file_of, said
from truing.specs.resolve import Args

_ROLES = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


class _Text(Struct):
    text: str | None = None


class _Turn(Struct):
    role: str
    content: _Text | str | None = None


class _Turns(Struct):
    turns: list[_Turn] = field(default_factory=list)


class _Head(Struct):
    """The part of every line by which it is known."""

    entry_type: str = ""
    uuid: str = ""
    status: int | None = None


class _Attempt(Struct):
    prompt: _Turns | str | None = None
    probe_classname: str = ""
    outputs: list[_Text | str | None] = field(default_factory=list)
    detector_results: dict[str, list[float | None]] = field(default_factory=dict)
    conversations: list[_Turns | None] | None = None
    goal: str | None = None
    intent: str | None = None
    status: int | None = None


class _Setup(Struct):
    threshold: float | None = field(default=None, name="run.eval_threshold")
    target_type: str | None = field(default=None, name="plugins.target_type")
    target_name: str | None = field(default=None, name="plugins.target_name")
    model_type: str | None = field(default=None, name="plugins.model_type")  # before 0.13
    model_name: str | None = field(default=None, name="plugins.model_name")

    @property
    def model(self) -> str:
        """`type:name` of the generator."""
        parts = (self.target_type or self.model_type, self.target_name or self.model_name)
        return ":".join(p for p in parts if p)


def _lines(path: Path) -> Iterator[tuple[int, bytes, _Head]]:
    with path.open("rb") as stream:
        for number, line in number_nonblank_lines(stream):
            head = decoded(path, line, _Head, number)
            assert isinstance(head, _Head)
            yield number, line, head


def _text(given: _Text | str | None) -> str | None:
    return given.text if isinstance(given, _Text) else given


def _messages(turns: _Turns) -> tuple[Message, ...]:
    return tuple(Message(_ROLES.get(t.role, "user"), _text(t.content) or "") for t in turns.turns)  # type: ignore[arg-type]


def _asked(attempt: _Attempt, index: int) -> tuple[Message, ...]:
    """What the model was asked before its `index`-th output: its conversation without the last answer, or the prompt."""
    own = attempt.conversations or []
    if index < len(own) and own[index] is not None:
        messages = _messages(own[index])  # type: ignore[arg-type]
        while messages and messages[-1].role == "assistant":
            messages = messages[:-1]
        if messages:
            return messages
    if isinstance(attempt.prompt, str):
        return (Message("user", attempt.prompt),)
    return _messages(attempt.prompt) if attempt.prompt is not None else ()


def _rows(attempt: _Attempt, model: str, threshold: float) -> Iterator[Row]:
    """One row for all outputs that follow the same messages (all of them, but in a dialogue)."""
    groups: dict[tuple[Message, ...], list[int]] = {}
    for index in range(max(1, len(attempt.outputs))):
        groups.setdefault(_asked(attempt, index), []).append(index)
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
        for at, index in enumerate(indexes if attempt.outputs else ()):
            responses.append(answered(at, _text(attempt.outputs[index]), model))
            for detector, scores in attempt.detector_results.items():
                score = scores[index] if index < len(scores) else None
                verdict = None if score is None else score >= threshold
                bounded = score if score is not None and 0 <= score <= 1 else None
                judgements.append(said(f"garak:{detector}", HIT, verdict, index=at, score=bounded))
        yield Row(sample=sample, responses=tuple(responses), judgements=tuple(judgements))


def read(path: Path, threshold: float | None = None) -> Iterator[Row]:
    """Rows of a report; an attempt that garak wrote twice (before and after its detectors) counts once."""
    setup, judged, attempts = _Setup(), set(), 0
    for number, line, head in _lines(path):
        if head.entry_type == "start_run setup":
            made: Any = decoded(path, line, _Setup, number)
            setup = made
        elif head.entry_type == "attempt":
            attempts += 1
            if head.status == 2:
                judged.add(head.uuid)
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
    for number, line, head in _lines(path):
        if head.entry_type != "attempt" or (head.status != 2 and head.uuid in judged):
            continue
        try:
            attempt = decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise DataError.at(path, number, str(error)) from error
        yield from _rows(attempt, setup.model, limit)


def build(args: Args) -> Report:
    """`garak:FILE.report.jsonl[,threshold=0.5]` as a data set."""
    path, threshold = file_of(args, "a garak report"), args.number("threshold")
    return Report(str(args.spec), path, "garak", lambda file: read(file, threshold))
