"""What `/metrics` tells (Prometheus): requests, seconds, rulings, tokens, what is in flight. No text, no user."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from truing.core.types import Answer

_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """One registry a server, so that two in a process do not add up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "truing_requests", "Requests", ("path", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "truing_request_seconds",
            "Seconds from request to answer",
            ("path",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.rulings = Counter(
            "truing_rulings", "Decisions of rails", ("rail", "ruling"), registry=self.registry
        )
        self.tokens = Counter(
            "truing_tokens", "Tokens read and written", ("kind",), registry=self.registry
        )
        self.busy = Gauge("truing_in_flight", "Requests being answered", registry=self.registry)
        self.alarm = Gauge(
            "truing_harm_alarm_evidence", "E-value of the harm alarm", registry=self.registry
        )

    def count(self, answers: tuple[Answer, ...]) -> None:
        """Adds what the answers cost and what the rails decided."""
        for answer in answers:
            self.tokens.labels("read").inc(answer.usage.prompt_tokens)
            self.tokens.labels("written").inc(answer.usage.completion_tokens)
            for ruling in answer.rulings:
                if ruling.ruling != "allow":
                    self.rulings.labels(ruling.name[:60], ruling.ruling).inc()

    def page(self) -> bytes:
        """The text format."""
        return generate_latest(self.registry)
