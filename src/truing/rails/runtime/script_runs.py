"""The flows of a script that run, what they wait for, and the events that end it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from truing.rails.colang.script_ast import ScriptFlow
from truing.rails.colang.script_expressions import TextPattern

EXACT_SCORE, ANY_SCORE = 1.0, 0.9  # as in NeMo: a parameter that is left open costs a tenth


@dataclass(frozen=True, slots=True)
class UserUtterance:
    """An event: the user has said a text."""

    text: str


@dataclass(frozen=True, slots=True)
class ActionEnded:
    """An event: what a flow did has ended, with a result."""

    key: int
    value: Any = None


@dataclass(eq=False, slots=True)
class FlowEnded:
    """An event: a flow has finished, or failed."""

    run: FlowRun
    failed: bool
    value: Any = None


@dataclass(frozen=True, slots=True)
class Effect:
    """What a flow wants to do: to say a text, or to run an action."""

    text: str | None
    action: str = ""
    arguments: tuple[tuple[str, Any], ...] = ()


@dataclass(eq=False, slots=True)
class Wait:
    """What a run waits for: cases of which the first to be complete wins.

    `open_items` are the items of a case that have not ended (an action is the item with a key).
    """

    cases: list[list[WaitItem]]
    needs_all: list[bool]


@dataclass(eq=False, slots=True)
class WaitItem:
    """One thing that a flow waits for: an utterance, the end of an action or of a flow.

    An item without any of them never ends.
    """

    text: Any = None  # expected: a text, a pattern, None for any
    hears: bool = False
    key: int = 0
    child: FlowRun | None = None
    reference: str = ""
    field: str = ""
    has_ended: bool = False
    has_failed: bool = False


FlowSteps = Generator[Wait | Effect, tuple[int, Any], Any]


class FlowAborted(Exception):
    """The flow has failed."""


class LoopLeft(Exception):
    """A loop is left, or goes on with its next round."""

    def __init__(self, continues: bool) -> None:
        self.continues = continues


class FlowReturned(Exception):
    """The flow ends with a value."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(eq=False, slots=True)
class FlowRun:
    """A flow that runs. `owners` are the runs that have activated it."""

    flow: ScriptFlow
    variables: dict[str, Any]
    parent: FlowRun | None
    scores: list[float]
    depth: int
    owners: list[FlowRun] = field(default_factory=list)
    is_activated: bool = False
    has_waited: bool = False
    is_alive: bool = True
    globals_used: set[str] = field(default_factory=set)
    children: list[FlowRun] = field(default_factory=list)
    generator: FlowSteps | None = None
    wait: Wait | None = None
    effect: Effect | None = None


def match_score(run: FlowRun, event: UserUtterance | ActionEnded) -> float:
    """Returns how closely an event matches what a run waits for; 0 if it does not."""
    if run.wait is None:
        return 0.0
    return max(
        (
            ANY_SCORE if item.hears and item.text is None else EXACT_SCORE
            for items in run.wait.cases
            for item in items
            if not item.has_ended and matches_item(item, event)
        ),
        default=0.0,
    )


def matches_item(item: WaitItem, event: UserUtterance | ActionEnded | FlowEnded) -> bool:
    """Returns whether an event is what an item waits for."""
    if isinstance(event, FlowEnded):
        return item.child is event.run
    if isinstance(event, ActionEnded):
        return item.key == event.key
    if not item.hears:
        return False
    if isinstance(item.text, TextPattern):
        return item.text.search(event.text)
    return item.text is None or item.text == event.text
