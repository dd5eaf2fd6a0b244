"""Reading bodies: nesting is what a parser finds, time is linear, and the bounds hold."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.limits import ServerLimits
from truing.serve.openai.request_body import (
    ClientLeft,
    check_body_headers,
    check_json,
    exceeds_depth,
    read_body,
)

texts = st.text(st.sampled_from('[]{}"\\ ax'), max_size=8) | st.text(max_size=4)
values = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=12,
)


def depth_of(value: Any) -> int:
    """How many arrays and objects stand inside one another."""
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 0


@given(values, st.integers(0, 6), st.booleans())
def test_the_depth_is_what_a_parser_finds(value: Any, depth: int, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert exceeds_depth(body, depth) is (depth_of(value) > depth)


@given(st.binary(max_size=60) | st.text(st.sampled_from('[]{}"\\'), max_size=60).map(str.encode))
def test_what_is_no_json_is_refused_or_left_to_the_decoder(body: bytes) -> None:
    try:
        check_json(body, ServerLimits(json_depth=3))
    except RequestRefused as refused:
        status = refused.status
    else:
        status = 400
    assert status == 400


def read(messages: list[dict[str, Any]], **limits: Any) -> bytes:
    """Reads a body that arrives in these messages; without more of them it waits."""

    async def receive() -> Any:
        if not messages:
            await asyncio.sleep(60)
        return messages.pop(0)

    return asyncio.run(read_body(receive, ServerLimits(**limits)))


def part(data: bytes, more: bool = True) -> dict[str, Any]:
    """An ASGI message with a part of a body."""
    return {"type": "http.request", "body": data, "more_body": more}


def test_parts_are_joined_up_to_the_limit() -> None:
    assert read([part(b"ab"), part(b""), part(b"c", more=False)], body=3) == b"abc"
    assert read([{"type": "http.request"}]) == b""
    with pytest.raises(RequestRefused) as refused:
        read([part(b"ab"), part(b"cd")], body=3)
    assert refused.value.status == 413


def test_a_body_that_does_not_come_is_408_and_one_that_breaks_off_has_nobody_to_answer() -> None:
    with pytest.raises(RequestRefused) as refused:
        read([part(b"ab")], body_seconds=0.05)
    assert refused.value.status == 408
    with pytest.raises(ClientLeft):
        read([part(b"ab"), {"type": "http.disconnect"}])


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        (b"content-length", b"100", None),
        (b"content-length", b"101", 413),
        (b"content-length", b"9" * 5000, 413),
        (b"content-encoding", b"identity", None),
        (b"content-encoding", b"br", 415),
        (b"content-type", b"application/json", None),
        (b"content-type", b'application/json ; charset="utf-8"', None),
        (b"content-type", b"\xff", 415),
        (b"content-type", b"application/json+x", 415),
    ],
)
def test_headers_that_say_enough(name: bytes, value: bytes, status: int | None) -> None:
    limits = ServerLimits(body=100)
    if status is None:
        check_body_headers({name: value}, limits)
        return
    with pytest.raises(RequestRefused) as refused:
        check_body_headers({name: value}, limits)
    assert refused.value.status == status
