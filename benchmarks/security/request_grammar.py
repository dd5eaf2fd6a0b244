"""Requests that a hostile or broken client may send: valid ones, mutated as JSON, as bytes, in
headers and paths, and HTTP that is not HTTP. All from one seed.

    rng = random.Random(0)
    request = make_request(rng, key="k")      # method, path, headers, body
    pieces = make_raw_request(rng, key="k")   # byte strings to send one after another
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from typing import Any

TEXTS = (
    "hello there",
    "",
    "secret",
    "x" * 5000,
    "{{ 7 * 7 }} {% for a in range(9) %}",
    "$user_message\n  bot say hi",
    "\u202e\u200b\ufeff\u0000\x7f",
    "🦜" * 50,
    "ﷺ" * 300,
    "\r\nx-injected: 1\r\n\r\n",
    "'; drop table runs; --",
    "data: [DONE]\n\n",
    "[" * 200 + "]" * 200,
    "\\" * 301,
)
JUNK: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1e308,
    -0.0,
    2**63,
    10**400,
    "",
    "a" * 300_000,
    [],
    {},
    [[]],
    {"": None},
    [None] * 1500,
    {"role": "user"},
    "\ud800",
    [{"type": "text", "text": {"text": "x"}}],
    [{"type": "image_url", "image_url": {"url": "file:///etc/hosts"}}],
)
ROLES = ("system", "developer", "user", "assistant", "tool", "function", "root", "", "User")
FIELDS = [
    "messages",
    "input",
    "texts",
    "role",
    "content",
    "tool_calls",
    "tool_call_id",
    "name",
    "id",
    "function",
    "arguments",
    "model",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "tools",
    "logprobs",
    "top_logprobs",
    "guardrails",
    "config_id",
    "config_ids",
    "options",
    "rails",
    "log",
    "llm_params",
    "input",
    "type",
    "parameters",
    "description",
    "include_usage",
    "context",
    "state",
    "thread_id",
]
CONTENT_TYPES = (
    "text/plain",
    "application/xml",
    "multipart/form-data; boundary=a",
    "application/json; charset=latin-1",
    "application/json;" + ";" * 50,
    "application/x-msgpack",
    "",
    '"',
)
PATHS = (
    "/",
    "/health",
    "/metrics",
    "/v1/models",
    "/v1/rails/configs",
    "/v1/models/..",
    "//v1//models",
    "/v1/chat/completions/",
    "/v1/chat/completions/../models",
    "/V1/MODELS",
    "/v1/%2e%2e/metrics",
    "/v1/models%00",
    "/v1/models?a=b&a=c&%ff=%zz",
    "/schema/openapi.json",
    "/schema/nothing",
    "/favicon.ico",
    "/v1/" + "a" * 3000,
    "/" + "%41" * 600,
)
BYTE_JUNK = (
    b"\xff",
    b"\x00",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"NaN",
    b"-Infinity",
    b"1e99999",
    b"9" * 6000,
    b'"\\ud800"',
    b'"\\u00',
    b"[" * 3000,
    b'{"a":' * 500,
    b"//",
    b"'",
    b",",
    b"\\",
    b'"model":"' + b"m" * 2000 + b'",',
)


@dataclass
class HttpRequest:
    """One request; `body` is sent with its true length."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def make_body(rng: random.Random) -> tuple[str, Any]:
    """Returns a path and a valid body for it."""
    messages = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        role = rng.choice(ROLES[:5])
        message: dict[str, Any] = {"role": role, "content": rng.choice(TEXTS)}
        if role == "assistant" and rng.random() < 0.4:
            call = {"name": "look_up", "arguments": json.dumps({"q": rng.choice(TEXTS)})}
            message["tool_calls"] = [{"id": "c1", "type": "function", "function": call}]
        if role == "tool":
            message["tool_call_id"] = "c1"
        messages.append(message)
    roll = rng.random()
    if roll < 0.12:
        return "/v1/moderations", {"input": rng.choice((rng.choice(TEXTS), ["a", "b"]))}
    # Where there are several configurations, a request names one.
    guardrails: dict[str, Any] = {
        "config_id": rng.choice(("words", "words", "asks", "asks", "../x", ""))
    }
    if roll < 0.25:
        return "/v1/checks", {"messages": messages, "guardrails": guardrails}
    body: dict[str, Any] = {"model": "m", "messages": messages}
    optional = {
        "stream": rng.random() < 0.5,
        "n": rng.choice((1, 2)),
        "max_tokens": rng.choice((1, 50, 100_000)),
        "temperature": rng.random(),
        "stop": rng.choice(("end", ["a", "b"])),
        "seed": rng.randrange(2**40),
        "tools": [{"type": "function", "function": {"name": "look_up", "parameters": {}}}],
        "stream_options": {"include_usage": True},
    }
    if rng.random() < 0.9:
        body["guardrails"] = guardrails
    if rng.random() < 0.3:
        guardrails["options"] = {"log": {"activated_rails": True}}
    body |= {name: value for name, value in optional.items() if rng.random() < 0.25}
    if rng.random() < 0.15:
        return "/v1/responses", _as_response(body)
    if rng.random() < 0.1:
        return "/beta/litellm_basic_guardrail_api", _as_guardrail_check(messages)
    return "/v1/chat/completions", body


