"""Reads replies within their bounds: bodies, error bodies and streams of server-sent events.

Nothing is taken for granted about an endpoint: a body may be endless, compressed a thousandfold,
cut off, in another encoding, or nested without end.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from typing import TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from truing.http.bounds import BoundExceeded, ReplyBounds, check_json
from truing.http.retry import (
    RETRYABLE_STATUSES,
    THROTTLED_STATUSES,
    RequestError,
    parse_retry_after,
)

T = TypeVar("T")

_UNPARSABLE_RETRIES = 2
_MAX_ERROR_CHARS = 200
_PIECE_BYTES = 1 << 16
_GZIP = zlib.MAX_WBITS | 16


async def read_chunks(reply: aiohttp.ClientResponse, max_bytes: int) -> AsyncGenerator[bytes, None]:
    """Yields a body's decompressed bytes, in pieces of at most 64 KiB, and stops after `max_bytes`.

    The last piece may go beyond `max_bytes` by less than its own size: who counts can tell that
    there was more. Raises RequestError for an encoding that was not asked for or is damaged.
    """
    decompress = _decompressor(reply)
    size = 0
    async for compressed in reply.content.iter_any():
        for piece in decompress(compressed):
            size += len(piece)
            yield piece
            if size > max_bytes:
                return


def _decompressor(reply: aiohttp.ClientResponse) -> Callable[[bytes], Iterable[bytes]]:
    encoding = reply.headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return lambda data: (data,)
    if encoding in ("gzip", "x-gzip", "deflate"):
        return _Inflater(is_deflate=encoding == "deflate").feed
    raise RequestError(
        "unparsable",
        f"an answer in the content encoding {encoding[:40]!r}, which was not asked for",
        max_retries=0,
    )


class _Inflater:
    """Decompresses gzip or deflate in pieces of bounded size."""

    def __init__(self, *, is_deflate: bool) -> None:
        self._is_deflate = is_deflate
        self._head = b""
        self._stream: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields the decompressed pieces of the next compressed bytes."""
        if self._stream is None:
            self._head += data
            if len(self._head) < 2:
                return
            data, self._stream = self._head, zlib.decompressobj(self._window_bits())
        while data:
            try:
                piece = self._stream.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise RequestError(
                    "unparsable", f"an answer with damaged compression: {error}", max_retries=2
                ) from error
            if piece:
                yield piece
            data = self._stream.unconsumed_tail
            if self._stream.eof and (data := self._stream.unused_data):
                # A gzip body may consist of several members.
                self._stream = zlib.decompressobj(_GZIP)

    def _window_bits(self) -> int:
        if not self._is_deflate:
            return _GZIP
        # Some servers send deflate without the zlib header that the standard asks for (RFC 1950:
        # method 8, and the first two bytes are a multiple of 31).
        has_header = self._head[0] & 15 == 8 and int.from_bytes(self._head[:2], "big") % 31 == 0
        return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS


async def read_body(reply: aiohttp.ClientResponse, bounds: ReplyBounds) -> bytes:
    """Returns the body of a reply with status 200; raises RequestError if it exceeds a bound."""
    max_bytes = bounds.body_bytes
    length = reply.content_length
    if length is not None and length > max_bytes:
        raise _too_large(f"an answer of more than {max_bytes} bytes (max_bytes={max_bytes})", reply)
    if length is not None and not reply.headers.get("Content-Encoding"):
        return await reply.read()
    body = bytearray()
    async for piece in read_chunks(reply, max_bytes):
        body += piece
    if len(body) > max_bytes:
        raise _too_large(f"an answer of more than {max_bytes} bytes (max_bytes={max_bytes})", reply)
    return bytes(body)


async def read_error_body(reply: aiohttp.ClientResponse, bounds: ReplyBounds) -> bytes:
    """Returns the beginning of the body of an error; what follows is not read."""
    body = bytearray()
    try:
        async for piece in read_chunks(reply, bounds.error_bytes):
            body += piece
    except (RequestError, aiohttp.ClientError):
        # The status says more than the trouble with its body.
        reply.close()
    if len(body) > bounds.error_bytes:
        reply.close()
    return bytes(body[: bounds.error_bytes])


