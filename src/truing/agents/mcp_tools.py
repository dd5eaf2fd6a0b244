"""The tools of an MCP server over standard input and output: trusted code in a process of its own,
with real effects.

    agent,of=(MODEL),tools="mcp:python server.py",allow=get_time,env=WEATHER_KEY

The server gets the environment variables of `env=` and those that it needs to start (PATH, HOME and
the like), and no other: a key of the operator's is not for every server. The server's own
descriptions of its tools reach the model; only the tools of the allow list are offered. A server
that dies leaves errors as the results of its calls.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import msgspec

from truing.agents.function_tools import require_no_environment
from truing.agents.toolsets import ToolResult, ToolSession
from truing.core.episodes import Environment, StateChange
from truing.core.errors import MissingExtra, UserError, did_you_mean
from truing.core.lineage import digest
from truing.core.types import Tool
from truing.specs.extras import needs_extra
from truing.worlds.arguments import ArgumentError, read_arguments

START_SECONDS = 60.0
_MAX_DESCRIPTION_CHARACTERS = 4000


class McpTools:
    """The tools of one server, which is started at the first episode and serves all of them.

    `variables` are environment variables that it gets beside those that it needs to start.
    """

    is_parallel = True

    def __init__(
        self,
        command: str,
        *,
        allow: Collection[str],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise UserError(f"mcp: the command of the server cannot be read: {error}") from error
        if not self._command:
            raise UserError('mcp: give the command of the server: tools="mcp:python server.py"')
        if not allow:
            raise UserError("mcp: real tools need an allow list: allow=NAME|NAME")
        self._allow = tuple(sorted(allow))
        # The command may hold secrets as arguments: only the program is shown.
        self.name = self.real_tools = f"mcp:{self._command[0].rsplit('/', 1)[-1]}"
        self._variables = dict(variables or {})
        # What a server answers may depend on what it is given. Values are secrets: names alone.
        given = ["env=" + "|".join(sorted(self._variables))] if self._variables else []
        self.hash = digest("mcp", *self._command, *self._allow, *given)
        self.tools: tuple[Tool, ...] = ()
        self.world = ("", "")
        self._session: Any = None
        self._server: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self, environment: Environment | None) -> ToolSession:
        """Returns the session that all episodes share.

        Raises UserError for a simulated task, and if the server does not start or lacks an allowed
        tool.
        """
        require_no_environment(environment, self.name)
        loop = asyncio.get_running_loop()
        # Each data set of a plan runs in an event loop of its own, and a server ends with its loop.
        if self._ready is None or self._loop is not loop:
            self._loop, self._ready, self._stop = loop, loop.create_future(), asyncio.Event()
            # One task enters and leaves the contexts of the library, as anyio demands.
            self._server = asyncio.create_task(self._serve(self._ready))
        await asyncio.shield(self._ready)
        return self

    async def _serve(self, ready: asyncio.Future[None]) -> None:
        program, *arguments = self._command
        try:
            with needs_extra("tools=mcp:"):
                from mcp import ClientSession, StdioServerParameters
                from mcp.client.stdio import stdio_client
            server_parameters = StdioServerParameters(
                command=program, args=arguments, env=self._variables or None
            )
            async with (
                stdio_client(server_parameters) as (read, write),
                ClientSession(read, write) as session,
            ):
                # Timed within the contexts: a task that is left in them hangs the end of its loop.
                async with asyncio.timeout(START_SECONDS):
                    await session.initialize()
                    self.tools = self._select_tools((await session.list_tools()).tools)
                self._session = session
                ready.set_result(None)
                await self._stop.wait()
        except MissingExtra as error:
            ready.set_exception(error)
        except Exception as error:
            if not ready.done():
                fault = f"does not start: {_describe(error)}"
                if isinstance(_first_error(error), TimeoutError):
                    fault = f"no answer in {START_SECONDS:g} s"
                ready.set_exception(UserError(f"{self.name}: {fault}"))
        finally:
            self._session = None
            if not ready.done():
                ready.set_exception(UserError(f"{self.name}: was closed before it had started"))

    def _select_tools(self, offered: list[Any]) -> tuple[Tool, ...]:
        by_name = {tool.name: tool for tool in offered}
        for name in self._allow:
            if name not in by_name:
                raise UserError(f"there is no tool {name!r}{did_you_mean(name, by_name)}")
        return tuple(
            Tool(
                name,
                (by_name[name].description or "")[:_MAX_DESCRIPTION_CHARACTERS],
                msgspec.json.encode(by_name[name].input_schema).decode(),
            )
            for name in self._allow
        )

    async def call(self, name: str, arguments: str) -> ToolResult:
        """Calls a tool of the server; what goes wrong is the result."""
        try:
            values = read_arguments(arguments)
        except ArgumentError as error:
            return ToolResult("invalid", f"error: {error}")
        if self._session is None:
            return ToolResult("error", "error: the server has ended")
        try:
            reply = await self._session.call_tool(name, values)
        except Exception as error:
            return ToolResult("error", f"error: {_describe(error)}")
        # A picture or a sound has no text; an empty result would look like none.
        text = "\n".join(
            part.text if hasattr(part, "text") else f"[{part.type}: left out]"
            for part in reply.content
        )
        return ToolResult("error" if reply.is_error else "ok", text)

    def changes(self) -> tuple[StateChange, ...]:
        """Returns nothing: what real tools have changed is not known."""
        return ()

    def checks(self, answer: str) -> dict[str, bool]:
        """Returns none: there is no world."""
        return {}

    async def close(self) -> None:
        """Ends the server; may be called twice."""
        self._stop.set()
        if self._server is not None:
            if self._ready is not None and not self._ready.done():
                self._server.cancel()
            with suppress(Exception, asyncio.CancelledError):
                await asyncio.wait_for(self._server, 5)


def _first_error(error: BaseException) -> BaseException:
    """Returns the error itself; of a group of tasks, its first one."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _describe(error: BaseException) -> str:
    """Returns an error in one line; of a group of tasks, its first one."""
    error = _first_error(error)
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]