def _as_response(body: dict[str, Any]) -> dict[str, Any]:
    """Returns the request of a chat completion as one of the Responses API."""
    items: list[dict[str, Any]] = []
    for message in body["messages"]:
        if message["role"] == "tool":
            output = {"call_id": "c1", "output": message["content"]}
            items.append({"type": "function_call_output", **output})
            continue
        items.append({"role": message["role"], "content": message["content"]})
        for call in message.get("tool_calls", ()):
            items.append({"type": "function_call", "call_id": "c1", **call["function"]})
    passed_fields = ("model", "stream", "temperature", "guardrails")
    response = {"input": items, **{name: body[name] for name in passed_fields if name in body}}
    if "max_tokens" in body:
        response["max_output_tokens"] = body["max_tokens"]
    if "tools" in body:
        response["tools"] = [{"type": "function", **body["tools"][0]["function"]}]
    return response


def _as_guardrail_check(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns messages as LiteLLM sends them to a guardrail."""
    return {
        "input_type": "request",
        "texts": [message["content"] for message in messages],
        "structured_messages": messages,
        "request_data": {},
        "additional_provider_specific_params": {"config_id": "words"},
    }


def mutate_json(rng: random.Random, value: Any) -> Any:
    """Returns a copy with one node replaced, removed, repeated or added."""
    root = [json.loads(json.dumps(value))]  # a deep copy; copy.deepcopy cannot go as deep
    parent: Any = root
    key: Any = 0
    while isinstance(parent[key], dict | list) and parent[key] and rng.random() < 0.8:
        parent = parent[key]
        key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
    change = rng.random()
    if change < 0.5:
        parent[key] = rng.choice((*JUNK, *TEXTS, *ROLES))
    elif change < 0.6 and parent is not root:
        del parent[key]
    elif change < 0.7:
        parent[key] = [parent[key]] * rng.choice((2, 40))
    elif change < 0.8:
        nested = parent[key]
        for _ in range(rng.choice((3, 70, 150))):
            nested = {"a": nested} if rng.random() < 0.5 else [nested]
        parent[key] = nested
    elif isinstance(parent[key], dict):
        parent[key][rng.choice(FIELDS)] = rng.choice((*JUNK, *TEXTS))
    else:
        parent[key] = {rng.choice(FIELDS): parent[key]}
    return root[0]


def mutate_bytes(rng: random.Random, body: bytes) -> bytes:
    """Returns the bytes with a part cut off, flipped, inserted or repeated."""
    at = rng.randrange(len(body) + 1)
    change = rng.random()
    if change < 0.25:
        return body[:at]
    if change < 0.4:
        return body[:at] + bytes([rng.randrange(256)]) + body[at + 1 :]
    if change < 0.85:
        return body[:at] + rng.choice(BYTE_JUNK) + body[at:]
    if change < 0.93:  # each key twice
        return body.replace(b'{"', b'{"messages":[],"', 1)
    return body + body


def make_request(rng: random.Random, key: str = "") -> HttpRequest:
    """Returns a request: one in five valid, the others mutated once to three times."""
    path, value = make_body(rng)
    headers = {"content-type": "application/json"}
    if key:
        headers["authorization"] = f"Bearer {key}"
    method = "POST"
    if rng.random() < 0.2:
        return HttpRequest(method, path, headers, json.dumps(value).encode())
    in_json = rng.choice((0, 1, 1, 2, 3))
    for _ in range(in_json):
        value = mutate_json(rng, value)
    body = json.dumps(value).encode()
    if in_json == 0 or rng.random() < 0.15:
        body = mutate_bytes(rng, body)
    if rng.random() < 0.12:
        headers["content-type"] = rng.choice(CONTENT_TYPES)
    if rng.random() < 0.08:
        name, value = rng.choice(
            (
                ("content-encoding", "gzip"),
                ("x-request-id", "a" * 300),
                ("x-request-id", "\x7f\xe9"),
                ("authorization", "Bearer wrong"),
                ("authorization", "\xff" * 40),
                ("cookie", "a=b; " * 300),
                ("accept", "*/*;q=" * 200),
                ("x-long", "y" * 40_000),
                ("origin", "null"),
                ("expect", "nothing"),
                ("range", "bytes=0-"),
                ("x-forwarded-for", "1.2.3.4" * 30),
            )
        )
        headers[name] = value
    if rng.random() < 0.1:
        method = rng.choice(("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE"))
    if rng.random() < 0.08:
        path = rng.choice(PATHS)
    return HttpRequest(method, path, headers, body)


def make_raw_request(rng: random.Random, key: str = "") -> list[bytes]:
    """Returns what is sent over a socket, piece by piece; the connection is closed after it."""
    path, value = make_body(rng)
    body = json.dumps(value).encode()
    auth = f"authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n{auth}content-type: application/json\r\n".encode()
    length = b"content-length: %d\r\n\r\n"
    chunked = head + b"transfer-encoding: chunked\r\n\r\n"
    kind = rng.randrange(14)
    if kind == 0:  # anything
        return [rng.randbytes(rng.choice((1, 40, 4000)))]
    if kind == 1:  # the body ends early
        return [head + length % (len(body) + 50) + body]
    if kind == 2:  # the body is longer than it says: the rest is the next request
        return [head + length % rng.randrange(len(body)) + body]
    if kind == 3:  # two lengths, a negative, one that is no number
        wrong = rng.choice((b"1\r\ncontent-length: 2", b"-5", b"abc", b"9" * 40, b"+3", b"0x10"))
        return [head + b"content-length: " + wrong + b"\r\n\r\n" + body]
    if kind == 4:  # length and chunks
        return [head + b"transfer-encoding: chunked\r\n" + length % len(body) + body]
    if kind == 5:  # chunks that are none
        wrong = rng.choice((b"zz\r\n", b"-1\r\n", b"f" * 30 + b"\r\n", b"5\r\nab", b"\r\n\r\n"))
        return [chunked + wrong + body]
    if kind == 6:  # chunks of one byte, then the end or trailers
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body[:400])
        return [
            chunked,
            chunks,
            b"0\r\n" + b"x-trailer: 1\r\n" * rng.choice((0, 5, 9000)) + b"\r\n",
        ]
    if kind == 7:  # a flood of headers
        flood = b"".join(b"x-%d: %s\r\n" % (i, b"v" * 50) for i in range(rng.choice((120, 3000))))
        return [head + flood + length % len(body) + body]
    if kind == 8:  # one endless header, or path
        return [rng.choice((b"GET /" + b"a" * 90_000, head + b"x: " + b"y" * 90_000))]
    if kind == 9:  # pipelined
        return [(head + length % len(body) + body) * rng.choice((2, 5))]
    if kind == 10:  # in pieces
        whole = head + length % len(body) + body
        cuts = sorted(rng.sample(range(len(whole)), min(6, len(whole))))
        return [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    if kind == 11:  # odd request lines
        line = rng.choice(
            (
                b"GET  / HTTP/1.1",
                b"GET / HTTP/1.0",
                b"GET /",
                b"GET http://x/health HTTP/1.1",
                b"CONNECT x:1 HTTP/1.1",
                b"OPTIONS * HTTP/1.1",
                b"get /health HTTP/1.1",
                b"GET /health HTTP/2.0",
                b"\r\n\r\nGET /health HTTP/1.1",
            )
        )
        return [line + b"\r\nhost: x\r\n\r\n"]
    if kind == 12:  # headers that are none
        wrong = rng.choice(
            (
                b"no colon\r\n",
                b": empty\r\n",
                b"a b: c\r\n",
                b"x: \x00\r\n",
                b"x: a\nb: c\r\n",
                b" folded\r\n",
                b"upgrade: websocket\r\nconnection: upgrade\r\n",
                b"upgrade: h2c\r\nconnection: upgrade, http2-settings\r\n",
                b"expect: 100-continue\r\n",
                b"connection: close, keep-alive\r\n",
            )
        )
        return [head + wrong + length % len(body) + body]
    # The client leaves at once, or after the first bytes of the answer.
    return [head + length % len(body) + body[: rng.choice((0, 10, len(body)))]]
