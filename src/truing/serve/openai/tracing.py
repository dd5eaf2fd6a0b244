"""Spans for OpenTelemetry (the `otel` extra): one a turn, one for each rail in it. Names, counts and times; no text, no user.

On where `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) names a collector; the other variables of
OpenTelemetry's specification hold too. Attributes follow its conventions for generative models where there are any.
"""

from __future__ import annotations

import os
import time
from typing import Any

from truing.core.types import Answer
from truing.specs.resolve import load_object

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Traces:
    """Writes the spans of turns to a tracer of OpenTelemetry."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("truing")
        self._in = load_object("opentelemetry.trace:set_span_in_context")
        self._status = (
            load_object("opentelemetry.trace:Status"),
            load_object("opentelemetry.trace:StatusCode"),
        )

    def turn(self, model: str, answer: Answer, began: int) -> None:
        """One turn that began at a time in ns and ends now."""
        span = self._tracer.start_span(
            f"chat {model}",
            start_time=began,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": model,
                "gen_ai.response.finish_reasons": [answer.finish_reason],
                "gen_ai.usage.input_tokens": answer.usage.prompt_tokens,
                "gen_ai.usage.output_tokens": answer.usage.completion_tokens,
            },
        )
        inside, at = self._in(span), began
        for ruling in answer.rulings:
            end = at + int(ruling.ms * 1e6)
            one = self._tracer.start_span(
                f"rail {ruling.name}",
                context=inside,
                start_time=at,
                attributes={
                    "truing.rail.name": ruling.name,
                    "truing.rail.stage": ruling.stage,
                    "truing.rail.ruling": ruling.ruling,
                    "truing.rail.llm_calls": ruling.llm_calls,
                    **({"truing.rail.score": ruling.score} if ruling.score is not None else {}),
                },
            )
            one.end(end_time=end)
            at = end
        if answer.failure is not None:
            status, code = self._status
            span.set_status(status(code.ERROR, answer.failure.kind))
        span.end(end_time=max(time.time_ns(), at))

    def close(self) -> None:
        """Sends what has not been sent."""
        self._provider.shutdown()


def from_environment() -> Traces | None:
    """Traces to the collector that the environment names, if it names one; MissingExtra without the `otel` extra."""
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    resource = load_object("opentelemetry.sdk.resources:Resource").create(
        {"service.name": os.environ.get("OTEL_SERVICE_NAME", "truing")}
    )
    provider = load_object("opentelemetry.sdk.trace:TracerProvider")(resource=resource)
    exporter = load_object(
        "opentelemetry.exporter.otlp.proto.http.trace_exporter:OTLPSpanExporter"
    )()
    provider.add_span_processor(
        load_object("opentelemetry.sdk.trace.export:BatchSpanProcessor")(exporter)
    )
    return Traces(provider)
