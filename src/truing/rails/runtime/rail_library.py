"""What a runtime adds to a configuration: the flows, messages and actions of the shipped rails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from truing.rails.colang.ast import BotText, Flow


@dataclass(frozen=True)
class RailLibrary:
    """Flows, bot messages and actions; `pure_actions` has the meaning that it has in `Program`."""

    flows: tuple[Flow, ...]
    bot_messages: dict[str, list[BotText]] = field(default_factory=dict)
    actions: tuple[Callable[..., Any], ...] = ()
    pure_actions: frozenset[str] = frozenset()
