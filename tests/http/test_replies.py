"""Reading replies: decompression, events in pieces of any size, bounds, quota headers."""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any, cast

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from truing.http.bounds import BoundExceeded, ReplyBounds, check_json
from truing.http.replies import read_body, read_error_body, read_events
from truing.http.retry import RequestError

BOUNDS = ReplyBounds.of(4096)


class Content:
    """The stream of a reply, in given pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    async def iter_any(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


class Reply:
    """A reply whose bytes arrive in given pieces."""

    def __init__(self, pieces: list[bytes], encoding: str = "") -> None:
        self.content = Content(pieces)
        self.headers = {"Content-Encoding": encoding} if encoding else {}
        self.content_length = None
        self.closed = False

    def close(self) -> None:
        self.closed = True


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def body_of(reply: Reply, bounds: ReplyBounds = BOUNDS) -> bytes:
    return asyncio.run(read_body(cast(aiohttp.ClientResponse, reply), bounds))


def events_of(reply: Reply, bounds: ReplyBounds = BOUNDS) -> list[bytes]:
    async def collect() -> list[bytes]:
        return [e async for e in read_events(cast(aiohttp.ClientResponse, reply), bounds)]

    return asyncio.run(collect())


def deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


@settings(max_examples=40)
@given(st.binary(max_size=3000), st.integers(1, 400))
def test_each_encoding_is_decompressed_whatever_the_pieces(data: bytes, size: int) -> None:
    for encoding, encoded in (
        ("", data),
        ("gzip", gzip.compress(data)),
        ("GZIP", gzip.compress(data[:100]) + gzip.compress(data[100:])),
        ("deflate", zlib.compress(data)),
        ("deflate", deflate(data)),
    ):
        assert body_of(Reply(cut(encoded, size), encoding)) == data


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "x" * 500])
def test_an_encoding_that_was_not_asked_for_is_a_failure(encoding: str) -> None:
    with pytest.raises(RequestError, match="not asked for") as caught:
        body_of(Reply([b"data"], encoding))
    assert len(str(caught.value)) < 200


def test_a_body_that_expands_beyond_its_bound_is_closed() -> None:
    reply = Reply(cut(gzip.compress(b" " * (50 << 20)), 1000), "gzip")
    with pytest.raises(RequestError, match="max_bytes=4096"):
        body_of(reply)
    assert reply.closed


def test_an_error_body_is_cut_and_damage_leaves_what_came_before() -> None:
    reply = Reply([b"x" * 3000] * 5)
    body = asyncio.run(read_error_body(cast(aiohttp.ClientResponse, reply), BOUNDS))
    assert body == b"x" * 4096 and reply.closed
    damaged = Reply([gzip.compress(b"sorry"), b"\x1f\x8b nonsense"], "gzip")
    body = asyncio.run(read_error_body(cast(aiohttp.ClientResponse, damaged), BOUNDS))
    assert body == b"sorry"


@settings(max_examples=60)
@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=9), max_size=2), max_size=6),
    st.sampled_from(["\n\n", "\r\n\r\n", "\n"]),
    st.integers(1, 60),
)
def test_events_are_the_same_whatever_the_pieces(
    values: list[Any], separator: str, size: int
) -> None:
    written = [f"data: {json.dumps(v)}" for v in values]
    stream = separator.join([": comment", "event: message", *written, "data: [DONE]", "data: 1"])
    assert [json.loads(e) for e in events_of(Reply(cut(stream.encode(), size)))] == values


@pytest.mark.parametrize(
    ("stream", "bound"),
    [
        (b"data: 1\n\n" * 4000, "bytes"),
        (b"data: " + b"x" * 5000, "a line of more than 1024 bytes"),
        (b"data: 1\n" * 50, "more than 40 events"),
        (b"\n" * 500, "more than 160 lines"),
        (b"data: " + b"[" * 200 + b"\n", "json_depth"),
    ],
)
def test_a_stream_beyond_a_bound_names_it(stream: bytes, bound: str) -> None:
    bounds = ReplyBounds(stream_bytes=8192, stream_events=40, line_bytes=1024)
    if bound == "bytes":
        bounds = ReplyBounds(stream_bytes=8192)
    reply = Reply(cut(stream, 700))
    with pytest.raises(RequestError, match=bound) as caught:
        events_of(reply, bounds)
    assert caught.value.kind == "too_large" and reply.closed


def test_many_small_items_are_refused_before_they_are_decoded() -> None:
    bounds = ReplyBounds(json_items=100)
    with pytest.raises(BoundExceeded, match="json_items"):
        check_json(b"[" + b"{}," * 200 + b"{}]", bounds)
    check_json(b'["' + b"words, and words" * 5 + b'"]', bounds)
