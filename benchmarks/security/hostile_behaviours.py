"""A server with the behaviours of hostile and broken endpoints, one for each name in a prompt.

A request whose newest message is `hostile NAME` gets the behaviour NAME; every other request gets a
normal answer. Bytes are written as they are, without an HTTP library that would correct them.

    python hostile_behaviours.py --megabytes 8      serves until its standard input ends
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
import zlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

ANSWER: dict[str, Any] = {
    "choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1},
}
PLAIN = json.dumps(ANSWER).encode()
EVENT = b'data: {"choices":[{"delta":{"content":"word "}}]}\n\n'
LAST_EVENT = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'


class Connection:
    """One request's connection; `megabytes` is how much an oversized reply sends at most."""

    def __init__(self, writer: asyncio.StreamWriter, megabytes: int) -> None:
        self.writer = writer
        self.megabytes = megabytes

    async def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def start(self, status: str = "200 OK", **headers: Any) -> None:
        """Sends a status line and headers; `content_type` becomes ``content-type``."""
        fields = {"content_type": "application/json", **headers}
        lines = [f"HTTP/1.1 {status}"]
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in fields.items() if v is not None]
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode())

    async def reply(self, body: bytes | Any, status: str = "200 OK", **headers: Any) -> None:
        """Sends a whole reply; what is not bytes is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        await self.start(status, **{"content_length": len(data), **headers})
        await self.send(data)

    async def chunk(self, data: bytes) -> None:
        """Sends a chunk of a body with `transfer-encoding: chunked`."""
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def start_stream(self, **headers: Any) -> None:
        """Starts a reply of server-sent events."""
        await self.start(
            content_type="text/event-stream", **{"transfer_encoding": "chunked", **headers}
        )

    async def repeat(self, data: bytes, pause: float = 0.0) -> None:
        """Sends chunks until the client leaves, or `megabytes` are sent."""
        for _ in range((self.megabytes << 20) // len(data) + 1):
            await self.chunk(data)
            if pause:
                await asyncio.sleep(pause)

    async def hang(self) -> None:
        """Sends nothing more."""
        await asyncio.sleep(3600)


@dataclass(frozen=True)
class Behaviour:
    """What a server does, and which outcomes are right: failure kinds, or ``answered``."""

    run: Callable[[Connection], Awaitable[None]]
    outcomes: frozenset[str]
    stream: bool


BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(*outcomes: str, stream: bool = False) -> Callable[[Any], Any]:
    """Registers a behaviour under the name of its function."""

    def register(run: Any) -> Any:
        BEHAVIOURS[run.__name__] = Behaviour(run, frozenset(outcomes), stream)
        return run

    return register


def send_body(name: str, body: bytes, *outcomes: str, **headers: Any) -> None:
    """Registers a behaviour that is one body with status 200."""

    async def run(connection: Connection) -> None:
        await connection.reply(body, **headers)

    BEHAVIOURS[name] = Behaviour(run, frozenset(outcomes), False)


def send_status(
    name: str, status: str, *outcomes: str, body: bytes = b"{}", **headers: Any
) -> None:
    """Registers a behaviour that is one reply with another status."""

    async def run(connection: Connection) -> None:
        await connection.reply(body, status, **headers)

    BEHAVIOURS[name] = Behaviour(run, frozenset(outcomes), False)


def send_events(name: str, events: bytes, *outcomes: str) -> None:
    """Registers a behaviour that is one complete stream."""

    async def run(connection: Connection) -> None:
        await connection.start_stream()
        await connection.chunk(events)
        await connection.chunk(b"")

    BEHAVIOURS[name] = Behaviour(run, frozenset(outcomes), True)


def completion(**choice: Any) -> bytes:
    """Returns a completion whose first choice has these fields."""
    return json.dumps({**ANSWER, "choices": [{**ANSWER["choices"][0], **choice}]}).encode()


def message(**fields: Any) -> bytes:
    """Returns a completion whose message has these fields."""
    return completion(message={"role": "assistant", "content": "fine", **fields})


# -- bodies that are not what they should be

send_body("html_page", b"<html>log in</html>", "unparsable", content_type="text/html")
send_body("json_called_text", PLAIN, "answered", content_type="text/plain")
send_body("no_content_type", PLAIN, "answered", content_type=None)
send_body("empty_body", b"", "unparsable")
send_body("truncated_json", PLAIN[:40], "unparsable")
send_body("trailing_json", PLAIN + PLAIN, "unparsable")
send_body("not_a_number", PLAIN.replace(b'"fine"', b"NaN"), "unparsable")
send_body("huge_number", PLAIN.replace(b'"fine"', b"1e999"), "unparsable")
send_body("duplicate_keys", b'{"choices":[],' + PLAIN[1:], "answered")
send_body("utf_16", PLAIN.decode().encode("utf-16"), "unparsable")
send_body("latin_1", PLAIN.replace(b"fine", b"caf\xe9"), "unparsable")
send_body("byte_order_mark", b"\xef\xbb\xbf" + PLAIN, "unparsable")
send_body("half_a_surrogate_pair", PLAIN.replace(b"fine", rb"\ud800"), "unparsable", "answered")
send_body("null_reply", b"null", "unparsable")
send_body("no_choices", b'{"choices":[]}', "unparsable")
send_body("null_choices", b'{"choices":null}', "unparsable")
send_body("null_message", completion(message=None), "unparsable")
send_body("null_fields", message(content=None, tool_calls=None, refusal=None), "answered")
send_body("number_as_content", message(content=5), "unparsable")
send_body("hundred_choices", json.dumps({"choices": ANSWER["choices"] * 100}).encode(), "answered")
send_body("malformed_tool_call", message(tool_calls=[{"function": None}]), "unparsable")
send_body("thousand_tool_calls", message(tool_calls=[{"id": "x"}] * 1000), "unparsable")
send_body("endless_finish_reason", completion(finish_reason="x" * 30_000), "answered")
send_body("usage_in_words", PLAIN.replace(b'_tokens": 3', b'_tokens": "x"'), "unparsable")
send_body("negative_usage", PLAIN.replace(b'_tokens": 3', b'_tokens": -9e15'), "answered")
send_body("enormous_usage", PLAIN.replace(b'_tokens": 3', b'_tokens": 1' + b"0" * 60), "answered")
send_body("deep_json", b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"," + PLAIN[1:], "too_large")
send_body("brotli_unasked", PLAIN, "unparsable", content_encoding="br")
send_body("gzip_that_is_none", PLAIN, "unparsable", content_encoding="gzip")
send_body("gzip_twice", PLAIN, "unparsable", content_encoding="gzip, gzip")

# -- statuses and headers

send_status("no_content", "204 No Content", "http", body=b"")
send_status("partial_content", "206 Partial Content", "http", body=PLAIN)
send_status("redirect_loop", "302 Found", "http", location="/v1/chat/completions")
send_status("redirect_elsewhere", "307 Moved", "http", location="http://example.org/v1")
send_status("not_found", "404 Not Found", "http", body=b"<html>" + b"x" * 9000)
send_status("wants_a_key", "401 Unauthorized", "auth")
send_status("deep_error", "500 Broken", "http", body=b"[" * 20_000)
send_status("terminal_escapes", "400 Bad", "http", body=b"\x1b]52;c;ZXZpbA==\x07\x1b[2J")
send_status("throttled_for_ever", "429 Too Many", "rate_limited")
send_status("come_back_in_a_century", "429 Too Many", "rate_limited", retry_after="3e9")
send_status("come_back_never", "503 Down", "http", retry_after="inf", retry_after_ms="\u00b2")
send_status("come_back_on_no_day", "503 Down", "http", retry_after="Mon, 99 Foo 99999999 99:99:99")
send_status("two_lengths", "200 OK", "dropped", content_length="3\r\ncontent-length: 5")
send_status("negative_length", "200 OK", "dropped", content_length="-5")
send_status("length_too_short", "200 OK", "unparsable", "dropped", body=PLAIN, content_length=9)
send_status("terabyte_announced", "200 OK", "too_large", content_length=10**12)
send_status(
    "quota_that_never_resets",
    "200 OK",
    "answered",
    body=PLAIN,
    x_ratelimit_remaining_requests="0",
    x_ratelimit_reset_requests="nan",
)


# -- streams

send_events("stream_without_done", EVENT + LAST_EVENT, "answered")
send_events("stream_cut_off", EVENT, "dropped")
send_events("stream_of_nothing", b"", "dropped")
send_events("error_after_data", EVENT + b'data: {"error":{"message":"broken"}}\n\n', "unparsable")
send_events("broken_event", EVENT + b'data: {"choices":[{\n\n', "unparsable")
send_events("deep_event", b"data: " + b"[" * 2000 + b"\n\n", "too_large")
send_events("json_for_a_stream", PLAIN, "dropped")
send_events("done_before_the_end", b"data: [DONE]\n\n" + EVENT * 9, "dropped")
send_events(
    "thousand_call_indices",
    b"".join(
        b'data: {"choices":[{"delta":{"tool_calls":[{"index":%d}]}}]}\n\n' % i for i in range(1000)
    ),
    "unparsable",
)


@behaviour("too_large", "timeout", stream=True)
async def endless_stream(connection: Connection) -> None:
    await connection.start_stream()
    await connection.repeat(EVENT * 500)


@behaviour("too_large", stream=True)
async def endless_blank_lines(connection: Connection) -> None:
    await connection.start_stream()
    await connection.repeat(b"\n" * 30_000)


@behaviour("too_large", stream=True)
async def endless_line(connection: Connection) -> None:
    await connection.start_stream()
    await connection.chunk(b"data: ")
    await connection.repeat(b"x" * 30_000)


@behaviour("timeout", stream=True)
async def endless_comments(connection: Connection) -> None:
    await connection.start_stream()
    await connection.repeat(b": still here\n\n", pause=0.05)


@behaviour("timeout", stream=True)
async def slow_stream(connection: Connection) -> None:
    await connection.start_stream()
    for byte in EVENT * 10_000:
        await connection.chunk(bytes([byte]))
        await asyncio.sleep(0.02)


@behaviour("http", stream=True)
async def endless_error_for_a_stream(connection: Connection) -> None:
    await connection.start("500 Broken", transfer_encoding="chunked")
    await connection.repeat(b"x" * 30_000)


@behaviour("too_large", stream=True)
async def compressed_stream(connection: Connection) -> None:
    await connection.start_stream(content_encoding="gzip")
    for piece in gzip_bomb(connection.megabytes, EVENT * 1000):
        await connection.chunk(piece)


# -- bodies without end


def gzip_bomb(megabytes: int, filling: bytes, form: int = 31) -> Iterator[bytes]:
    """Yields the compressed bytes of so many megabytes."""
    compressor = zlib.compressobj(9, wbits=form)
    for _ in range((megabytes << 20) // len(filling) + 1):
        if piece := compressor.compress(filling):
            yield piece
    yield compressor.flush()


@behaviour("too_large")
async def gzip_body(connection: Connection) -> None:
    await connection.start(content_encoding="gzip", transfer_encoding="chunked")
    for piece in gzip_bomb(connection.megabytes, b" " * (1 << 20)):
        await connection.chunk(piece)


@behaviour("too_large")
async def gzip_body_with_length(connection: Connection) -> None:
    # A gzip body may be several members one after another.
    member = b"".join(gzip_bomb(32, b" " * (1 << 20)))
    await connection.reply(member * (connection.megabytes // 32 + 1), content_encoding="gzip")


@behaviour("too_large")
async def deflate_body(connection: Connection) -> None:
    await connection.start(content_encoding="deflate", transfer_encoding="chunked")
    for piece in gzip_bomb(connection.megabytes, b" " * (1 << 20), form=-15):
        await connection.chunk(piece)


@behaviour("http")
async def gzip_error(connection: Connection) -> None:
    await connection.start("500 Broken", content_encoding="gzip", transfer_encoding="chunked")
    for piece in gzip_bomb(connection.megabytes, b"x" * (1 << 20)):
        await connection.chunk(piece)


@behaviour("too_large")
async def endless_body(connection: Connection) -> None:
    await connection.start(transfer_encoding="chunked")
    await connection.repeat(b" " * 30_000)


@behaviour("http")
async def endless_error(connection: Connection) -> None:
    await connection.start("500 Broken", transfer_encoding="chunked")
    await connection.repeat(b"x" * 30_000)


@behaviour("too_large")
async def million_choices(connection: Connection) -> None:
    count = min(connection.megabytes << 16, 500_000)
    await connection.reply(b'{"choices":[' + b'{"message":{}},' * count + b'{"message":{}}]}')


@behaviour("too_large", "answered")
async def giant_logprobs(connection: Connection) -> None:
    token = {"token": "x", "logprob": -1.0, "top_logprobs": [{"token": "y", "logprob": -2.0}] * 20}
    tokens = min(connection.megabytes * 500, 6000)
    await connection.reply(completion(logprobs={"content": [token] * tokens}))


@behaviour("too_large")
async def giant_answer(connection: Connection) -> None:
    words = min(connection.megabytes << 18, 1_500_000)
    await connection.reply(message(content="word " * words))


# -- connections


@behaviour("timeout")
async def no_reply(connection: Connection) -> None:
    await connection.hang()


@behaviour("dropped")
async def closed_at_once(connection: Connection) -> None:
    connection.writer.close()


@behaviour("dropped")
async def reset_in_the_body(connection: Connection) -> None:
    await connection.start(content_length=5000)
    await connection.send(PLAIN)
    linger = struct.pack("ii", 1, 0)  # close() sends RST
    connection.writer.get_extra_info("socket").setsockopt(1, 13, linger)
    connection.writer.close()


@behaviour("dropped")
async def length_too_long(connection: Connection) -> None:
    await connection.start(content_length=len(PLAIN) + 100)
    await connection.send(PLAIN)
    connection.writer.close()


@behaviour("dropped")
async def chunk_of_no_size(connection: Connection) -> None:
    await connection.start(transfer_encoding="chunked")
    await connection.send(b"zz\r\n" + PLAIN)


@behaviour("dropped")
async def chunk_cut_off(connection: Connection) -> None:
    await connection.start(transfer_encoding="chunked")
    await connection.send(b"ffff\r\n" + PLAIN)
    connection.writer.close()


@behaviour("dropped")
async def no_status_line(connection: Connection) -> None:
    await connection.send(PLAIN)
    connection.writer.close()


@behaviour("dropped")
async def tls_alert(connection: Connection) -> None:
    await connection.send(b"\x15\x03\x03\x00\x02\x02\x28" * 20)
    connection.writer.close()


@behaviour("answered", "dropped")
async def garbage_after_the_reply(connection: Connection) -> None:
    await connection.reply(PLAIN)
    await connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil" * 3)


@behaviour("answered")
async def early_hints(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 20)
    await connection.reply(PLAIN)


@behaviour("timeout", "dropped")
async def continue_for_ever(connection: Connection) -> None:
    for _ in range(200_000):
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0.001)


@behaviour("dropped")
async def endless_headers(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(connection.megabytes << 14):
        await connection.send(b"x-filler-%d: %s\r\n" % (number, b"y" * 64))


@behaviour("dropped")
async def endless_header_line(connection: Connection) -> None:
    await connection.send(b"HTTP/1.1 200 OK\r\nx-filler: ")
    for _ in range(connection.megabytes):
        await connection.send(b"y" * (1 << 20))


@behaviour("timeout", "dropped")
async def slow_headers(connection: Connection) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 10_000:
        await connection.send(bytes([byte]))
        await asyncio.sleep(0.05)


@behaviour("timeout")
async def slow_body(connection: Connection) -> None:
    await connection.start(content_length=len(PLAIN) + 10_000)
    for byte in b" " * 10_000 + PLAIN:
        await connection.send(bytes([byte]))
        await asyncio.sleep(0.05)


# -- the server


async def handle(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, megabytes: int
) -> None:
    """Answers the requests of one connection."""
    connection = Connection(writer, megabytes)
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            request = json.loads(await reader.readexactly(length))
            name = str(request["messages"][-1]["content"]).removeprefix("hostile ").split()[0]
            if name in BEHAVIOURS:
                await BEHAVIOURS[name].run(connection)
            elif request.get("stream"):
                await connection.start_stream()
                await connection.chunk(EVENT + LAST_EVENT + b"data: [DONE]\n\n")
                await connection.chunk(b"")
            else:
                await connection.reply(PLAIN)
    except (asyncio.IncompleteReadError, OSError):
        pass  # the client has left
    finally:
        writer.close()


async def serve(megabytes: int) -> None:
    """Prints the port and serves until standard input ends."""
    server = await asyncio.start_server(
        lambda reader, writer: handle(reader, writer, megabytes), "127.0.0.1", 0
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    # Not awaited: behaviours that never end would hold it up.
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=8)
    asyncio.run(serve(parser.parse_args().megabytes))
