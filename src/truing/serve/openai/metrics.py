"""The Prometheus metrics of `/metrics`: requests, seconds, answers, rulings, tokens, requests in
flight. No texts, no users.

Several processes behind one port add up: each writes its numbers to files in the folder that
PROMETHEUS_MULTIPROC_DIR names, and the one that is asked reads those of all.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from truing.core.types import Answer

PROCESSES_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # seconds


class ServerMetrics:
    """The metrics of one server, in a registry of its own: two servers in a process do not
    add up.
    """

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
        self.first_text = Histogram(
            "truing_first_text_seconds",
            "Seconds from a request to the first text of its stream, past the rails",
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.rulings = Counter(
            "truing_rulings", "Decisions of rails", ("rail", "ruling"), registry=self.registry
        )
        self.answers = Counter(
            "truing_answers", "Answers, streams included", ("finish",), registry=self.registry
        )
        self.broken_streams = Counter(
            "truing_broken_streams",
            "Streams that ended with an error",
            ("error",),
            registry=self.registry,
        )
        self.tokens = Counter(
            "truing_tokens", "Tokens read and written", ("kind",), registry=self.registry
        )
        self.in_flight = Gauge(
            "truing_in_flight",
            "Requests being answered",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.alarm_evidence = Gauge(
            "truing_harm_alarm_evidence",
            "E-value of the harm alarm",
            registry=self.registry,
            multiprocess_mode="livemax",
        )

    def count_answers(self, answers: tuple[Answer, ...]) -> None:
        """Counts answers, their tokens and the decisions of rails on them."""
        for answer in answers:
            self.answers.labels(answer.finish_reason[:20]).inc()
            self.tokens.labels("read").inc(answer.usage.prompt_tokens)
            self.tokens.labels("written").inc(answer.usage.completion_tokens)
            for ruling in answer.rulings:
                if ruling.ruling != "allow":
                    # A name in a configuration may be of any length; a label may not.
                    self.rulings.labels(ruling.name[:60], ruling.ruling).inc()

    def render(self) -> bytes:
        """Returns the metrics in Prometheus' text format."""
        if PROCESSES_FOLDER not in os.environ:
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)
