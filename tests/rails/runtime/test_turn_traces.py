"""Traces of turns: NeMo's adapters FileSystem and OpenTelemetry."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from truing.core.errors import PlanError
from truing.core.types import Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.rails.config.loader import RailsConfig
from truing.rails.config.trust import find_code_uses
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder

COLANG = """
define subflow no forbidden words
  if "FORBIDDEN" in $user_message
    bot refuse to respond
    stop
"""


def _guard(adapter: dict[str, Any]) -> GuardedModel:
    config = {
        "rails": {"input": {"flows": ["no forbidden words"]}},
        "tracing": {"enabled": True, "adapters": [adapter]},
    }
    loaded = RailsConfig.from_text(json.dumps(config), COLANG, trust_code=True)
    parts = RuntimeParts(encoder=LexicalEncoder())
    return GuardedModel(loaded, ScriptedModel("Hello."), parts=parts)


def _ask(model: GuardedModel, *texts: str) -> list[str]:
    async def run() -> list[str]:
        return [(await model.answer(Conversation.of(t), Sampling())).text for t in texts]

    return asyncio.run(run())


def test_a_file_gets_a_line_for_each_turn(tmp_path: Path) -> None:
    file = tmp_path / "traces" / "traces.jsonl"
    model = _guard({"name": "FileSystem", "filepath": str(file)})
    assert _ask(model, "hi", "FORBIDDEN") == ["Hello.", "I'm sorry, I can't respond to that."]
    passed, blocked = [json.loads(line) for line in file.read_text().splitlines()]
    assert passed["schema_version"] == "2.0" and passed["trace_id"] != blocked["trace_id"]
    request, rail, call = passed["spans"]
    assert [span["name"] for span in passed["spans"]] == [
        "guardrails.request",
        "guardrails.rail",
        "completion",
    ]
    assert request["parent_id"] is None and request["span_kind"] == "server"
    assert rail["parent_id"] == call["parent_id"] == request["span_id"]
    assert rail["attributes"] == {
        "rail.type": "input",
        "rail.name": "no forbidden words",
        "rail.stop": False,
        "rail.decisions": ["allow"],
    }
    assert request["duration"] >= rail["duration"] >= 0
    assert blocked["spans"][1]["attributes"]["rail.stop"] is True
    assert "FORBIDDEN" not in file.read_text() and "Hello" not in file.read_text()


def test_opentelemetry_gets_spans() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    model = _guard({"name": "OpenTelemetry", "service_name": "bot"})
    model.runtime.traces._adapters[0]._tracer = provider.get_tracer("bot")
    _ask(model, "hi")
    rail, call, request = exporter.get_finished_spans()
    assert (request.name, request.kind.name) == ("guardrails.request", "SERVER")
    assert rail.parent.span_id == call.parent.span_id == request.context.span_id
    assert request.start_time <= rail.start_time <= rail.end_time <= request.end_time


def test_a_trace_that_cannot_be_written_does_not_stop_the_turn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "traces.jsonl"
    model = _guard({"name": "FileSystem", "filepath": str(file)})
    file.mkdir()
    with caplog.at_level(logging.WARNING, "truing.rails"):
        assert _ask(model, "hi") == ["Hello."]
    assert "the trace of a turn was not written" in caplog.text


def test_an_adapter_that_does_not_exist_is_a_fault() -> None:
    with pytest.raises(PlanError, match="config.yml:1: there is no tracing adapter 'FileSistem'"):
        RailsConfig.from_text("tracing: {enabled: true, adapters: [{name: FileSistem}]}")
    RailsConfig.from_text("tracing: {enabled: false, adapters: [{name: Other}]}")


def test_a_file_is_written_only_for_a_trusted_configuration() -> None:
    config = RailsConfig.from_text("tracing: {enabled: true}")
    (use,) = find_code_uses(config)
    assert str(use) == "config.yml:1: appends traces to the file ./.traces/trace.jsonl"
    assert find_code_uses(RailsConfig.from_text("tracing: {enabled: false}")) == []
