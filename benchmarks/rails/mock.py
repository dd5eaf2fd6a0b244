"""A mock of an OpenAI-compatible chat server with a fixed latency; standard library only, loopback only.

    python benchmarks/rails/mock.py --port 9001 --latency-ms 50

A self check is answered No, a question for a canonical form with one, anything else with a fixed sentence. GET /stats
counts the requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

ANSWER = "Here is the answer of the mock model."
FORM = "ask about topic seven"


def reply(body: dict[str, Any]) -> str:
    """What a request is answered."""
    text = json.dumps(body.get("messages", "")).lower()
    if "should the user message be blocked" in text or "should the message be blocked" in text:
        return "No"
    if "canonical form" in text or "user intent" in text or "intent for the user" in text:
        return FORM
    return ANSWER


class Mock:
    """The server."""

    def __init__(self, latency: float) -> None:
        self.latency, self.count = latency, 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
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
                text = reply(json.loads(body))
                if self.latency:
                    await asyncio.sleep(self.latency)
                message = {"role": "assistant", "content": text}
                self.send(
                    writer,
                    {
                        "id": "mock",
                        "object": "chat.completion",
                        "created": 0,
                        "model": "mock",
                        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                        "usage": {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18},
                    },
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def send(self, writer: asyncio.StreamWriter, value: Any) -> None:
        """A JSON answer."""
        data = json.dumps(value).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)


async def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9001)
    parser.add_argument("--latency-ms", type=float, default=0)
    args = parser.parse_args()
    mock = Mock(args.latency_ms / 1000)
    server = await asyncio.start_server(mock.handle, "127.0.0.1", args.port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
