"""Speculative generation: while the input rails run, the turn behind them is already generated, and thrown away if it may not be.

A copy of the conversation goes on as if the input rails had passed, up to the first action that is not truing's own. What
the LLM answers it is kept by prompt. The turn itself asks as always, and an equal prompt finds its answer on the way. A rail that
blocks cancels the copy; a rail that rewrites the message changes the prompts, so that nothing of the copy is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from truing.errors import TruingError
from truing.rails.parallel import effects
from truing.types import Conversation, Sampling

if TYPE_CHECKING:
    from truing.rails.llm import Reply
    from truing.rails.program import Program
    from truing.rails.turn import Turn

Key = tuple[int, Conversation, Sampling]


class NoFurther(TruingError):
    """The copy has come to something that must not be done twice."""


class Ahead:
    """The answers that are on their way, by model, prompt and sampling."""

    def __init__(self) -> None:
        self._asked: dict[Key, asyncio.Future[Reply]] = {}
        self.copy: asyncio.Task[None] | None = None

    async def ask(self, key: Key, call: Callable[[], Awaitable[Reply]]) -> Reply:
        """The copy's side: asks, and keeps what comes."""
        if key in self._asked:
            return await self._asked[key]
        future = self._asked[key] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda f: f.cancelled() or f.exception())  # nobody may want it
        try:
            reply = await call()
        except BaseException as error:
            if not future.done():
                future.set_exception(error if isinstance(error, Exception) else NoFurther("cancelled"))
            raise
        if not future.done():
            future.set_result(reply)
        return reply

    def find(self, key: Key) -> asyncio.Future[Reply] | None:
        """The turn's side: the answer to an equal question, which is used once. If there is none, the turn has taken another
        way than its copy, or has overtaken it: the copy is of no more use."""
        found = self._asked.pop(key, None)
        if found is None and self.copy is not None:
            self.copy.cancel()
        return found


def possible(program: Program, rails: list[str]) -> bool:
    """Whether input rails can run beside the generation: they do nothing that shows in its prompts, save for the message."""
    return bool(rails) and all(effects(program, name) is not None for name in rails)


async def run_ahead(turn: Turn) -> None:
    """Goes on with a copy of the conversation, without input and output rails."""
    try:
        await turn.runtime.advance(turn)
    except TruingError:
        return


def switched_off(options: dict[str, Any] | None) -> dict[str, Any]:
    """The turn's options without input and output rails."""
    rails = {**((options or {}).get("rails") or {}), "input": False, "output": False}
    for name in ("dialog", "retrieval", "tool_output", "tool_input"):
        rails.setdefault(name, True)
    return {"llm_params": None, "llm_output": False, "output_vars": None, "log": {}, **(options or {}), "rails": rails}
