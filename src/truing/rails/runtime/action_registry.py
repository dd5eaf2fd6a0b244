"""The registry of actions: by which names an action is found, and how it is called."""

from __future__ import annotations

import asyncio
import inspect
import re
from functools import lru_cache
from typing import Any


class RegisteredAction:
    """A registered action and how to call it.

    `builtin` actions are truing's own: they take the TurnContext as their first argument. All
    others are user code and get only the parameters that they name.
    """

    __slots__ = ("accepts_any_keyword", "builtin", "call", "name", "parameters", "system")

    def __init__(
        self, name: str, call: Any, *, system: bool = False, builtin: bool = False
    ) -> None:
        self.name, self.call, self.system, self.builtin = name, call, system, builtin
        # The signature of a class or of an object with `run` is not that of the action: it gets the
        # parameters of the flow as they are.
        is_function = inspect.isfunction(call) or inspect.ismethod(call)
        parameters = inspect.signature(call).parameters if is_function else {}
        self.parameters = frozenset(
            name for name, p in parameters.items() if p.kind is not p.VAR_KEYWORD
        )
        self.accepts_any_keyword = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    async def run(self, params: dict[str, Any], seconds: float) -> Any:
        """Calls the action and returns its value; raises TimeoutError after `seconds`.

        Synchronous functions run in a thread, so that they do not block the event loop.
        """
        if inspect.isclass(self.call):
            self.call = self.call()  # one instance for all calls, made when it is first needed
        call = self.call
        if not (inspect.isfunction(call) or inspect.ismethod(call)):
            invoke = getattr(call, "ainvoke", None)  # a LangChain runnable
            if callable(invoke):
                async with asyncio.timeout(seconds):
                    return await invoke(input=params)
            call = call.run
        async with asyncio.timeout(seconds):
            if inspect.iscoroutinefunction(call):
                return await call(**params)
            value = await asyncio.to_thread(call, **params)
            return await value if inspect.isawaitable(value) else value


class ActionRegistry:
    """The actions of a runtime by name."""

    def __init__(self) -> None:
        self._actions: dict[str, RegisteredAction] = {}

    def register(
        self, call: Any, name: str | None = None, *, override: bool = True, builtin: bool = False
    ) -> None:
        """Adds an action under `name`, or under the name that its `@action` decorator gives.

        A later registration replaces an earlier one of the same name unless `override` is false.
        Raises ValueError if the action has no name.
        """
        meta = getattr(call, "action_meta", {})
        action_name = name or meta.get("name") or getattr(call, "__name__", "")
        if not action_name:
            raise ValueError("an action without a name needs name=")
        if override or action_name not in self._actions:
            self._actions[action_name] = RegisteredAction(
                action_name, call, system=bool(meta.get("is_system_action")), builtin=builtin
            )

    def find(self, name: str) -> RegisteredAction | None:
        """Returns an action by name, or None; ``CheckFactsAction`` also finds ``check_facts``."""
        return self._actions.get(name) or self._actions.get(_snake_case(name))

    def names(self) -> frozenset[str]:
        """Returns all registered names."""
        return frozenset(self._actions)


@lru_cache(maxsize=4096)
def _snake_case(name: str) -> str:
    """Returns ``check_facts`` for ``CheckFactsAction``, by NeMo's rules."""
    if name.endswith("Action"):
        name = name.replace("Action", "")
    name = re.sub("(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", name).lower()
