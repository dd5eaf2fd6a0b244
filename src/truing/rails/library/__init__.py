"""The rails that ship: their flows (``*.co``) and the actions that these execute.

A library file is a pair ``NAME.co`` and ``NAME.py``; the module names its actions in `ACTIONS`. `MODULES` lists them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from truing.rails.colang import parse_colang
from truing.rails.library import checks
from truing.rails.nodes import Flow, Text

MODULES: tuple[tuple[str, Sequence[Callable[..., Any]]], ...] = (("pipeline", ()), ("checks", checks.ACTIONS))


@dataclass(frozen=True)
class Library:
    """All flows, messages and actions that ship."""

    flows: tuple[Flow, ...]
    bots: dict[str, list[Text]] = field(default_factory=dict)
    actions: tuple[Callable[..., Any], ...] = ()


@lru_cache(maxsize=1)
def load() -> Library:
    """Reads the library once; an earlier definition of a message stands."""
    flows: list[Flow] = []
    bots: dict[str, list[Text]] = {}
    actions: list[Callable[..., Any]] = []
    for name, own in MODULES:
        text = (files("truing.rails.library") / f"{name}.co").read_text(encoding="utf-8")
        parsed = parse_colang(f"library/{name}.co", text)
        for flow in parsed.flows:
            flow.system = True
        flows.extend(parsed.flows)
        for message, texts in parsed.bots.items():
            bots.setdefault(message, texts)
        actions.extend(own)
    return Library(tuple(flows), bots, tuple(actions))
