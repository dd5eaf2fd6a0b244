"""The syntax tree of Colang 1.0: a file holds flows, a flow holds steps, each with its line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class FlowStep:
    """Base class of the nodes in a flow. `comment` is the comment directly above the line."""

    line: int = 0
    comment: str | None = None


@dataclass(slots=True)
class UserIntent(FlowStep):
    """``user INTENT [as $variable]``: waits for an intent; the intent ``...`` matches any."""

    intent: str = ""
    variable: str | None = None


@dataclass(slots=True)
class BotMessage(FlowStep):
    """``bot NAME``, ``bot $variable`` or ``bot ...``; for ``bot "text"`` only `text` is set."""

    intent: str = ""
    text: str | None = None


@dataclass(slots=True)
class MatchEvent(FlowStep):
    """``event TYPE(field=value)``: waits for an event with these field values."""

    type: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class CreateEvent(FlowStep):
    """``create event TYPE(field=value)``: emits an event."""

    event: MatchEvent | UserIntent | BotMessage = field(default_factory=MatchEvent)


@dataclass(slots=True)
class ExecuteAction(FlowStep):
    """``[$result =] execute ACTION(name=value)``: calls a Python action."""

    action: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    result: str | None = None


@dataclass(slots=True)
class CallFlow(FlowStep):
    """``do SUBFLOW``; `flow` is an expression if it starts with ``$``."""

    flow: str = ""
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Assign(FlowStep):
    """``$variable = expression``; the expression ``...`` asks the LLM for the value."""

    variable: str = ""
    expression: str = ""


@dataclass(slots=True)
class CheckCondition(FlowStep):
    """``check expression``: the turn fails unless the expression is true."""

    expression: str = ""


@dataclass(slots=True)
class If(FlowStep):
    """``if`` / ``else``; an ``else if`` is a single nested `If` in `orelse`."""

    condition: str = ""
    body: list[FlowStep] = field(default_factory=list)
    orelse: list[FlowStep] = field(default_factory=list)


@dataclass(slots=True)
class While(FlowStep):
    """``while condition``."""

    condition: str = ""
    body: list[FlowStep] = field(default_factory=list)


@dataclass(slots=True)
class When(FlowStep):
    """``when A`` / ``else when B`` / ``else``.

    The first step of each branch is what the branch waits for. `orelse` runs on any other user
    intent; None without an ``else``.
    """

    branches: list[list[FlowStep]] = field(default_factory=list)
    orelse: list[FlowStep] | None = None


@dataclass(slots=True)
class AnyOf(FlowStep):
    """An ``any`` block, or ``user A or user B``."""

    steps: list[FlowStep] = field(default_factory=list)


@dataclass(slots=True)
class FlowLabel(FlowStep):
    """``label NAME``: the target of a ``goto``."""

    name: str = ""


@dataclass(slots=True)
class Goto(FlowStep):
    """``goto NAME``."""

    label: str = ""


@dataclass(slots=True)
class Break(FlowStep):
    """``break``: leaves the innermost ``while``."""


@dataclass(slots=True)
class Continue(FlowStep):
    """``continue`` or ``pass``: the next iteration; outside a loop, the next step."""


@dataclass(slots=True)
class Return(FlowStep):
    """``return`` or ``done``: ends the flow."""


@dataclass(slots=True)
class BotText:
    """One wording of a bot message.

    `conditions` are the expressions that must all be true for it: texts under ``if`` in
    ``define bot``.
    """

    text: str
    line: int
    conditions: tuple[str, ...] = ()


@dataclass(slots=True)
class Flow:
    """A flow or subflow.

    `meta` holds NeMo's flow properties (``priority``, ``is_extension``, ``subflow``, ...), `source`
    the code as prompts show it. `system` marks flows of the library and flows used as rails.
    """

    name: str
    steps: list[FlowStep]
    file: str = ""
    line: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    source: str | None = None
    system: bool = False


@dataclass(slots=True)
class ColangFile:
    """The root node: the definitions of one file.

    `user_messages` maps an intent to its example messages, `bot_messages` a bot message to its
    texts. `definition_lines` maps ``("user" | "bot", name)`` to the line of the definition.
    """

    file: str = ""
    user_messages: dict[str, list[str]] = field(default_factory=dict)
    bot_messages: dict[str, list[BotText]] = field(default_factory=dict)
    flows: list[Flow] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    definition_lines: dict[tuple[str, str], int] = field(default_factory=dict)
