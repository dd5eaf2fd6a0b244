"""Spans of turns and rails: names, counts and times, no texts."""

from __future__ import annotations

import time

import pytest

from truing.core.types import Answer, Message, Ruling
from truing.serve.openai.tracing import TurnTracer, tracer_from_environment


def test_turns_and_rails_are_spans_without_text() -> None:
    import opentelemetry.sdk.trace as sdk
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    seen = InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(seen))
    tracer = TurnTracer(provider)
    block = Ruling(name="own", stage="input", ruling="block", reason="a secret", ms=2.0)
    blocked = Answer(
        message=Message("assistant", "a secret"), finish_reason="blocked", rulings=(block,)
    )
    started_ns = time.time_ns()
    tracer.record_turn("talker", blocked, started_ns)
    tracer.record_turn("talker", Answer.failed("timeout", "late"), started_ns)
    spans = seen.get_finished_spans()
    assert sorted(s.name.split(" ")[0] for s in spans) == ["chat", "chat", "rail"]
    rail = next(s for s in spans if s.name == "rail own")
    turn = next(s for s in spans if s.context.span_id == rail.parent.span_id)
    assert rail.attributes["truing.rail.ruling"] == "block"
    assert turn.attributes["gen_ai.response.finish_reasons"] == ("blocked",)
    assert turn.start_time <= rail.start_time <= rail.end_time <= turn.end_time
    assert rail.end_time - rail.start_time == 2_000_000
    failed = next(s for s in spans if s.name == "chat talker" and s is not turn)
    assert failed.status.description == "timeout"
    assert "secret" not in str([dict(s.attributes) for s in spans])


def test_no_collector_no_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert tracer_from_environment() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    tracer = tracer_from_environment()
    assert tracer is not None
    tracer.close()
