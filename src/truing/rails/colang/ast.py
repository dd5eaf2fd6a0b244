"""What the Colang parser gives: messages, flows and their steps, each with its line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Step:
    """Any step of a flow; `line` is its place in the file, `comment` the comment above it."""

    line: int = 0
    comment: str | None = None


@dataclass(slots=True)
class User(Step):
    """``user NAME``: waits for an intent; ``...`` is any. `variable` is the name after ``as $``."""

    intent: str = ""
    variable: str | None = None


@dataclass(slots=True)
class Bot(Step):
    """``bot NAME``, ``bot $variable``, ``bot ...``; `text` for ``bot "text"`` without a name."""

    intent: str = ""
    text: str | None = None


@dataclass(slots=True)
class Event(Step):
    """``event TYPE(field=value)``: waits for an event."""

    type: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Create(Step):
    """``create event TYPE(field=value)``."""

    event: Event | User | Bot = field(default_factory=Event)


@dataclass(slots=True)
class Execute(Step):
    """``execute ACTION(name=value)``, with ``$result =`` before it."""

    action: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    result: str | None = None


@dataclass(slots=True)
class Do(Step):
    """``do SUBFLOW``; the name may be an expression that starts with a variable."""

    flow: str = ""
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Set(Step):
    """``$name = expression``; the expression ``...`` is a value that the LLM makes."""

    name: str = ""
    expression: str = ""


@dataclass(slots=True)
class Check(Step):
    """``check expression``."""

    expression: str = ""


@dataclass(slots=True)
class If(Step):
    """``if`` / ``else if`` / ``else``."""

    condition: str = ""
    then: list[Step] = field(default_factory=list)
    other: list[Step] = field(default_factory=list)


@dataclass(slots=True)
class While(Step):
    """``while``."""

    condition: str = ""
    body: list[Step] = field(default_factory=list)


@dataclass(slots=True)
class When(Step):
    """``when A`` / ``else when B`` / ``else``: a branch starts with what it waits for; `other` follows any user intent."""

    branches: list[list[Step]] = field(default_factory=list)
    other: list[Step] | None = None


@dataclass(slots=True)
class AnyOf(Step):
    """An ``any`` block or ``user a or user b``."""

    steps: list[Step] = field(default_factory=list)


@dataclass(slots=True)
class Label(Step):
    """``label NAME``."""

    name: str = ""


@dataclass(slots=True)
class Goto(Step):
    """``goto NAME``."""

    name: str = ""


@dataclass(slots=True)
class Leave(Step):
    """``break``, ``continue``, ``return``."""

    kind: str = "break"


@dataclass(slots=True)
class Text:
    """One text of a bot message, and the expressions that must hold for it (texts under ``if`` in ``define bot``)."""

    text: str
    line: int
    conditions: tuple[str, ...] = ()


@dataclass(slots=True)
class Flow:
    """One flow or subflow; `source` is its code as it stands in prompts."""

    name: str
    steps: list[Step]
    file: str = ""
    line: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    system: bool = False


@dataclass(slots=True)
class Parsed:
    """One file: intents with their examples, bot messages, flows, imports; `places` maps ("user", name) to a line."""

    file: str = ""
    users: dict[str, list[str]] = field(default_factory=dict)
    bots: dict[str, list[Text]] = field(default_factory=dict)
    flows: list[Flow] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    places: dict[tuple[str, str], int] = field(default_factory=dict)
