"""An HTTP server in a thread, for tests of clients: the test's handler answers each request."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

Handler = Callable[["Request"], Awaitable[None]]


class Request:
    """A request with the methods to answer it; `number` counts the requests from 0."""

    def __init__(self, number: int, head: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.number = number
        self.method, self.path = head.split(" ", 2)[:2]
        self.headers = {
            k.lower(): v.strip() for k, v in (line.split(":", 1) for line in head.split("\r\n")[1:])
        }
        self.body = body
        self.writer = writer

    @property
    def json(self) -> dict[str, Any]:
        """The body, decoded."""
        return dict(json.loads(self.body))

    @property
    def prompt(self) -> str:
        """The text of the newest message of a chat request."""
        return str(self.json["messages"][-1]["content"])

    async def send(
        self,
        status: int,
        body: bytes | dict[str, Any],
        *,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Sends a complete response; a dictionary is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        extra = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n"
        self.writer.write(f"{head}{extra}\r\n".encode() + data)
        await self.writer.drain()

    async def send_completion(self, text: str, **fields: Any) -> None:
        """Sends a chat completion with one text."""
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
        }
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        await self.send(200, {"choices": [choice], "usage": usage, **fields})


class Server:
    """The requests of a running server."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.in_flight = self.max_in_flight = 0
        self.url = ""


@contextmanager
def serving(handler: Handler) -> Iterator[Server]:
    """Runs a server on a free port of this machine until the context ends."""
    server, ready = Server(), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def handle_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip():
                length = 0
                for line in head.split("\r\n")[1:]:
                    if line.lower().startswith("content-length:"):
                        length = int(line.split(":")[1])
                request = Request(
                    len(server.requests), head, await reader.readexactly(length), writer
                )
                server.requests.append(request)
                server.in_flight += 1
                server.max_in_flight = max(server.max_in_flight, server.in_flight)
                try:
                    await handler(request)
                finally:
                    server.in_flight -= 1
        except asyncio.CancelledError:
            # The test is over, and the client may not read the response any more.
            writer.transport.abort()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def serve() -> None:
        listening = await asyncio.start_server(handle_connection, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        listening.close()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(serve())
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        # Aborted connections are closed in the next iteration of the loop.
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(5)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)
