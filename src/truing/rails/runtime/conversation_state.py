"""The state of a conversation behind rails: events, context variables, and interpreter."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from truing.core.errors import PlanError
from truing.rails.colang import ast as n
from truing.rails.colang.compiler import EVENT, Instruction, Program, compile_flow
from truing.rails.colang.parser import parse_colang
from truing.rails.runtime.chat_messages import ChatMessage, content_text
from truing.rails.runtime.event_types import (
    ActionFinished,
    BotIntent,
    BotMessage,
    ContextUpdate,
    Event,
    Listen,
    MaskPreviousUserMessage,
    OtherEvent,
    StartAction,
    StartUtterance,
    SystemMessage,
    UserIntent,
    UserMessage,
    Utterance,
    event_from_nemo,
)
from truing.rails.runtime.events import events_of_message
from truing.rails.runtime.interpreter import Interpreter

_encode = msgspec.json.Encoder(order="deterministic").encode
E = TypeVar("E", bound=Event)
MASKED_MESSAGE = "<hidden: the assistant does not talk about this>"
MAX_RESULT_CHARACTERS = 2000  # of an action's result, in a prompt


def render_event(event: Event) -> str:
    """Returns the lines of one event in a conversation written as Colang; empty if it has none."""
    match event:
        case UserMessage(is_placeholder=False):
            return f'user "{content_text(event.text)}"\n'
        case UserIntent():
            return f"  {event.intent}\n"
        case BotIntent():
            return f"bot {event.intent}\n"
        case StartUtterance():
            return f'  "{event.script}"\n'
        case StartAction():
            return "" if event.is_system_action else f"execute {event.action_name}\n"
        case ActionFinished() if not event.is_system_action:
            result = str(event.return_value)[:MAX_RESULT_CHARACTERS].replace("\n", " ")
            return f"# The result was {result}\n"
    return ""


# Most events of a turn: neither the rendering nor the chat shows them.
_UNRENDERED = (OtherEvent, Listen, Utterance, BotMessage)


class EventHistory(list[Event]):
    """The events of a conversation, with their rendering as Colang and as chat kept up to date.

    Prompts show the conversation at every LLM call; rendering each event once, when it is added,
    keeps the cost of a turn independent of the length of the conversation.
    """

    def __init__(self, events: Iterable[Event | Mapping[str, Any]] = ()) -> None:
        super().__init__()
        self.rendered: list[str] = []
        self.chat: list[tuple[str, Any]] = []
        self.last_bot_intent = -1  # its index in `rendered`
        self.instructions: str | None = None  # the comment above that bot intent in its flow
        self.chunks: str | None = None  # $relevant_chunks as last set
        self.fresh_chunks: str | None = (
            None  # the same, but only if set since the last user message
        )
        # What `state_cache.state_size` has measured: the first events, and their bytes.
        self.measured_events, self.measured_bytes = 0, 0
        for event in events:
            self.add(event_from_nemo(event))

    def add(self, event: Event) -> None:
        """Appends an event and renders it."""
        self.append(event)
        if isinstance(event, _UNRENDERED):
            return
        rendered = render_event(event)
        match event:
            case MaskPreviousUserMessage():
                self._mask_last_user_message()
            case BotIntent():
                self.last_bot_intent = len(self.rendered)
                self.instructions = event.instructions
            case UserMessage():
                # A turn without any message of the user has no text for the prompt.
                if not event.is_placeholder:
                    self.chat.append(("user", event.text))
                self.fresh_chunks = None
            case ContextUpdate() if "relevant_chunks" in event.data:
                self.chunks = self.fresh_chunks = str(event.data["relevant_chunks"] or "").strip()
            case StartUtterance():
                self.chat.append(("assistant", event.script))
            case SystemMessage():
                self.chat.append(("system", event.content))
        if rendered:
            self.rendered.append(rendered)

    def _mask_last_user_message(self) -> None:
        for index in range(len(self.rendered) - 1, -1, -1):
            if self.rendered[index].startswith('user "'):
                self.rendered[index] = f'user "{MASKED_MESSAGE}"\n'
                break

    def fork(self) -> EventHistory:
        """Returns an independent copy."""
        fork = EventHistory()
        fork.extend(self)
        fork.rendered, fork.chat = list(self.rendered), list(self.chat)
        fork.last_bot_intent, fork.instructions = self.last_bot_intent, self.instructions
        fork.chunks, fork.fresh_chunks = self.chunks, self.fresh_chunks
        fork.measured_events, fork.measured_bytes = self.measured_events, self.measured_bytes
        return fork

    def colang(self, skip: int = 0) -> str:
        """Returns the conversation as Colang, without its first `skip` rendered events.

        The instructions of a flow stand as a comment above the last bot intent, which the LLM
        continues.
        """
        if self.instructions is None or self.last_bot_intent < skip:
            return "".join(self.rendered[skip:])
        before = self.rendered[skip : self.last_bot_intent]
        after = self.rendered[self.last_bot_intent :]
        return "".join(before) + f"# {self.instructions}\n" + "".join(after)

    def latest(self, kind: type[E]) -> E | None:
        """Returns the newest event of a class, or None."""
        return next((event for event in reversed(self) if isinstance(event, kind)), None)

    def to_nemo(self) -> list[dict[str, Any]]:
        """Returns the events in NeMo's format, as user code gets them."""
        return [event.to_nemo() for event in self]


