"""A mock of an OpenAI-compatible chat server with a fixed latency.

    python benchmarks/rails/mock.py --port 9001 --latency-ms 50

Standard library only, loopback only. It answers a self-check prompt with No, a prompt for a
canonical form with one, anything else with a fixed sentence. Where tools are offered it calls the
first of them, and answers when it has a result. GET /stats returns the number of requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

ANSWER = "Here is the answer of the mock model."
FORM = "ask about topic seven"


def reply(body: dict[str, Any]) -> str:
    """Returns the answer to a request."""
    text = json.dumps(body.get("messages", "")).lower()
    if "should the user message be blocked" in text or "should the message be blocked" in text:
        return "No"
    if "canonical form" in text or "user intent" in text or "intent for the user" in text:
        return FORM
    return ANSWER


def tool_call(body: dict[str, Any]) -> dict[str, Any] | None:
    """Returns a call of the first tool of a request that brings no result yet."""
    messages = body.get("messages") or [{}]
    if not body.get("tools") or messages[-1].get("role") == "tool":
        return None
    function = {"name": body["tools"][0]["function"]["name"], "arguments": '{"query": "plums"}'}
    return {"id": "call_1", "type": "function", "function": function}


class MockServer:
    """The server: answers requests and counts them."""

    def __init__(self, latency: float) -> None:
        self.latency, self.count = latency, 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until the client closes it."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
                line, *headers = head.split("\r\n")
                length = next(
                    (
                        int(h.split(":")[1])
                        for h in headers
                        if h.lower().startswith("content-length:")
                    ),
                    0,
                )
                body = await reader.readexactly(length) if length else b"{}"
                if line.split(" ")[1] == "/stats":
                    self.send(writer, {"requests": self.count})
                    continue
                self.count += 1
                request = json.loads(body)
                call = tool_call(request)
                if self.latency:
                    await asyncio.sleep(self.latency)
                message: dict[str, Any] = {"role": "assistant", "content": reply(request)}
                if call is not None:
                    message = {"role": "assistant", "content": None, "tool_calls": [call]}
                finish = "stop" if call is None else "tool_calls"
                self.send(
                    writer,
                    {
                        "id": "mock",
                        "object": "chat.completion",
                        "created": 0,
                        "model": "mock",
                        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
                        "usage": {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18},
                    },
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def send(self, writer: asyncio.StreamWriter, value: Any) -> None:
        """Sends a JSON response."""
        data = json.dumps(value).encode()
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)


async def main() -> None:
    """Serves until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9001)
    parser.add_argument("--latency-ms", type=float, default=0)
    arguments = parser.parse_args()
    mock = MockServer(arguments.latency_ms / 1000)
    server = await asyncio.start_server(mock.handle, "127.0.0.1", arguments.port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
