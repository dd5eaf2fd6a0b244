"""Traces of turns for the adapters that ``tracing:`` names, as in NeMo Guardrails.

`FileSystem` appends a line of JSON for each turn to a file; `OpenTelemetry` writes spans to the
tracer provider that the application has set. A trace holds names, times and counts: no texts.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from truing.core.private_files import create_folder, private_opener
from truing.core.types import Ruling
from truing.rails.config.loader import RailsConfig
from truing.rails.config.tracing import DEFAULT_TRACE_FILE, list_trace_adapters
from truing.rails.runtime.llm_client import LlmCallRecord
from truing.rails.runtime.turn_context import TurnContext
from truing.specs.resolve import load_object

SCHEMA_VERSION = "2.0"  # of NeMo's file: spans with OpenTelemetry's attributes
_LOGGER = logging.getLogger("truing.rails")


class TraceSpan(Struct, frozen=True):
    """A span; `start` and `end` are seconds since the turn began. The first is the turn's."""

    name: str
    span_type: str
    kind: str
    start: float
    end: float
    attributes: Mapping[str, Any]


class TraceAdapter(Protocol):
    """Writes the spans of one turn, which began at `started_ns` (Unix time in ns)."""

    def write(self, spans: Sequence[TraceSpan], started_ns: int) -> None:
        """Writes the spans."""


def build_spans(
    rulings: Sequence[Ruling], calls: Sequence[LlmCallRecord], seconds: float, error: str | None
) -> list[TraceSpan]:
    """Returns the span of a turn, those of its rails, and those of its LLM calls.

    A ruling and a call record how long they took, not when they began: within a turn the spans of
    each kind follow one another.
    """
    root: dict[str, Any] = {"gen_ai.operation.name": "guardrails"}
    if error is not None:
        root["error.type"] = error
    spans = [TraceSpan("guardrails.request", "InteractionSpan", "server", 0.0, seconds, root)]
    spans += _list_rail_spans(rulings)
    start = 0.0
    for call in calls:
        attributes = {
            "gen_ai.operation.name": "completion",
            "gen_ai.usage.input_tokens": call.prompt_tokens,
            "gen_ai.usage.output_tokens": call.completion_tokens,
            "gen_ai.usage.total_tokens": call.prompt_tokens + call.completion_tokens,
            "llm.task": call.task,
        }
        end = start + call.seconds
        spans.append(TraceSpan("completion", "LLMSpan", "client", start, end, attributes))
        start = end
    return spans


def _list_rail_spans(rulings: Sequence[Ruling]) -> Iterator[TraceSpan]:
    start = 0.0
    for ruling in rulings:
        attributes = {
            "rail.type": ruling.stage,
            "rail.name": ruling.name,
            "rail.stop": ruling.ruling == "block",
            "rail.decisions": [ruling.ruling],
        }
        end = start + ruling.ms / 1000
        yield TraceSpan("guardrails.rail", "RailSpan", "internal", start, end, attributes)
        start = end


class FileTraces:
    """Appends a line of JSON for each turn, in the form of NeMo's adapter `FileSystem`."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        create_folder(self._path.parent)

    def write(self, spans: Sequence[TraceSpan], started_ns: int) -> None:
        """Writes the spans."""
        root_id = uuid.uuid4().hex[:16]
        rows = [
            {
                "name": span.name,
                "span_id": root_id if index == 0 else uuid.uuid4().hex[:16],
                "parent_id": None if index == 0 else root_id,
                "start_time": round(span.start, 6),
                "end_time": round(span.end, 6),
                "duration": round(span.end - span.start, 6),
                "span_type": span.span_type,
                "span_kind": span.kind,
                "attributes": dict(span.attributes),
            }
            for index, span in enumerate(spans)
        ]
        trace = {"schema_version": SCHEMA_VERSION, "trace_id": str(uuid.uuid4()), "spans": rows}
        with open(self._path, "a", encoding="utf-8", opener=private_opener) as file:
            file.write(json.dumps(trace) + "\n")


class OpenTelemetryTraces:
    """Writes spans to the tracer provider that the application has set (extra `otel`)."""

    def __init__(self, service_name: str) -> None:
        self._tracer = load_object("opentelemetry.trace:get_tracer")(service_name)
        self._set_span_in_context = load_object("opentelemetry.trace:set_span_in_context")
        self._kinds = load_object("opentelemetry.trace:SpanKind")

    def write(self, spans: Sequence[TraceSpan], started_ns: int) -> None:
        """Writes the spans."""
        context, root = None, None
        for span in spans:
            written = self._tracer.start_span(
                span.name,
                context=context,
                kind=self._kinds[span.kind.upper()],
                start_time=started_ns + int(span.start * 1e9),
                attributes=dict(span.attributes),
            )
            if root is None:
                root, context = written, self._set_span_in_context(written)
            else:
                written.end(end_time=started_ns + int(span.end * 1e9))
        if root is not None:
            root.end(end_time=started_ns + int(spans[0].end * 1e9))


class TurnTraces:
    """The adapters of a configuration; without any, nothing is written."""

    def __init__(self, adapters: Sequence[TraceAdapter] = ()) -> None:
        self._adapters = tuple(adapters)

    @classmethod
    def of_config(cls, config: RailsConfig) -> TurnTraces:
        """Returns the adapters that ``tracing:`` names; MissingExtra without OpenTelemetry."""
        adapters: list[TraceAdapter] = []
        for adapter in list_trace_adapters(config.raw):
            if adapter["name"] == "OpenTelemetry":
                service = str(adapter.get("service_name") or "nemo_guardrails")
                adapters.append(OpenTelemetryTraces(service))
            else:
                adapters.append(FileTraces(str(adapter.get("filepath") or DEFAULT_TRACE_FILE)))
        return cls(adapters)

    @property
    def is_on(self) -> bool:
        """Whether anything is written."""
        return bool(self._adapters)

    def write(self, turn: TurnContext, started_ns: int) -> None:
        """Writes a finished or failed turn. What goes wrong is logged; the turn goes on."""
        if not self._adapters:
            return
        seconds = (time.time_ns() - started_ns) / 1e9
        spans = build_spans(turn.rulings, turn.counter.records or (), seconds, turn.error or None)
        for adapter in self._adapters:
            try:
                adapter.write(spans, started_ns)
            except Exception as error:
                _LOGGER.warning("the trace of a turn was not written: %s", error)
