"""Reads request bodies within the server's bounds: bytes, seconds, encoding, nesting."""

from __future__ import annotations

import asyncio
import re

import numpy as np
from litestar.types import Receive

from truing.serve.openai.admission import RequestRefused
from truing.serve.openai.limits import ServerLimits

_JSON_TYPES = re.compile(r"application/(?:[a-z0-9.-]+\+)?json")


class ClientLeft(Exception):
    """The client has closed the connection: there is nobody to answer."""


def check_body_headers(headers: dict[bytes, bytes], limits: ServerLimits) -> None:
    """Raises RequestRefused where the headers already say that the body is not read: another type
    than JSON (415), compressed (415), too long (413).
    """
    media_type, _, parameters = headers.get(b"content-type", b"").decode("latin-1").partition(";")
    if media_type.strip() and not _JSON_TYPES.fullmatch(media_type.strip().lower()):
        raise RequestRefused(415, "the content-type of a request is application/json")
    charset = re.search(r'charset\s*=\s*"?([^\s;"]+)', parameters.lower())
    if charset and charset[1] not in ("utf-8", "utf8", "us-ascii"):
        raise RequestRefused(415, "the charset of a request is utf-8")
    # A small compressed body can be gigabytes; requests have no need of it.
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
        raise RequestRefused(415, "content-encoding: compressed requests are not read")
    length = headers.get(b"content-length", b"")
    if length.isdigit() and (len(length) > 18 or int(length) > limits.body):
        raise RequestRefused(413, f"the body is longer than {limits.body} bytes")


async def read_body(receive: Receive, limits: ServerLimits) -> bytes:
    """Returns the body of a request.

    Raises RequestRefused for one of more than `body` bytes (413) or that takes more than
    `body_seconds` (408), and ClientLeft where the connection ends before the body does.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ClientLeft
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > limits.body:
                    raise RequestRefused(413, f"the body is longer than {limits.body} bytes")
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise RequestRefused(
            408, f"the body did not arrive within {limits.body_seconds:g} s"
        ) from None


def check_json(body: bytes, limits: ServerLimits) -> None:
    """Raises RequestRefused (400) for a body that is not UTF-8 or is nested too deeply.

    Whether it is JSON is left to the decoder.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise RequestRefused(400, f"the body is not UTF-8 at byte {error.start}") from None
    if exceeds_depth(body, limits.json_depth):
        raise RequestRefused(400, f"the body is nested more than {limits.json_depth} levels deep")


def exceeds_depth(body: bytes, depth: int) -> bool:
    """Returns whether arrays and objects of a JSON text stand more than `depth` levels inside one
    another.
    """
    if body.count(b"[") + body.count(b"{") <= depth:
        return False
    # Linear and in C, whatever the text: a loop over megabytes of brackets would stop the server.
    # Without escaped backslashes and then escaped quotes, each quote begins or ends a string.
    text = np.frombuffer(body.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    outside_strings = np.cumsum(text == ord('"'), dtype=np.int32) % 2 == 0
    opening = ((text == ord("[")) | (text == ord("{"))) & outside_strings
    closing = ((text == ord("]")) | (text == ord("}"))) & outside_strings
    levels = np.cumsum(opening.astype(np.int8) - closing.astype(np.int8), dtype=np.int32)
    return bool(levels.max(initial=0) > depth)
