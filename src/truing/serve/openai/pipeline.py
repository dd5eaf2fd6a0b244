"""What every request passes before a route sees it, cheapest first: header bounds, API key, rate,
admission, body, encoding. A client without a key costs the server no body and no JSON.

Also what every response gets: a request id, a log line, the metrics; and the end of the work when a
client leaves, whether it waits or reads a stream.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import traceback
from pathlib import Path
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from truing.serve.openai.admission import AdmissionControl, RequestRefused
from truing.serve.openai.metrics import ServerMetrics
from truing.serve.openai.request_body import (
    ClientLeft,
    check_body_headers,
    check_json,
    read_body,
)
from truing.serve.openai.request_log import RequestRecord, start_record
from truing.serve.openai.schemas import error_body

LOGGER = logging.getLogger("truing.serve")
_PATHS_WITHOUT_KEY = frozenset({"/", "/health", "/ready"})
_API_PATHS = ("/v1/", "/beta/")  # counted, and bounded by the rate of a key
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})
# A status for the log and the metrics only, as nginx has it: the client left before the answer.
CLIENT_CLOSED_REQUEST = 499


def refusal_response(error: RequestRefused) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Returns status, headers and body of a refusal, in the OpenAI form."""
    body = error_body(error.message, error.kind, param=error.param)
    headers = [(b"content-type", b"application/json")]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(max(1, round(error.retry_after))).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    return error.status, headers, body


def internal_error(error: Exception, record: RequestRecord) -> RequestRefused:
    """Logs a fault of this server, and returns the refusal (500) for it."""
    # The type and the places alone: the message of an exception may hold text of the request.
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    places = " > ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in frames)
    LOGGER.error("%s: %s at %s", record.request_id, type(error).__name__, places)
    return RequestRefused(500, f"internal error: {type(error).__name__}", "server_error")


class ResponseSender:
    """Sends a response: adds the request id, and notes status and size."""

    def __init__(self, send: Send, record: RequestRecord) -> None:
        self._send, self._record = send, record
        self.status = 0
        self.finished = False
        self.over = asyncio.Event()
        """Set when the response is complete or its client has left."""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            headers.append((b"x-request-id", self._record.request_id.encode()))
            message["headers"] = headers
        elif message["type"] == "http.response.body":
            self._record.sent_bytes += len(message.get("body", b""))
            self.finished = not message.get("more_body", False)
        await self._send(message)
        if self.finished:
            self.over.set()
        elif message["type"] == "http.response.body":
            # A model that never waits would otherwise hold the event loop for its whole answer,
            # and nobody would notice that the client has left. Not after the headers, which the
            # loop sends together with a body that is there.
            await asyncio.sleep(0)

    async def send_refusal(self, error: RequestRefused) -> None:
        """Sends an error, unless a response has begun."""
        self._record.error = error.kind
        if self.status:
            return
        status, headers, body = refusal_response(error)
        headers.append((b"content-length", str(len(body)).encode()))
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": body, "more_body": False})


class RequestPipeline:
    """ASGI middleware around all routes of the server.

    With keys, every path needs one but `/`, `/health` and `/ready`, `/metrics` with
    `metrics_open`, and `open_paths`.
    `routes` are the paths that the log and the metrics name.
    """

    def __init__(
        self,
        app: ASGIApp,
        admission: AdmissionControl,
        metrics: ServerMetrics,
        *,
        routes: frozenset[str],
        metrics_open: bool = False,
        open_paths: frozenset[str] = frozenset(),
    ) -> None:
        self._app, self._admission, self._metrics, self._routes = app, admission, metrics, routes
        metrics_paths = {"/metrics"} if metrics_open else frozenset[str]()
        self._open_paths = _PATHS_WITHOUT_KEY | metrics_paths | open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:  # a websocket: there is no route for one
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        record = start_record(scope)
        record.route = record.path if record.path in self._routes else None
        response = ResponseSender(send, record)
        try:
            async with record.stack:
                await self._serve(scope, receive, response, record)
        except RequestRefused as error:
            await response.send_refusal(error)
        except ClientLeft:
            record.client_left = True
        except Exception as error:
            await response.send_refusal(internal_error(error, record))
        finally:
            self._finish(record, response.status)

    async def _serve(
        self, scope: HTTPScope, receive: Receive, response: ResponseSender, record: RequestRecord
    ) -> None:
        limits = self._admission.limits
        check_request_line(scope, limits.header_bytes, limits.headers)
        headers = dict(scope["headers"])
        # As it was sent: only the exact path is open without a key.
        if scope["path"] not in self._open_paths:
            sent_key = headers.get(b"authorization") or headers.get(b"x-api-key") or b""
            key = self._admission.check_key(sent_key.decode("latin-1"))
            record.tenant = hashlib.sha256(key).hexdigest() if key else ""
            if record.path.startswith(_API_PATHS):
                await self._admission.check_rate(record.tenant)
        if record.method not in _BODY_METHODS:
            await self._app(scope, _body_receiver(b"", response.over), response)
            return
        with self._admission.admit():
            check_body_headers(headers, limits)
            body = await read_body(receive, limits)
            record.received_bytes = len(body)
            check_json(body, limits)
            await self._run_until_client_leaves(scope, receive, body, response)

    async def _run_until_client_leaves(
        self, scope: Scope, receive: Receive, body: bytes, response: ResponseSender
    ) -> None:
        """Runs the route; cancels it when the client closes the connection before the response is
        complete. Raises ClientLeft then.
        """
        task = asyncio.current_task()
        assert task is not None
        has_left = False

        async def watch_connection() -> None:
            nonlocal has_left
            while (await receive())["type"] != "http.disconnect":
                pass
            # Servers also report a disconnect when the response is complete.
            if not response.finished:
                has_left = True
                task.cancel()

        watcher = asyncio.create_task(watch_connection())
        try:
            await self._app(scope, _body_receiver(body, response.over), response)
        except (Exception, asyncio.CancelledError):
            if not has_left:
                raise
        finally:
            watcher.cancel()
        if has_left:
            if task.uncancel() > 0:  # the server cancels the request too
                raise asyncio.CancelledError
            raise ClientLeft

    def _finish(self, record: RequestRecord, status: int) -> None:
        if record.client_left:
            status = CLIENT_CLOSED_REQUEST
        if record.path.startswith(_API_PATHS):
            # Unknown paths share one label: clients must not be able to make new ones.
            route = record.route or "other"
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.seconds.labels(route).observe(record.seconds)
        record.log(status)


def check_request_line(scope: HTTPScope, max_bytes: int, max_headers: int) -> None:
    """Raises RequestRefused for a path (414) or headers (431) beyond the bounds."""
    line_bytes = len(scope.get("raw_path") or b"") + len(scope["query_string"])
    if line_bytes > max_bytes // 2:
        raise RequestRefused(414, f"the path is longer than {max_bytes // 2} bytes")
    headers = list(scope["headers"])
    size = line_bytes + sum(len(name) + len(value) for name, value in headers)
    if len(headers) > max_headers or size > max_bytes:
        message = f"more than {max_headers} headers, or {max_bytes} bytes of them"
        raise RequestRefused(431, message)


def _body_receiver(body: bytes, over: asyncio.Event) -> Receive:
    """Returns an ASGI `receive` that gives a body that was already read, and reports the disconnect
    when the response is `over`.
    """
    pending = [body]

    async def receive() -> Any:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        await over.wait()
        return {"type": "http.disconnect"}

    return receive
