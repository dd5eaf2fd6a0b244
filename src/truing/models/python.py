"""Any Python function as a model: `python:pkg.mod:function`.

The function takes one argument (by its annotation or name: a `Conversation`, ``messages`` in the
OpenAI form, or else the prompt's text) and, if it likes, a second one, the `Sampling`. It may be
async; one that is not runs in a thread. It gives a text, an `Answer`, or a message in the OpenAI
form. What it raises becomes a `Failure`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from truing.core.errors import BudgetExceeded, SpecError
from truing.core.ids import stream_seed
from truing.core.lineage import digest
from truing.core.types import Answer, Conversation, Lineage, Sampling
from truing.specs.python_objects import is_async_function, load_function
from truing.specs.resolve import Args


class PythonModel:
    """A Python function that answers conversations."""

    def __init__(self, function: Callable[..., Any], *, name: str = "", threads: int = 64) -> None:
        self.name = (
            name or f"python:{function.__module__}:{getattr(function, '__qualname__', 'function')}"
        )
        self._function = function
        self._is_async = is_async_function(function)
        self._argument, self._with_sampling = _inspect_parameters(function)
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        try:
            code = inspect.getsource(function)
        except (OSError, TypeError):
            # Built-in functions and those typed into an interpreter have no source.
            code = ""
        self.lineage = Lineage(name=self.name, hash=digest("python", self.name, code))

    async def generate(self, conversation: Conversation, sampling: Sampling) -> tuple[Answer, ...]:
        """Calls the function once for each answer, concurrently."""
        if sampling.n == 1:
            return (await self._generate_one(conversation, sampling),)
        samplings = [
            msgspec.structs.replace(sampling, n=1, seed=stream_seed(sampling.seed, i))
            for i in range(sampling.n)
        ]
        return tuple(
            await asyncio.gather(*(self._generate_one(conversation, s) for s in samplings))
        )

    async def _generate_one(self, conversation: Conversation, sampling: Sampling) -> Answer:
        argument: Any = conversation
        if self._argument == "messages":
            argument = conversation.to_openai()
        elif self._argument == "prompt":
            argument = conversation.prompt
        arguments = (argument, sampling) if self._with_sampling else (argument,)
        try:
            if self._is_async:
                returned = await self._function(*arguments)
            else:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(
                        self._threads, thread_name_prefix="truing-python"
                    )
                returned = await asyncio.get_running_loop().run_in_executor(
                    self._pool, self._function, *arguments
                )
        # The run must stop; every other exception is a failure of this answer alone.
        except BudgetExceeded:
            raise
        except Exception as error:
            return Answer.failed(
                "exception", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            )
        return _read_result(returned)

    async def close(self) -> None:
        """Stops the threads; may be called twice."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def _inspect_parameters(function: Callable[..., Any]) -> tuple[str, bool]:
    """Returns what the first argument is (conversation, messages or prompt), and whether sampling
    is the second.
    """
    try:
        parameters = [
            p
            for p in inspect.signature(function).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError):
        return "prompt", False
    if not parameters:
        raise SpecError(
            f"python model {function!r}: the function takes no argument; it must take the prompt"
        )
    first = parameters[0]
    annotation = (
        first.annotation
        if isinstance(first.annotation, str)
        else getattr(first.annotation, "__name__", "")
    )
    argument = (
        "conversation"
        if "Conversation" in annotation or first.name == "conversation"
        else ("messages" if first.name == "messages" or annotation.startswith("list") else "prompt")
    )
    second = parameters[1] if len(parameters) > 1 else None
    with_sampling = second is not None and (
        second.name == "sampling" or "Sampling" in str(second.annotation)
    )
    return argument, with_sampling


def _read_result(returned: Any) -> Answer:
    if isinstance(returned, str):
        return Answer.of(returned)
    if isinstance(returned, Answer):
        return returned
    if isinstance(returned, (bytes, bytearray)):
        try:
            return Answer.of(returned.decode("utf-8"))
        except UnicodeDecodeError:
            return Answer.failed(
                "binary", f"the function gave {len(returned)} bytes that are not UTF-8 text"
            )
    if returned is None:
        return Answer.failed("empty", "the function gave nothing (None)")
    if isinstance(returned, dict) and isinstance(returned.get("content"), str):
        try:
            return Answer(
                message=Conversation.from_openai([{"role": "assistant", **returned}]).last
            )
        except ValueError as error:
            return Answer.failed("unparsable", str(error))
    return Answer.failed("unparsable", f"the function gave a {type(returned).__name__}, not a text")


def build(args: Args) -> PythonModel:
    """Returns the model of a `python:` spec; modules in the working directory are found too."""
    function = load_function(args)
    return PythonModel(function, name=f"python:{args.name}", threads=args.integer("threads", 64))
