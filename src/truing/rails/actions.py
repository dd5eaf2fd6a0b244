"""Actions: what flows `execute`. A folder's ``actions.py`` is trusted code and runs with the rights of this process.

An action is a function (or a class with `run`) under `@action`; parameters named context, events, config, llm,
llm_task_manager, kb, or registered ones are filled in. `ActionResult` also changes the context or adds events. Files that
import from ``nemoguardrails`` work unchanged with ``truing: {library: {nemo_alias: true}}`` or `nemo_alias=True`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from truing.errors import PlanError

T = TypeVar("T")


def action(is_system_action: bool = False, name: str | None = None, execute_async: bool = False) -> Callable[[T], T]:
    """Marks a function or class as an action. System actions do not show in prompts."""

    def mark(target: T) -> T:
        meta = {
            "name": name or getattr(target, "__name__", ""), "is_system_action": is_system_action,
            "execute_async": execute_async,
        }  # fmt: skip
        setattr(getattr(target, "__func__", target), "action_meta", meta)  # noqa: B010 - a mark on foreign functions
        return target

    return mark


@dataclass
class ActionResult:
    """What an action gives back besides a plain value: events to add, variables to set."""

    return_value: Any = None
    events: list[dict[str, Any]] | None = None
    context_updates: dict[str, Any] | None = field(default_factory=dict)


@dataclass(frozen=True)
class RailOutcome:
    """A rail's verdict: allow, block or transform; `transforms` maps user_message, bot_message, relevant_chunks to texts."""

    decision: Literal["allow", "block", "transform"] = "allow"
    reason: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    transforms: dict[str, str] = field(default_factory=dict)

    @property
    def is_blocked(self) -> bool:
        """Whether the turn must stop."""
        return self.decision == "block"

    @property
    def is_transform(self) -> bool:
        """Whether a text is rewritten."""
        return self.decision == "transform"

    @property
    def transform_text(self) -> dict[str, str]:
        """The rewritten texts by variable."""
        return self.transforms

    @classmethod
    def allow(cls, *, reason: str | None = None, metadata: Mapping[str, Any] | None = None) -> RailOutcome:
        """Nothing to object."""
        return cls("allow", reason, dict(metadata or {}))

    @classmethod
    def block(cls, *, reason: str | None = None, metadata: Mapping[str, Any] | None = None) -> RailOutcome:
        """Stop the turn."""
        return cls("block", reason, dict(metadata or {}))

    @classmethod
    def transform(
        cls, rewrites: Iterable[tuple[str, str]], *, reason: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> RailOutcome:  # fmt: skip
        """Rewrite one or more texts."""
        made = {str(getattr(target, "value", target)): text for target, text in rewrites}
        return cls("transform", reason, dict(metadata or {}), made)


class Action:
    """A registered action and how to call it. `builtin` ones get the turn itself and are no user code."""

    __slots__ = ("builtin", "call", "name", "parameters", "system", "wants_all")

    def __init__(self, name: str, call: Any, *, system: bool = False, builtin: bool = False) -> None:
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

    def register(self, call: Any, name: str | None = None, *, override: bool = True, builtin: bool = False) -> None:
        """Adds an action under a name, or under the name of its `@action`."""
        meta = getattr(call, "action_meta", {})
        title = name or meta.get("name") or getattr(call, "__name__", "")
        if not title:
            raise ValueError("an action without a name needs name=")
        if override or title not in self._known:
            self._known[title] = Action(title, call, system=bool(meta.get("is_system_action")), builtin=builtin)

    def find(self, name: str) -> Action | None:
        """An action by name; ``CheckFactsAction`` also finds ``check_facts``."""
        found = self._known.get(name)
        if found is None:
            title = name.replace("Action", "") if name.endswith("Action") else name
            title = re.sub("([a-z0-9])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z0-9]+)", r"\1_\2", title)).lower()
            found = self._known.get(title)
        return found

    def names(self) -> frozenset[str]:
        """All names."""
        return frozenset(self._known)


def load_code(files: Iterable[str], *, nemo_alias: bool = False) -> dict[str, Any]:
    """Imports a folder's Python files and gives its actions by name, and ``init`` functions as ``init:FILE``."""
    found: dict[str, Any] = {}
    with alias() if nemo_alias else contextlib.nullcontext():
        for at, file in enumerate(files):
            module = _import(Path(file), at)
            if Path(file).name == "config.py":
                if callable(getattr(module, "init", None)):
                    found[f"init:{file}"] = module.init
                continue
            for value in vars(module).values():
                meta = getattr(value, "action_meta", None)
                if meta and (inspect.isfunction(value) or inspect.isclass(value)):
                    found[meta["name"]] = value
    return found


def _import(path: Path, at: int) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"truing_rails_code_{at}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise PlanError(f"{path}: cannot be imported")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = _line(error, path)
        hint = ""
        if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith("nemoguardrails"):
            hint = "; set truing: {library: {nemo_alias: true}} in config.yml to run it unchanged"
        raise PlanError(f"{path.name}:{line}: {type(error).__name__}: {error}{hint}") from error
    return module


def _line(error: BaseException, path: Path) -> int:
    if isinstance(error, SyntaxError) and error.lineno:
        return error.lineno
    trace, line = error.__traceback__, 1
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


@contextlib.contextmanager
def alias() -> Iterator[None]:
    """For the time of an import, ``nemoguardrails`` and the modules that actions import are truing's."""
    from truing.rails.nemo import modules

    made = modules()
    before = {name: sys.modules.get(name) for name in made}
    sys.modules.update(made)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = old
