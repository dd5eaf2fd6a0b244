"""The log of requests: ids, and a writer that never holds the server up."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import time
import weakref

import pytest

from truing.core.types import Answer, Message, Ruling, Usage
from truing.serve.openai import request_log
from truing.serve.openai.request_log import BackgroundLineWriter, RequestRecord, start_record


def line(text: str) -> logging.LogRecord:
    """A log record."""
    return logging.LogRecord("x", logging.INFO, "x", 1, text, None, None)


def test_lines_are_written_in_order() -> None:
    stream = io.StringIO()
    writer = BackgroundLineWriter(stream)
    for index in range(500):
        writer.emit(line(str(index)))
        if index == 250:  # as logging.config.dictConfig does to all handlers
            logging.shutdown([weakref.ref(writer)])
    writer.close()
    assert stream.getvalue().split() == [str(index) for index in range(500)]


def test_a_pipe_that_nobody_reads_costs_lines_and_no_time() -> None:
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w")
    writer = BackgroundLineWriter(stream, capacity=10)
    started = time.monotonic()
    for _ in range(2000):
        writer.emit(line("x" * 1000))
    assert time.monotonic() - started < 5
    received = b""
    end = time.monotonic() + 10
    while b"last" not in received and time.monotonic() < end:
        writer.emit(line("last"))
        received += os.read(reading, 65536)
    os.close(reading)
    dropped = [json.loads(text) for text in received.splitlines() if b"dropped_lines" in text]
    # The pipe takes 64 KiB and the queue ten lines.
    assert sum(row["dropped_lines"] for row in dropped) > 1800
    writer.emit(line("to a closed pipe"))
    writer.close()
    with contextlib.suppress(BrokenPipeError):
        stream.close()


def test_a_line_is_a_record_of_the_programs_own_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """As tracing libraries install one, which add their ids."""

    class TracedRecord(logging.LogRecord):
        trace_id = "abc"

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    records: list[logging.LogRecord] = []
    monkeypatch.setattr(request_log.LOGGER, "handlers", [Collector()])
    level = request_log.LOGGER.level
    request_log.LOGGER.setLevel(logging.INFO)  # the logger caches what it lets through
    logging.setLogRecordFactory(TracedRecord)
    try:
        RequestRecord("id", "POST", "/100%s").log(200)
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
        request_log.LOGGER.setLevel(level)
    (record,) = records
    assert isinstance(record, TracedRecord)
    assert json.loads(record.getMessage())["status"] == 200


@pytest.mark.parametrize(
    ("rulings", "decision"),
    [((), None), (("allow",), "allow"), (("allow", "rewrite"), "rewrite"), (("block",), "block")],
)
def test_a_record_has_the_strictest_decision_and_the_time_outside_of_rails(
    rulings: tuple[str, ...], decision: str | None
) -> None:
    record = RequestRecord("id", "POST", "/v1/chat/completions")
    answer = Answer(
        message=Message("assistant", "private"),
        usage=Usage(5, 3),
        rulings=tuple(
            Ruling(name="own", stage="input", ruling=ruling, reason="private", ms=10.0)  # type: ignore[arg-type]
            for ruling in rulings
        ),
    )
    record.note_answers([answer, answer], 100.0)
    fields = record.fields(200)
    assert fields["decision"] == decision
    assert fields["upstream_ms"] == 100.0 - 10.0 * len(rulings)
    assert (fields["prompt_tokens"], fields["completion_tokens"]) == (5, 6)
    assert "private" not in json.dumps(fields)
    # A stream of text counts no tokens: null, not 0.
    record = RequestRecord("id", "POST", "/v1/chat/completions")
    record.note_answers([Answer.of("private")], 1.0)
    assert record.fields(200)["completion_tokens"] is None


def test_an_id_that_could_forge_a_line_is_replaced() -> None:
    for sent, accepted in ((b"a-1_b.C", True), (b"a\nb", False), (b"", False), (b"\xff", False)):
        scope = {"method": "GET", "path": "/", "headers": [(b"x-request-id", sent)]}
        record = start_record(scope)  # type: ignore[arg-type]
        assert (record.request_id == sent.decode("latin-1")) is accepted
        assert scope["state"]["request_record"] is record  # type: ignore[index]
