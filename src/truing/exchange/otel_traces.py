"""Reads traces of agents in the OpenTelemetry conventions for generative AI: `otel:FILE.jsonl`.

The file holds OTLP JSON, one document or one a line, as the file exporter of a collector writes it.
Each trace is one sample: of its spans with messages (`gen_ai.input.messages` and
`gen_ai.output.messages`), the last one to begin has the whole conversation. The prompt is what
stands before the first answer; turns, calls and results become the episode of the response, so that
`transcript,of=(JUDGE)` reads them. A trace with a result whose call it lacks is a failed response:
turns are missing, and what they did is not known. Spans without messages (content capture
is off by default in many instrumentations) hold nothing to judge: a file without any is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, Struct, field

from truing.core.errors import DataError
from truing.core.input_files import open_input
from truing.core.jsonl import number_nonblank_lines
from truing.core.types import Conversation, Message, Role, Row, Sample, ToolCall
from truing.exchange.agent_traces import find_missing_turns, read_episode
from truing.exchange.base import ToolResultsDataset, decode_json, make_response, require_file
from truing.specs.resolve import Args

_INPUT_MESSAGES, _OUTPUT_MESSAGES = "gen_ai.input.messages", "gen_ai.output.messages"
_SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
_MODEL_ATTRIBUTES = ("gen_ai.response.model", "gen_ai.request.model")
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


class _Value(Struct):
    stringValue: str | None = None


class _Attribute(Struct):
    key: str
    value: _Value = field(default_factory=_Value)


class _Span(Struct):
    traceId: str
    startTimeUnixNano: str | int = 0
    attributes: list[_Attribute] = field(default_factory=list)

    @property
    def texts(self) -> dict[str, str]:
        """The attributes that are texts."""
        return {a.key: a.value.stringValue for a in self.attributes if a.value.stringValue}


class _ScopeSpans(Struct):
    spans: list[_Span] = field(default_factory=list)


class _ResourceSpans(Struct):
    scopeSpans: list[_ScopeSpans] = field(default_factory=list)


class _Document(Struct):
    resourceSpans: list[_ResourceSpans] = field(default_factory=list)


class _Part(Struct):
    type: str = "text"
    content: Any = None
    id: str | None = None
    name: str = ""
    arguments: Any = None
    response: Any = None


class _TracedMessage(Struct):
    role: str
    parts: list[_Part] = field(default_factory=list)


def read_otel_traces(path: Path) -> Iterator[Row]:
    """Yields a row for each trace with messages; raises DataError with the line of a fault."""
    newest: dict[str, tuple[int, int, dict[str, str]]] = {}
    with open_input(path) as stream:
        for line, data in number_nonblank_lines(stream, path):
            document: Any = decode_json(path, data, _Document, line)
            for span in _spans(document):
                if not span.texts.get(_OUTPUT_MESSAGES):
                    continue
                start = int(span.startTimeUnixNano) if str(span.startTimeUnixNano).isdigit() else 0
                if span.traceId not in newest or start >= newest[span.traceId][0]:
                    newest[span.traceId] = (start, line, span.texts)
    if not newest:
        raise DataError.at(
            path, None, f"no span has messages ({_OUTPUT_MESSAGES}): nothing to judge"
        )
    for trace, (_, line, texts) in newest.items():
        yield _read_trace(path, line, trace, texts)


def _spans(document: _Document) -> Iterator[_Span]:
    for resource in document.resourceSpans:
        for scope in resource.scopeSpans:
            yield from scope.spans


def _read_trace(path: Path, line: int, trace: str, texts: dict[str, str]) -> Row:
    messages = [
        message
        for key in (_INPUT_MESSAGES, _OUTPUT_MESSAGES)
        if key in texts
        for traced in _decode(path, line, key, texts[key], list[_TracedMessage])
        for message in _messages(traced)
    ]
    if _SYSTEM_INSTRUCTIONS in texts:
        parts = _decode(path, line, _SYSTEM_INSTRUCTIONS, texts[_SYSTEM_INSTRUCTIONS], list[_Part])
        messages.insert(0, Message("system", _join(parts)))
    first_answer = next((i for i, m in enumerate(messages) if m.role == "assistant"), len(messages))
    answers = [m for m in messages[first_answer:] if m.role == "assistant"]
    model = next((texts[key] for key in _MODEL_ATTRIBUTES if key in texts), "")
    fault = find_missing_turns(messages[first_answer:])
    response = make_response(0, answers[-1].content if answers else None, model, fault)
    episode = read_episode(messages[first_answer:])
    response = msgspec.structs.replace(response, episode=UNSET if episode is None else episode)
    prompt = Conversation(tuple(messages[:first_answer]))
    return Row(
        sample=Sample(conversation=prompt, tags={"otel_trace": trace}), responses=(response,)
    )


def _decode(path: Path, line: int, key: str, text: str, kind: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DataError.at(path, line, f"{key}: {error}") from error


def _messages(traced: _TracedMessage) -> Iterator[Message]:
    """Yields the message; of a message with results of tools, one for each."""
    results = [part for part in traced.parts if part.type == "tool_call_response"]
    for part in results:
        yield Message("tool", _write(part.response), (), part.id or "")
    if results:
        return
    calls = tuple(
        ToolCall(part.id or "", part.name, _write(part.arguments or {}))
        for part in traced.parts
        if part.type == "tool_call"
    )
    yield Message(_ROLES.get(traced.role, "user"), _join(traced.parts), calls)


def _join(parts: list[_Part]) -> str:
    """Returns the text of parts; reasoning and media are no part of what was said."""
    texts = [p.content for p in parts if p.type == "text" and isinstance(p.content, str)]
    return "\n".join(texts)


def _write(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def build(args: Args) -> ToolResultsDataset:
    """Builds `otel:FILE.jsonl`."""
    return ToolResultsDataset(
        str(args.spec), require_file(args, "traces in OTLP JSON"), "otel", read_otel_traces
    )
