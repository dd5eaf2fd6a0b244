"""Classes for the events of a conversation, and their conversion from and to NeMo's format.

Flows, actions and the runtime exchange events. Each event that the runtime itself acts on has a
class with its fields. All others are `OtherEvent`s: those that a configuration defines, exceptions,
and the start and end of stages and rails.

Inside the runtime only these classes are used. `event_from_nemo` reads the dictionaries in messages
and in the results of actions; `Event.to_nemo` writes those that flows, templates and actions see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from msgspec import NODEFAULT, Struct
from msgspec.structs import fields

from truing.core.errors import TruingError

STOP_INTENT = "stop"  # the bot intent that ends a turn
_PLAIN_TYPES = frozenset({str, bool, int, float, type(None)})


class EventError(TruingError):
    """Raised for a dictionary that is not an event: it has no type, or lacks a required field."""


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened in a conversation, or that the runtime is to do next.

    `kind` is NeMo's name for the class; `extra` holds the fields that the class does not have.
    """

    kind: ClassVar[str] = ""
    extra: Mapping[str, Any] = {}

    @property
    def type(self) -> str:
        """NeMo's name for the event."""
        return self.kind

    @property
    def is_exception(self) -> bool:
        """Whether the event is an exception: a rail creates one to block the turn."""
        return self.type.endswith("Exception")

    @property
    def stops_turn(self) -> bool:
        """Whether the turn ends with this event."""
        return self.is_exception

    def get(self, name: str) -> Any:
        """Returns a field by its name; None if the event has no such field."""
        if name in _OWN_FIELDS[type(self)]:
            return getattr(self, name)
        return self.extra.get(name)

    def to_nemo(self) -> dict[str, Any]:
        """Returns the event in NeMo's format; optional fields only where they are set."""
        event: dict[str, Any] = {"type": self.type}
        for name, default in _FIELD_DEFAULTS[type(self)]:
            value = getattr(self, name)
            if default is NODEFAULT or value != default:
                event[name] = value if type(value) in _PLAIN_TYPES else _nested_to_nemo(value)
        if self.extra:
            event.update(self.extra)
        return event


class Utterance(Event, frozen=True):
    """The user has written; the flows are to run the input rails and to answer."""

    kind = "UtteranceUserActionFinished"
    final_transcript: Any


class UserMessage(Event, frozen=True):
    """A message of the user after the input rails.

    A placeholder starts the flows in a turn without a message of the user; prompts do not show it.
    """

    kind = "UserMessage"
    text: Any
    is_placeholder: bool = False


class UserIntent(Event, frozen=True):
    """The canonical form of the user's message.

    `additional_info` holds the events of the next steps where one LLM call wrote all of them.
    """

    kind = "UserIntent"
    intent: str
    additional_info: Mapping[str, Any] | None = None


class BotIntent(Event, frozen=True):
    """The bot's next step; `instructions` is the comment above it in its flow."""

    kind = "BotIntent"
    intent: str
    instructions: str | None = None

    @property
    def stops_turn(self) -> bool:
        """Whether this is the step `stop`."""
        return self.intent == STOP_INTENT


class BotMessage(Event, frozen=True):
    """A text that the bot is about to say; the output rails check it."""

    kind = "BotMessage"
    text: Any


class BotToolCalls(Event, frozen=True):
    """Tool calls that the model requests; the tool_output rails check them."""

    kind = "BotToolCalls"
    tool_calls: Any


class BotThinking(Event, frozen=True):
    """The reasoning text of the model before its answer."""

    kind = "BotThinking"
    content: Any


class SystemMessage(Event, frozen=True):
    """A system message of the conversation."""

    kind = "SystemMessage"
    content: Any = ""


class ContextUpdate(Event, frozen=True):
    """Sets variables of the conversation."""

    kind = "ContextUpdate"
    data: Mapping[str, Any]


class StartUtterance(Event, frozen=True):
    """The bot says a text."""

    kind = "StartUtteranceBotAction"
    script: Any


class UtteranceFinished(Event, frozen=True):
    """The bot has said a text."""

    kind = "UtteranceBotActionFinished"
    final_script: Any
    is_success: Any = None


class StartToolCalls(Event, frozen=True):
    """The bot answers with tool calls instead of a text."""

    kind = "StartToolCallBotAction"
    tool_calls: Any = None


class UserToolMessages(Event, frozen=True):
    """Results of tools; the tool_input rails check them."""

    kind = "UserToolMessages"
    tool_messages: Any
    user_message: Any


