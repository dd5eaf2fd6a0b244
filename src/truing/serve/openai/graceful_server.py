"""uvicorn's server with an end that loses no request which the kernel has accepted.

uvicorn closes its port and every connection without a request at once. Connections that wait to be
accepted, and requests that are on their way over new ones, are reset then: of 64 requests that were
sent 50 ms before SIGTERM, it answered 26. Here the server goes on for some seconds, in which
`/ready` answers 503 and each response closes its connection, so that a load balancer leaves first.
"""

from __future__ import annotations

import asyncio
import signal
import time
from socket import socket
from types import FrameType

import uvicorn

from truing.serve.openai.admission import AdmissionControl
from truing.serve.openai.worker_processes import WorkerLink

_READ_SECONDS = 0.05  # in which the event loop reads what has arrived


class GracefulServer(uvicorn.Server):
    """Serves until a signal, and then `grace` seconds more, before it accepts no connection.

    A worker that others replace leaves the port to them at once, and answers what it has accepted.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        admission: AdmissionControl,
        grace: float,
        link: WorkerLink | None = None,
    ) -> None:
        super().__init__(config)
        self._admission, self._grace, self._link = admission, grace, link
        self._is_interrupted = False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins the end; Ctrl-C is of a person, who waits for it."""
        self._is_interrupted = self._is_interrupted or sig == signal.SIGINT
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Opens the port, and tells the process that started this one."""
        await super().startup(sockets)
        if self.started and self._link is not None:
            self._link.report_ready()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Lets clients leave, closes the port, and waits for the answers under way."""
        self.config.encoded_headers.append((b"connection", b"close"))
        if self._link is None or not self._link.is_replaced:
            self._admission.leaving = True
            await self._serve_for_the_grace()
        # Requests that have arrived over open connections are read before these are closed.
        await self.on_tick(0)
        await asyncio.sleep(_READ_SECONDS)
        await self._stop_accepting()
        await super().shutdown(sockets)

    async def _serve_for_the_grace(self) -> None:
        deadline = time.monotonic() + self._grace
        while time.monotonic() < deadline and not self._is_interrupted:
            await self.on_tick(0)  # the date, and `connection: close`, of the next responses
            await asyncio.sleep(0.05)

    async def _stop_accepting(self) -> None:
        loop = asyncio.get_running_loop()
        # asyncio loses connections that are accepted and not yet made when its server is closed;
        # uvloop makes them at once.
        if isinstance(loop, asyncio.BaseEventLoop):
            for server in self.servers:
                for listener in server.sockets:
                    loop.remove_reader(listener.fileno())
            await asyncio.sleep(0)
