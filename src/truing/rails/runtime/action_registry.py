"""The registry of actions: how a registered function or class is called, and by which names it is found."""

from __future__ import annotations

import asyncio
import inspect
import re
from typing import Any


class Action:
    """A registered action and how to call it. `builtin` ones get the turn itself and are no user code."""

    __slots__ = ("builtin", "call", "name", "parameters", "system", "wants_all")

    def __init__(
        self, name: str, call: Any, *, system: bool = False, builtin: bool = False
    ) -> None:
        self.name, self.call, self.system, self.builtin = name, call, system, builtin
        target = call if inspect.isfunction(call) or inspect.ismethod(call) else None
        found = inspect.signature(target).parameters if target is not None else {}
        self.parameters = frozenset(p for p, v in found.items() if v.kind is not v.VAR_KEYWORD)
        self.wants_all = any(v.kind is v.VAR_KEYWORD for v in found.values())

    async def run(self, params: dict[str, Any], seconds: float) -> Any:
        """The action's value; TimeoutError when it takes too long. Synchronous functions run in a thread."""
        call = self.call
        if inspect.isclass(call):
            call = self.call = call()
        invoke = getattr(call, "ainvoke", None)
        if not (inspect.isfunction(call) or inspect.ismethod(call)):
            if callable(invoke):
                async with asyncio.timeout(seconds):
                    return await invoke(input=params)
            call = call.run
        async with asyncio.timeout(seconds):
            if inspect.iscoroutinefunction(call):
                return await call(**params)
            value = await asyncio.to_thread(call, **params)
            return await value if inspect.isawaitable(value) else value


class Actions:
    """The actions of a runtime by name; later registrations win, except over the folder's own."""

    def __init__(self) -> None:
        self._known: dict[str, Action] = {}

    def register(
        self, call: Any, name: str | None = None, *, override: bool = True, builtin: bool = False
    ) -> None:
        """Adds an action under a name, or under the name of its `@action`."""
        meta = getattr(call, "action_meta", {})
        title = name or meta.get("name") or getattr(call, "__name__", "")
        if not title:
            raise ValueError("an action without a name needs name=")
        if override or title not in self._known:
            self._known[title] = Action(
                title, call, system=bool(meta.get("is_system_action")), builtin=builtin
            )

    def find(self, name: str) -> Action | None:
        """An action by name; ``CheckFactsAction`` also finds ``check_facts``."""
        found = self._known.get(name)
        if found is None:
            title = name.replace("Action", "") if name.endswith("Action") else name
            title = re.sub(
                "([a-z0-9])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z0-9]+)", r"\1_\2", title)
            ).lower()
            found = self._known.get(title)
        return found

    def names(self) -> frozenset[str]:
        """All names."""
        return frozenset(self._known)
