"""The rails that ship: their flows (``*.co``) and the actions that these execute.

A library file is a pair ``NAME.co`` and ``NAME.py``; the module names its actions in `ACTIONS`. `MODULES` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from truing.rails.colang.ast import BotText, Flow
from truing.rails.colang.parser import parse_colang
from truing.rails.library import checks, safety, texts, tools
from truing.rails.runtime.rail_library import RailLibrary

MODULES: tuple[tuple[str, Sequence[Callable[..., Any]]], ...] = (
    ("pipeline", ()),
    ("checks", checks.ACTIONS),
)
# Read only where a configuration names one of their flows: others are neither slower nor see their messages.
ON_DEMAND: tuple[tuple[str, Sequence[Callable[..., Any]]], ...] = (
    ("texts", texts.ACTIONS),
    ("safety", safety.ACTIONS),
    ("tools", tools.ACTIONS),
)


@lru_cache(maxsize=1)
def load() -> RailLibrary:
    """What every configuration has; an earlier definition of a message stands."""
    return _library(MODULES)


@lru_cache(maxsize=1)
def on_demand() -> dict[str, RailLibrary]:
    """The other modules by name."""
    return {module[0]: _library((module,)) for module in ON_DEMAND}


def names() -> frozenset[str]:
    """The flows of the whole library."""
    return frozenset(f.name for part in (load(), *on_demand().values()) for f in part.flows)


def all_actions() -> tuple[Callable[..., Any], ...]:
    """The actions of the whole library."""
    return tuple(a for part in (load(), *on_demand().values()) for a in part.actions)


def pure_actions() -> frozenset[str]:
    """The names of the library's actions: all read only the message, the chunks and settings, and write only their result."""
    return frozenset(a.__name__ for a in all_actions())


def load_for(used: Iterable[str]) -> RailLibrary:
    """The library for a configuration that uses these flows."""
    wanted = set(used)
    parts = [
        load(),
        *(part for part in on_demand().values() if any(f.name in wanted for f in part.flows)),
    ]
    bots: dict[str, list[BotText]] = {}
    for part in parts:
        for message, said in part.bots.items():
            bots.setdefault(message, said)
    return RailLibrary(
        tuple(f for p in parts for f in p.flows),
        bots,
        tuple(a for p in parts for a in p.actions),
        pure_actions(),
    )


def _library(modules: Iterable[tuple[str, Sequence[Callable[..., Any]]]]) -> RailLibrary:
    flows: list[Flow] = []
    bots: dict[str, list[BotText]] = {}
    actions: list[Callable[..., Any]] = []
    for name, own in modules:
        text = (files("truing.rails.library") / f"{name}.co").read_text(encoding="utf-8")
        parsed = parse_colang(f"library/{name}.co", text)
        for flow in parsed.flows:
            flow.system = True
        flows.extend(parsed.flows)
        for message, said in parsed.bot_messages.items():
            bots.setdefault(message, said)
        actions.extend(own)
    return RailLibrary(tuple(flows), bots, tuple(actions))