async def read_events(
    reply: aiohttp.ClientResponse, bounds: ReplyBounds
) -> AsyncGenerator[bytes, None]:
    """Yields the data of each server-sent event up to ``[DONE]``.

    Each `data:` line is one event, as all OpenAI-compatible servers write them. Raises RequestError
    if the stream exceeds a bound.
    """
    size = events = line_count = 0
    unfinished_line = bytearray()
    async for piece in read_chunks(reply, bounds.stream_bytes):
        size += len(piece)
        if size > bounds.stream_bytes:
            raise _too_large(f"a stream of more than {bounds.stream_bytes} bytes", reply)
        # The rest of the last piece has no line end in it, so only the new piece is searched.
        first, *later_parts = piece.split(b"\n")
        unfinished_line += first
        lines = []
        for part in later_parts:
            lines.append(bytes(unfinished_line))
            unfinished_line = bytearray(part)
        if len(unfinished_line) > bounds.line_bytes or any(
            len(x) > bounds.line_bytes for x in lines
        ):
            raise _too_large(f"a line of more than {bounds.line_bytes} bytes in a stream", reply)
        line_count += len(lines)
        if line_count > 4 * bounds.stream_events:
            raise _too_large(f"a stream of more than {4 * bounds.stream_events} lines", reply)
        for line in lines:
            event_data = _event_data(line)
            if event_data is None:
                continue
            if event_data == b"[DONE]":
                return
            events += 1
            if events > bounds.stream_events:
                raise _too_large(f"a stream of more than {bounds.stream_events} events", reply)
            _check_event(event_data, bounds, reply)
            yield event_data
    # A last line without a line end.
    event_data = _event_data(bytes(unfinished_line))
    if event_data is not None and event_data != b"[DONE]":
        _check_event(event_data, bounds, reply)
        yield event_data


def _event_data(line: bytes) -> bytes | None:
    return line[5:].strip() if line.startswith(b"data:") else None


def _check_event(data: bytes, bounds: ReplyBounds, reply: aiohttp.ClientResponse) -> None:
    try:
        check_json(data, bounds)
    except BoundExceeded as error:
        raise _too_large(str(error), reply) from error


def _too_large(message: str, reply: aiohttp.ClientResponse) -> RequestError:
    # The connection cannot be used again: the rest of the body is still to come.
    reply.close()
    return RequestError("too_large", message, max_retries=0)


def parse_body(
    reply: aiohttp.ClientResponse, data: bytes, parse: Callable[[bytes], T], bounds: ReplyBounds
) -> T:
    """Returns what `parse` makes of the body of a reply with status 200; raises RequestError."""
    try:
        check_json(data, bounds)
        return parse(data)
    except BoundExceeded as error:
        raise RequestError("too_large", str(error), max_retries=0) from error
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        if not data.strip():
            message = "an empty answer with status 200"
        elif "json" not in reply.content_type:
            message = f"an answer of type {reply.content_type}, not JSON"
        else:
            message = f"an answer in another form: {error}"
        raise RequestError("unparsable", message, max_retries=_UNPARSABLE_RETRIES) from error


class _ErrorDetail(Struct):
    message: str | None = None
    code: str | int | None = None
    type: str | None = None


class _ErrorBody(Struct):
    """An error's body: `error` (object or text; OpenAI), `message`, or `detail` (FastAPI)."""

    error: _ErrorDetail | str | None = None
    message: str | None = None
    detail: str | None = None


def status_error(
    reply: aiohttp.ClientResponse, data: bytes, clean: Callable[[str], str]
) -> RequestError:
    """Returns the error for a status other than 200; `clean` removes secrets from a text."""
    status = reply.status
    text, code = _read_error_text(data, clean)
    message = f"{status} {reply.reason or ''}: {text}".strip(": ")
    if 300 <= status < 400:
        location = clean(reply.headers.get("Location", "nowhere"))[:_MAX_ERROR_CHARS]
        message = (
            f"{status} {reply.reason or ''}: redirects to {location}, which is not followed, since "
            "prompts and keys could go to another host; give that address itself"
        )
    if status in (401, 403):
        return RequestError("auth", message, max_retries=0)
    if status == 429 and "insufficient_quota" in code:
        # OpenAI also answers 429 when the account has no credit left: no wait helps.
        return RequestError("rate_limited", message, max_retries=0)
    if status not in RETRYABLE_STATUSES:
        return RequestError("http", message, max_retries=0)
    throttled = status in THROTTLED_STATUSES
    return RequestError(
        "rate_limited" if throttled else "http",
        message,
        retry_after=parse_retry_after(reply.headers),
        throttled=throttled,
    )


def _read_error_text(data: bytes, clean: Callable[[str], str]) -> tuple[str, str]:
    """Returns the message and the error code of an error's body."""
    try:
        body = msgspec.json.decode(data, type=_ErrorBody)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        is_html = data.lstrip()[:1] == b"<"
        text = clean(data.decode("utf-8", "replace"))[:_MAX_ERROR_CHARS]
        return "(HTML)" if is_html else text, ""
    if isinstance(body.error, _ErrorDetail):
        message, code = body.error.message, f"{body.error.code} {body.error.type}"
    else:
        message, code = body.error, ""
    return message or body.message or body.detail or "", code
