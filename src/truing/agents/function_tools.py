"""Python functions as the tools of an agent: trusted code, which runs with the rights of this
process.

    def get_time(city: str) -> str:
        "Returns the time in a city."

    agent = AgentModel(model, FunctionTools([get_time], allow=["get_time"]))

The schema comes from the annotations. These tools are real: tasks in simulated worlds, and so all
harmful requests and injections of the shipped sets, refuse to run with them.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Collection, Sequence
from typing import Any, get_type_hints

import msgspec
from msgspec import NODEFAULT, Struct

from truing.agents.toolsets import ToolResult, ToolSession
from truing.core.episodes import Environment, StateChange
from truing.core.errors import UserError, did_you_mean
from truing.core.lineage import digest
from truing.core.types import Tool
from truing.specs.python_objects import is_async_function
from truing.worlds.arguments import ArgumentError, ArgumentSchema

MAX_RUNNING_CALLS = 64
"""Calls of functions that run at a time; a function that hangs goes on after its time-out."""


class FunctionTools:
    """Some functions, of which those in `allow` may be called."""

    is_parallel = True

    def __init__(
        self,
        functions: Sequence[Callable[..., Any]],
        *,
        allow: Collection[str],
        name: str = "functions",
    ) -> None:
        by_name = {function.__name__: function for function in functions}
        unknown = [tool for tool in allow if tool not in by_name]
        if unknown:
            raise UserError(
                f"{name}: there is no function {unknown[0]!r}{did_you_mean(unknown[0], by_name)}"
            )
        if not allow:
            raise UserError(f"{name}: real tools need an allow list; there is {', '.join(by_name)}")
        self.name = name
        self.real_tools = name
        self._functions = {tool: _FunctionTool(by_name[tool]) for tool in sorted(allow)}
        texts = [text for f in self._functions.values() for text in f.identity()]
        self.hash = digest("functions", name, *texts)
        self.tools = tuple(function.tool for function in self._functions.values())
        self.world = ("", "")

    async def start(self, environment: Environment | None) -> ToolSession:
        """Returns the session that all episodes share; raises UserError for a simulated task."""
        require_no_environment(environment, self.name)
        return self

    async def call(self, name: str, arguments: str) -> ToolResult:
        """Calls a function; what it raises is the result."""
        return await self._functions[name].call(arguments)

    def changes(self) -> tuple[StateChange, ...]:
        """Returns nothing: what real tools have changed is not known."""
        return ()

    def checks(self, answer: str) -> dict[str, bool]:
        """Returns none: there is no world."""
        return {}

    async def close(self) -> None:
        """There is nothing to release."""


def require_no_environment(environment: Environment | None, tools: str) -> None:
    """Raises UserError for a task in a simulated world: real tools would carry out its harm."""
    if environment is not None:
        raise UserError(
            f"{tools}: the task {environment.task!r} is for the simulated world "
            f"{environment.world!r}; it does not run with real tools"
        )


class _FunctionTool:
    """One function with its schema."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._schema = ArgumentSchema(function.__name__, kind=_arguments_type(function))
        about = inspect.getdoc(function) or ""
        self.tool = Tool(function.__name__, about.split("\n\n")[0], self._schema.json_schema)

    def identity(self) -> tuple[str, ...]:
        """Returns what the model reads of the function, and what the function does."""
        return self.tool.name, self.tool.description, self.tool.parameters, _code(self._function)

    async def call(self, arguments: str) -> ToolResult:
        try:
            decoded = self._schema.decode(arguments)
        except ArgumentError as error:
            return ToolResult("invalid", f"error: {error}")
        try:
            if is_async_function(self._function):
                result = await self._function(**decoded)
            else:
                result = await _run_in_thread(self._function, decoded)
        except Exception as error:
            return ToolResult("error", f"error: {type(error).__name__}: {str(error)[:500]}")
        return ToolResult("ok", _write_result(result))


def _code(function: Callable[..., Any]) -> str:
    """Returns the source of a function; its compiled code where there is none."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        code = getattr(function, "__code__", None)
        return "" if code is None else f"{code.co_code.hex()} {code.co_names} {code.co_varnames}"


def _arguments_type(function: Callable[..., Any]) -> type[Struct]:
    hints = get_type_hints(function, include_extras=True)
    fields = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise UserError(f"{function.__name__}: a tool takes no *args, **kwargs or '/'")
        if name not in hints:
            raise UserError(f"{function.__name__}: the parameter {name!r} has no annotation")
        default = NODEFAULT if parameter.default is parameter.empty else parameter.default
        fields.append((name, hints[name], default))
    return msgspec.defstruct(
        function.__name__, fields, forbid_unknown_fields=True, frozen=True, kw_only=True
    )


_running = threading.BoundedSemaphore(MAX_RUNNING_CALLS)


async def _run_in_thread(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Calls a function in a thread of its own.

    A daemon thread: one of the event loop's executor would keep the process from ending while the
    function hangs.
    """
    if not _running.acquire(blocking=False):
        raise RuntimeError(f"{MAX_RUNNING_CALLS} calls are running already")
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def finish(returned: Any, error: Exception | None) -> None:
        if future.done():  # after a time-out
            return
        if error is None:
            future.set_result(returned)
        else:
            future.set_exception(error)

    def run() -> None:
        returned, error = None, None
        try:
            returned = function(**arguments)
        except Exception as raised:
            error = raised
        finally:
            _running.release()
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, returned, error)

    # In the caller's context: an agent that a function calls counts as one within this one.
    context = contextvars.copy_context()
    threading.Thread(
        target=context.run, args=(run,), name=f"tool-{function.__name__}", daemon=True
    ).start()
    return await future


def _write_result(result: Any) -> str:
    if isinstance(result, str):
        return result
    try:
        return msgspec.json.encode(result).decode()
    except (TypeError, ValueError, RecursionError):
        return str(result)