class StartAction(Event, frozen=True):
    """An action is to run; prompts do not show system actions."""

    kind = "StartInternalSystemAction"
    action_name: str
    action_params: Mapping[str, Any]
    action_result_key: str | None
    is_system_action: bool = False


class ActionFinished(Event, frozen=True):
    """An action has run, or failed."""

    kind = "InternalSystemActionFinished"
    action_name: str
    action_params: Mapping[str, Any]
    action_result_key: str | None
    status: str
    is_success: bool
    return_value: Any
    is_system_action: bool


class StartFlow(Event, frozen=True):
    """A flow is to start; `flow_body` is its source if the LLM has just written it."""

    kind = "start_flow"
    flow_id: str
    params: Mapping[str, Any] | None = None
    flow_body: str | None = None


class HidePreviousTurn(Event, frozen=True):
    """The flows return to their state before the user's last message."""

    kind = "hide_prev_turn"


class MaskPreviousUserMessage(Event, frozen=True):
    """Prompts no longer show the user's last message."""

    kind = "mask_prev_user_message"


class Listen(Event, frozen=True):
    """The turn is over: the bot waits for the user."""

    kind = "Listen"


class OtherEvent(Event, frozen=True):
    """An event that only flows react to; all of its fields are in `extra`."""

    name: str

    @property
    def type(self) -> str:
        """The name of the event."""
        return self.name

    @classmethod
    def of(cls, name: str, /, **values: Any) -> OtherEvent:
        """Returns the event of a name with these fields."""
        return cls(name, extra=values)


_KNOWN_CLASSES: tuple[type[Event], ...] = (
    *(Utterance, UserMessage, UserIntent, BotIntent, BotMessage, BotToolCalls, BotThinking),
    *(SystemMessage, ContextUpdate, StartUtterance, UtteranceFinished, StartToolCalls),
    *(UserToolMessages, StartAction, ActionFinished, StartFlow, HidePreviousTurn),
    *(MaskPreviousUserMessage, Listen),
)
_CLASSES = {known.kind: known for known in _KNOWN_CLASSES}
# Class -> its own fields, with their defaults.
_OWN_FIELDS: dict[type[Event], dict[str, Any]] = {
    known: {own.name: own.default for own in fields(known) if own.name != "extra"}
    for known in _KNOWN_CLASSES
}
_OWN_FIELDS[OtherEvent] = {}
_FIELD_DEFAULTS = {known: tuple(own.items()) for known, own in _OWN_FIELDS.items()}
# The fields that an `InternalSystemActionFinished` event of a client or of an action may omit.
_ACTION_FINISHED_DEFAULTS: dict[str, Any] = {
    "action_params": {},
    "action_result_key": None,
    "status": "success",
    "is_success": True,
    "return_value": None,
    "is_system_action": False,
}


def event_from_nemo(values: Event | Mapping[str, Any]) -> Event:
    """Converts a dictionary in NeMo's format to an event; returns an `Event` unchanged.

    Raises EventError if the dictionary has no type, or lacks a required field.
    """
    if isinstance(values, Event):
        return values
    name = values.get("type") if isinstance(values, Mapping) else None
    if not isinstance(name, str) or not name:
        raise EventError("an event needs a type")
    known = _CLASSES.get(name)
    if known is None:
        return OtherEvent(name, extra={k: v for k, v in values.items() if k != "type"})
    if known is ActionFinished:
        values = {**_ACTION_FINISHED_DEFAULTS, **values}
    own_fields = _OWN_FIELDS[known]
    missing = [
        field
        for field, default in own_fields.items()
        if default is NODEFAULT and field not in values
    ]
    if missing:
        raise EventError(f"an event {name} needs {', '.join(missing)}")
    own = {field: values[field] for field in own_fields if field in values}
    extra = {k: v for k, v in values.items() if k != "type" and k not in own_fields}
    return known(**own, extra=extra)


def events_from_nemo(events: Iterable[Event | Mapping[str, Any]]) -> list[Event]:
    """Converts dictionaries in NeMo's format to events (see `event_from_nemo`)."""
    return [event_from_nemo(event) for event in events]


def _nested_to_nemo(value: Any) -> Any:
    """Converts a field that is an event, or a dictionary of events (`UserIntent`)."""
    if isinstance(value, Event):
        return value.to_nemo()
    if isinstance(value, dict) and any(isinstance(item, Event) for item in value.values()):
        return {key: _nested_to_nemo(item) for key, item in value.items()}
    return value
