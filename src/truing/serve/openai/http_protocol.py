"""uvicorn's HTTP protocol with the bounds that must hold before there is a request: connections,
header bytes, seconds for a request to arrive, seconds for a response to be read.

uvicorn has none of them: its parser gathers headers of any length, a connection that sends nothing
stays open, and a response that nobody reads stays in memory.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.request_log import RequestRecord, new_request_id
from truing.serve.openai.schemas import error_body

# In which a request must begin to arrive over a connection that is new when the server ends.
_FIRST_BYTE_SECONDS = 2.0
_REASONS = {
    400: b"Bad Request",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


class _JoiningTransport:
    """The transport of one response: its head leaves together with a body that is there.

    uvicorn writes them one after the other, and uvloop sends each write at once: two system calls,
    and two packets for the client.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head = b""
        self._sending: asyncio.Handle | None = None
        self._has_begun = False

    def write(self, data: bytes) -> None:
        """Holds the head until the body is written, at most to the next turn of the event loop."""
        if not self._has_begun:
            self._has_begun, self._head = True, data
            self._sending = self._loop.call_soon(self._send_head)
            return
        head = self._take_head()
        self._transport.write(head + data if head else data)

    def close(self) -> None:
        """Sends what is held, and closes the connection."""
        self._send_head()
        self._transport.close()

    def is_closing(self) -> bool:
        """Returns whether the connection is closed, or is about to be."""
        return self._transport.is_closing()

    def _take_head(self) -> bytes:
        head, self._head = self._head, b""
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        return head

    def _send_head(self) -> None:
        head = self._take_head()
        if head and not self._transport.is_closing():
            self._transport.write(head)


def bounded_protocol(limits: ServerLimits) -> type[BoundedHttpProtocol]:
    """Returns the class that uvicorn's `http` option takes, with these limits."""
    return type("LimitedHttpProtocol", (BoundedHttpProtocol,), {"limits": limits})


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection of the server; refusals have the OpenAI form and close it."""

    limits = ServerLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._header_bytes: int | None = 0  # None between the headers and the end of the body
        self._bytes_after_header = 0
        self._body_bytes = 0
        self._arrival_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._unfinished: list[RequestResponseCycle] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time in which something must arrive."""
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "too many connections", "server_error")
            return
        self._start_arrival_timer(self.limits.header_seconds)

    def shutdown(self) -> None:
        """Closes a connection without a request; one that is arriving is answered first."""
        if self._header_bytes:
            return  # its response closes the connection
        if self.cycle is None:
            self._start_arrival_timer(_FIRST_BYTE_SECONDS)
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the work of all requests of the connection."""
        super().connection_lost(exc)
        self._stop_arrival_timer()
        self._stop_send_timer()
        # uvicorn tells the newest of several pipelined requests alone that its client has left.
        for cycle in self._unfinished:
            cycle.disconnected = True
            cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parses what arrived, within the bounds of headers and trailers."""
        if self.transport.is_closing():
            return
        if self._arrival_timer is None:
            self._start_arrival_timer(self.limits.header_seconds)
        # Counted before it is parsed: the parser keeps what it has read of an endless header.
        if self._header_bytes is not None:
            self._header_bytes += len(data)
        else:
            self._bytes_after_header += len(data)
        super().data_received(data)
        if self._header_bytes is not None:
            if self._header_bytes > self.limits.header_bytes:
                message = f"the headers are longer than {self.limits.header_bytes} bytes"
                self._refuse(431, message)
        elif self._bytes_after_header > self.limits.header_bytes + 8 * self._body_bytes:
            # Chunks of one byte have five bytes around each; the rest can only be trailers, which
            # the parser keeps like headers.
            self._refuse(400, "trailers are not read")

    def on_message_begin(self) -> None:
        """Starts the time in which the headers of a request must arrive."""
        super().on_message_begin()
        self._start_arrival_timer(self.limits.header_seconds)

    def on_headers_complete(self) -> None:
        """Hands the request to the application; from now on its body has to arrive."""
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":  # whose head no body follows
            joining = _JoiningTransport(self.transport, self.loop)
            self.cycle.transport = joining  # type: ignore[assignment]
        self._header_bytes, self._bytes_after_header, self._body_bytes = None, 0, 0
        self._unfinished = [c for c in self._unfinished if not c.response_complete]
        self._unfinished.append(self.cycle)
        # The application waits `body_seconds` and answers 408; this is for what it did not read.
        self._start_arrival_timer(2 * self.limits.body_seconds)

    def on_body(self, body: bytes) -> None:
        """Passes a part of the body on."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stops the time in which the request must arrive."""
        super().on_message_complete()
        self._header_bytes = 0
        self._stop_arrival_timer()

    def pause_writing(self) -> None:
        """Starts the time in which the client must read what it was sent."""
        super().pause_writing()
        self._send_timer = self.loop.call_later(self.limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stops the time in which the client must read."""
        super().resume_writing()
        self._stop_send_timer()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP."""
        self._refuse(400, msg)

    def _start_arrival_timer(self, seconds: float) -> None:
        self._stop_arrival_timer()
        self._arrival_timer = self.loop.call_later(seconds, self._on_late_request)

    def _stop_arrival_timer(self) -> None:
        if self._arrival_timer is not None:
            self._arrival_timer.cancel()
            self._arrival_timer = None

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None

    def _on_late_request(self) -> None:
        self._arrival_timer = None
        if self.flow.read_paused:
            # The server itself does not read: an earlier request of the connection is answered.
            self._start_arrival_timer(self.limits.header_seconds)
            return
        if self._header_bytes == 0:
            self.transport.close()  # a connection kept for later: there is no request to answer
        else:
            self._refuse(408, "the request did not arrive in time")

    def _refuse(self, status: int, message: str, kind: str = "invalid_request_error") -> None:
        """Sends an error, unless a response is under way, and closes the connection."""
        if self.transport.is_closing():
            return
        # A response that has begun, of this request or of an earlier one, must not be mixed with
        # another.
        answered = self._header_bytes is None and self.cycle.response_started
        earlier = self._unfinished if self._header_bytes is not None else self._unfinished[:-1]
        if not answered and all(cycle.response_complete for cycle in earlier):
            record = RequestRecord(new_request_id(), "", "")
            record.error = kind
            record.log(status)
            body = error_body(message, kind)
            head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nx-request-id: %s\r\n" % (
                status,
                _REASONS[status],
                record.request_id.encode(),
            )
            if status == 503:
                head += b"retry-after: 1\r\n"
            self.transport.write(
                head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body
            )
        self.transport.close()
