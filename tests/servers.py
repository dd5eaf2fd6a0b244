"""A server for tests, in a thread: what it does with each request is a function of the test's."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

Handler = Callable[["Request"], Awaitable[None]]


class Request:
    """One request, and the ways to answer it."""

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
        """The body."""
        return dict(json.loads(self.body))

    @property
    def prompt(self) -> str:
        """The newest message's text."""
        return str(self.json["messages"][-1]["content"])

    async def send(
        self,
        status: int,
        body: bytes | dict[str, Any],
        *,
        kind: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Answers whole."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        extra = "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
        self.writer.write(
            f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\n{extra}\r\n".encode()
            + data
        )
        await self.writer.drain()

    async def say(self, text: str, **more: Any) -> None:
        """Answers a chat completion of one text."""
        choice = {
            "index": 0,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": text},
        }
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        await self.send(200, {"choices": [choice], "usage": usage, **more})


class Server:
    """What the server saw."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.in_flight = self.most = 0
        self.url = ""


@contextmanager
def serving(handler: Handler) -> Iterator[Server]:
    """A server on a free port of this machine."""
    server, ready = Server(), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
                server.most = max(server.most, server.in_flight)
                try:
                    await handler(request)
                finally:
                    server.in_flight -= 1
        except asyncio.CancelledError:
            writer.transport.abort()  # the test is over, the answer may not be read any more
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def main() -> None:
        listening = await asyncio.start_server(connection, "127.0.0.1", 0)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        ready.set()
        await stop.wait()
        listening.close()

    def run() -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(main())
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(
            asyncio.sleep(0)
        )  # aborted connections are closed in the next turn of the loop
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(5)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)
