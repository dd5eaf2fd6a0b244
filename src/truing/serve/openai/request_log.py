"""The record of one request, and the line that is logged of it: ids, names, counts and times. No
text, no key, no address.

The lines go to the logger `truing.serve.openai.request_log` at level INFO; `truing serve` writes
them to stderr as JSON, one a request.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
from litestar.types import HTTPScope, Scope

from truing.core.types import Answer, Usage

LOGGER = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAX_NAME = 100  # characters of a name in a log line
_GATHER_SECONDS = 0.05  # in which lines gather before they are written
_LINES_AT_ONCE = 100


class RequestRecord:
    """What is known of one request; the pipeline makes it and the handlers fill it in.

    `stack` is closed when the request is over, also where its client has left: what a handler must
    release then (its slot, a stream) is pushed on it.
    """

    def __init__(self, request_id: str, method: str, path: str) -> None:
        self.request_id, self.method, self.path = request_id, method, path
        self.stack = AsyncExitStack()
        self.tenant = ""
        self.route: str | None = None
        self.config: str | None = None
        self.model: str | None = None
        self.decision: str | None = None
        self.finish_reason: str | None = None
        self.error: str | None = None
        self.upstream_ms: float | None = None
        self.first_text_ms: float | None = None  # of a stream, from the arrival of the request
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.received_bytes = 0
        self.sent_bytes = 0
        self.client_left = False
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self._started

    def note_answers(self, answers: Sequence[Answer], turn_ms: float) -> None:
        """Notes the decision of the rails, finish reason, tokens and times of a turn's answers.

        `upstream_ms` is the part of the turn that was not spent in rails.
        """
        rulings = [ruling for answer in answers for ruling in answer.rulings]
        decisions = {ruling.ruling for ruling in rulings}
        for decision in ("block", "rewrite", "allow"):
            if decision in decisions:
                self.decision = decision
                break
        self.finish_reason = answers[0].finish_reason
        self.upstream_ms = max(0.0, turn_ms - sum(ruling.ms for ruling in rulings) / len(answers))
        if any(answer.usage != Usage() for answer in answers):  # a stream of text counts none
            self.prompt_tokens = max(answer.usage.prompt_tokens for answer in answers)
            self.completion_tokens = sum(answer.usage.completion_tokens for answer in answers)

    def fields(self, status: int) -> dict[str, Any]:
        """Returns the fields of the log line."""
        return {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": self.request_id,
            "method": self.method,
            "route": self.route,
            "status": status,
            "config": self.config and self.config[:_MAX_NAME],
            "model": self.model and self.model[:_MAX_NAME],
            "decision": self.decision,
            "finish_reason": self.finish_reason,
            "error": self.error,
            "client_left": self.client_left,
            "ms": round(1000 * self.seconds, 1),
            "upstream_ms": None if self.upstream_ms is None else round(self.upstream_ms, 1),
            "first_text_ms": None if self.first_text_ms is None else round(self.first_text_ms, 1),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "received_bytes": self.received_bytes,
            "sent_bytes": self.sent_bytes,
        }

    def log(self, status: int) -> None:
        """Writes the log line."""
        if LOGGER.isEnabledFor(logging.INFO):
            line = msgspec.json.encode(self.fields(status)).decode()
            # Not `LOGGER.info`, which walks the stack for the place of the call.
            LOGGER.handle(LOGGER.makeRecord(LOGGER.name, logging.INFO, "", 0, line, (), None))


def new_request_id() -> str:
    """Returns a random id, `req_...`."""
    return f"req_{secrets.token_hex(12)}"


def start_record(scope: HTTPScope) -> RequestRecord:
    """Returns the record of a request, and keeps it in the scope for `record_of`.

    Its path is the one that the router sees: without empty segments and without a final slash.
    """
    sent = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    # An id of another form could forge a header or a log line: the request gets one of ours.
    request_id = sent if _REQUEST_ID.fullmatch(sent) else new_request_id()
    # The router skips empty segments: `//v1/models` must be counted as `/v1/models` is.
    path = "/" + "/".join(segment for segment in str(scope["path"]).split("/") if segment)
    record = RequestRecord(request_id, str(scope["method"])[:20], path)
    scope.setdefault("state", {})["request_record"] = record
    return record


def record_of(scope: Scope) -> RequestRecord:
    """Returns the record of the request that a scope belongs to."""
    record: RequestRecord = scope["state"]["request_record"]
    return record


class BackgroundLineWriter(logging.Handler):
    """Writes log lines in a thread of its own, those of a moment together.

    A pipe that nobody reads blocks its writer: here it is the thread that waits, not the server.
    Lines beyond `capacity` are dropped, and the next line that is written says how many.
    """

    def __init__(self, stream: TextIO, capacity: int = 10_000) -> None:
        super().__init__()
        self._stream = stream
        self._capacity = capacity
        self._lines: deque[str] = deque()
        self._dropped = self._unwritten = 0
        self._has_lines = threading.Event()
        self._thread = threading.Thread(target=self._write_lines, name="request-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queues a line."""
        if len(self._lines) >= self._capacity:
            self._dropped += 1
            return
        if self._dropped:
            self._lines.append(f'{{"dropped_lines":{self._dropped}}}')
            self._dropped = 0
        self._lines.append(record.getMessage())
        # To wake the thread costs a request more than all else here: once for all of a moment.
        if not self._has_lines.is_set():
            self._has_lines.set()

    def flush(self) -> None:
        """Waits until what is queued is written, at most two seconds."""
        deadline = time.monotonic() + 2.0
        while (
            (self._lines or self._unwritten)
            and self._thread.is_alive()
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)

    def close(self) -> None:
        """Writes what is queued. The thread goes on: `logging.config` closes all handlers that
        there are when a library sets up its own, and they are used after that.
        """
        self.flush()
        super().close()

    def _write_lines(self) -> None:
        while True:
            self._has_lines.wait()
            time.sleep(_GATHER_SECONDS)
            # Cleared before the lines are taken: a line that comes later sets it again.
            self._has_lines.clear()
            while self._lines:
                self._unwritten = min(len(self._lines), _LINES_AT_ONCE)
                lines = [self._lines.popleft() for _ in range(self._unwritten)]
                try:
                    self._stream.write("\n".join(lines) + "\n")
                    self._stream.flush()
                except (OSError, ValueError):  # the reader of the pipe is gone, or it is closed
                    return
                self._unwritten = 0


def flush_log() -> None:
    """Waits for the lines that are not written yet, at most two seconds."""
    for handler in LOGGER.handlers:
        handler.flush()


def log_to_stderr() -> None:
    """Writes the lines to stderr, and nowhere else."""
    for handler in LOGGER.handlers:
        handler.close()
    # Not sys.stderr itself: Python aborts at its end where a thread still holds that object's lock.
    stream = os.fdopen(os.dup(2), "w", encoding="utf-8")
    LOGGER.handlers[:] = [BackgroundLineWriter(stream)]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
