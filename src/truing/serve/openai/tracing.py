"""OpenTelemetry spans (the `otel` extra): one a turn and one for each rail in it. Names, counts and
times; no texts, no users.

On where `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`) names a collector;
the other variables of OpenTelemetry's specification hold too. Attributes follow its semantic
conventions for generative models where there are any.
"""

from __future__ import annotations

import os
import time
from typing import Any

from truing.core.types import Answer
from truing.specs.resolve import load_object

_ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class TurnTracer:
    """Writes the spans of turns through a tracer provider of OpenTelemetry."""

    def __init__(self, provider: Any) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("truing")
        self._set_span_in_context = load_object("opentelemetry.trace:set_span_in_context")
        self._status = load_object("opentelemetry.trace:Status")
        self._status_code = load_object("opentelemetry.trace:StatusCode")

    def record_turn(self, model: str, answer: Answer, started_ns: int) -> None:
        """Writes the spans of a turn that started at `started_ns` (Unix time in ns) and ends
        now.
        """
        span = self._tracer.start_span(
            f"chat {model}",
            start_time=started_ns,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": model,
                "gen_ai.response.finish_reasons": [answer.finish_reason],
                "gen_ai.usage.input_tokens": answer.usage.prompt_tokens,
                "gen_ai.usage.output_tokens": answer.usage.completion_tokens,
            },
        )
        context = self._set_span_in_context(span)
        # A ruling records how long its rail took, not when it began: the spans follow one another.
        rail_start_ns = started_ns
        for ruling in answer.rulings:
            rail_end_ns = rail_start_ns + int(ruling.ms * 1e6)
            attributes = {
                "truing.rail.name": ruling.name,
                "truing.rail.stage": ruling.stage,
                "truing.rail.ruling": ruling.ruling,
                "truing.rail.llm_calls": ruling.llm_calls,
            }
            if ruling.score is not None:
                attributes["truing.rail.score"] = ruling.score
            rail_span = self._tracer.start_span(
                f"rail {ruling.name}",
                context=context,
                start_time=rail_start_ns,
                attributes=attributes,
            )
            rail_span.end(end_time=rail_end_ns)
            rail_start_ns = rail_end_ns
        if answer.failure is not None:
            span.set_status(self._status(self._status_code.ERROR, answer.failure.kind))
        span.end(end_time=max(time.time_ns(), rail_start_ns))

    def close(self) -> None:
        """Exports the spans that are still buffered."""
        self._provider.shutdown()


def tracer_from_environment() -> TurnTracer | None:
    """Returns a tracer that exports to the collector named by the environment; None if none is
    named.

    Raises MissingExtra without the `otel` extra.
    """
    if not any(os.environ.get(name) for name in _ENDPOINT_VARIABLES):
        return None
    service = os.environ.get("OTEL_SERVICE_NAME", "truing")
    resource = load_object("opentelemetry.sdk.resources:Resource").create({"service.name": service})
    provider = load_object("opentelemetry.sdk.trace:TracerProvider")(resource=resource)
    exporter = load_object(
        "opentelemetry.exporter.otlp.proto.http.trace_exporter:OTLPSpanExporter"
    )()
    processor = load_object("opentelemetry.sdk.trace.export:BatchSpanProcessor")(exporter)
    provider.add_span_processor(processor)
    return TurnTracer(provider)