class OneUse:
    """An object that cannot be copied: of all copies of a state, the first that asks gets it."""

    __slots__ = ("_value",)

    def __init__(self, value: Any = None) -> None:
        self._value = value

    def take(self) -> Any:
        """Returns the object, or None if it was taken."""
        value, self._value = self._value, None
        return value


class ConversationState:
    """The state of a conversation: its history, the context that actions see, and its interpreter.

    The runtime caches states by conversation and continues on a `fork`, so that a cached state
    never changes.
    """

    __slots__ = (
        "context",
        "history",
        "interpreter",
        "processed",
        "program",
        "script_log",
        "script_runner",
    )

    def __init__(self, program: Program, config: Any) -> None:
        self.program = program
        self.interpreter = Interpreter(program, config)
        self.history = EventHistory()
        self.context: dict[str, Any] = {"last_user_message": None, "last_bot_message": None}
        self.processed = 0  # number of events of the history that the interpreter has processed
        # Of each utterance that the script has heard: its text, results of actions and draws.
        self.script_log: tuple[tuple[str, tuple[Any, ...]], ...] = ()
        self.script_runner = OneUse()  # the flows after these utterances

    def fork(self) -> ConversationState:
        """Returns an independent copy."""
        fork = ConversationState.__new__(ConversationState)
        fork.program, fork.interpreter = self.program, self.interpreter.fork()
        fork.history, fork.context = self.history.fork(), dict(self.context)
        fork.processed, fork.script_log = self.processed, self.script_log
        fork.script_runner = self.script_runner
        return fork

    def fork_without_flows(self) -> ConversationState:
        """Returns a copy with the same history and variables, in which no flow runs."""
        fork = ConversationState(self.program, self.interpreter.config)
        fork.history, fork.context = self.history.fork(), dict(self.context)
        fork.interpreter.restart(self.context)
        fork.processed = len(fork.history)
        return fork

    def add(self, event: Event) -> None:
        """Appends an event; the flows see it at the next call of `next_steps`."""
        self.history.add(event)
        if isinstance(event, ContextUpdate):
            self.context.update(event.data)
        elif isinstance(event, UserMessage):
            self.context["last_user_message"] = event.text
        elif isinstance(event, StartUtterance):
            self.context["last_bot_message"] = event.script
        self.context["event"] = event.to_nemo()

    def next_steps(self) -> list[Event]:
        """Gives the flows the events that they have not seen; returns the events that follow."""
        interpreter, history = self.interpreter, self.history
        last = len(history) - 1
        while self.processed <= last:
            # `add` has converted the newest event already.
            nemo_event = self.context["event"] if self.processed == last else None
            interpreter.process(history[self.processed], nemo_event)
            self.processed += 1
        return interpreter.next_steps()

    def add_dynamic_flow(self, name: str, body: str) -> None:
        """Adds a flow that the LLM wrote; it starts at the `start_flow` event of its name."""
        code = f"define flow {name}:\n" + _indent(body)
        flow: n.Flow = parse_colang("dynamic.co", code).flows[0]
        compiled = compile_flow(flow)
        compiled.instructions.insert(
            0, Instruction(EVENT, name="start_flow", fields=(("flow_id", name),))
        )
        # A copy: the runtime's program is shared by all conversations.
        self.program = self.program.fork()
        self.program.add(compiled)
        self.interpreter.program = self.program


def build_states(
    program: Program, config: Any, rows: Sequence[ChatMessage]
) -> Callable[[int], ConversationState]:
    """Returns a function from a number of messages to the state after them.

    It is called with numbers that do not fall, and its result is copied before the next call.
    """
    state = ConversationState(program, config)
    added = 0

    def state_after(count: int) -> ConversationState:
        nonlocal added
        while added < count:
            for event in events_of_message(rows[added], is_last=False):
                state.add(event)
            added += 1
        return state

    return state_after


def _indent(code: str) -> str:
    return "\n".join(f"  {line}" if line.strip() else line for line in code.split("\n"))


def is_valid_flow_body(body: str) -> bool:
    """Returns whether a text can be parsed and compiled as the steps of a flow."""
    try:
        compile_flow(parse_colang("dynamic.co", f"define flow dynamic:\n{_indent(body)}").flows[0])
    except (PlanError, IndexError):
        return False
    return True


def extend_conversation_key(key: bytes, message: ChatMessage, secret: bytes = b"") -> bytes:
    """Returns the key of a conversation after one more message: a keyed hash over all of them."""
    fields = (
        message.role,
        message.content,
        message.variables,
        None if message.event is None else message.event.to_nemo(),
        message.tool_calls,
    )
    try:
        encoded = _encode(fields)
    except (TypeError, ValueError, UnicodeError, OverflowError, RecursionError):
        # Context variables may hold anything, e.g. objects or lone surrogates.
        encoded = json.dumps(fields, default=str, sort_keys=True).encode()
    return hashlib.blake2b(key + encoded, digest_size=16, key=secret).digest()


def conversation_keys(
    messages: Sequence[ChatMessage], session: str = "", secret: bytes = b""
) -> list[bytes]:
    """Returns the keys after each message; conversations of different sessions share none."""
    key = b""
    if session:
        key = hashlib.blake2b(session.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    keys: list[bytes] = []
    for message in messages:
        key = extend_conversation_key(key, message, secret)
        keys.append(key)
    return keys
