"""One conversation with rails: its events, the context that actions see, and the machine that its flows run on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from truing.core.errors import PlanError
from truing.rails.colang import ast as n
from truing.rails.colang.compiler import EVENT, Instruction, Program, compile_flow
from truing.rails.colang.parser import parse_colang
from truing.rails.runtime.interpreter import Event, Machine

_encode = msgspec.json.Encoder(order="deterministic").encode
HIDDEN = "<hidden: the assistant does not talk about this>"


def flat_text(content: Any) -> str:
    """The text of a message whose content may be a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [p for p in content if isinstance(p, dict)]
        text = " ".join(
            p["text"] for p in parts if p.get("type") == "text" and isinstance(p.get("text"), str)
        )
        return (
            f"{text} [+ image]".strip()
            if any(p.get("type") == "image_url" for p in parts)
            else text
        )
    return str(content)


def colang_part(event: Event) -> str:
    """How one event stands in a conversation written as Colang; empty if it does not."""
    kind = event["type"]
    if kind == "UserMessage":
        return f'user "{flat_text(event["text"])}"\n'
    if kind == "UserIntent":
        return f"  {event['intent']}\n"
    if kind == "BotIntent":
        return f"bot {event['intent']}\n"
    if kind == "StartUtteranceBotAction":
        return f'  "{event["script"]}"\n'
    if kind == "StartInternalSystemAction" and not event.get("is_system_action"):
        return f"execute {event['action_name']}\n"
    if kind == "InternalSystemActionFinished" and not event.get("is_system_action"):
        said = str(event["return_value"])[:2000].replace("\n", " ")
        return f"# The result was {said}\n"
    return ""


class History(list[Event]):
    """The events of a conversation, with their rendering as Colang and as chat kept up to date."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.chat: list[tuple[str, Any]] = []
        self.last_bot = -1
        self.instructions: str | None = None
        self.chunks: str | None = None  # $relevant_chunks as last set
        self.fresh_chunks: str | None = None  # the same, since the last user message
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        """Appends an event."""
        self.append(event)
        kind = event["type"]
        if kind == "mask_prev_user_message":
            self._mask()
        part = colang_part(event)
        if kind == "BotIntent":
            self.last_bot, self.instructions = len(self.parts), event.get("instructions")
        if part:
            self.parts.append(part)
        if kind == "UserMessage":
            self.chat.append(("user", event["text"]))
            self.fresh_chunks = None
        elif kind == "ContextUpdate" and "relevant_chunks" in event["data"]:
            self.chunks = self.fresh_chunks = str(event["data"]["relevant_chunks"] or "").strip()
        elif kind == "StartUtteranceBotAction":
            self.chat.append(("assistant", event["script"]))
        elif kind == "SystemMessage":
            self.chat.append(("system", event.get("content", "")))

    def _mask(self) -> None:
        for at in range(len(self.parts) - 1, -1, -1):
            if self.parts[at].startswith('user "'):
                self.parts[at] = f'user "{HIDDEN}"\n'
                break

    def fork(self) -> History:
        """A copy."""
        other = History()
        other.extend(self)
        other.parts, other.chat = list(self.parts), list(self.chat)
        other.last_bot, other.instructions = self.last_bot, self.instructions
        other.chunks, other.fresh_chunks = self.chunks, self.fresh_chunks
        return other

    def colang(self, skip: int = 0) -> str:
        """The conversation as Colang, without its first `skip` parts."""
        if self.instructions is None or self.last_bot < skip:
            return "".join(self.parts[skip:])
        head, tail = self.parts[skip : self.last_bot], self.parts[self.last_bot :]
        return "".join(head) + f"# {self.instructions}\n" + "".join(tail)

    def recent(self, kind: str) -> Event | None:
        """The newest event of a type."""
        return next((e for e in reversed(self) if e["type"] == kind), None)


class Talk:
    """A conversation's state. `fork` gives an independent copy, so that a stored state is never changed."""

    __slots__ = ("context", "done", "history", "machine", "program")

    def __init__(self, program: Program, config: Any) -> None:
        self.program = program
        self.machine = Machine(program, config)
        self.history = History()
        self.context: dict[str, Any] = {"last_user_message": None, "last_bot_message": None}
        self.done = 0

    def fork(self) -> Talk:
        """A copy that goes its own way."""
        other = Talk.__new__(Talk)
        other.program, other.machine = self.program, self.machine.fork()
        other.history, other.context, other.done = (
            self.history.fork(),
            dict(self.context),
            self.done,
        )
        return other

    def add(self, event: Event) -> None:
        """Appends an event; the flows see it at the next `next_steps`."""
        self.history.add(event)
        kind = event["type"]
        if kind == "ContextUpdate":
            self.context.update(event["data"])
        elif kind == "UserMessage":
            self.context["last_user_message"] = event["text"]
        elif kind == "StartUtteranceBotAction":
            self.context["last_bot_message"] = event["script"]
        self.context["event"] = event

    def next_steps(self) -> list[Event]:
        """Advances the flows by all events that they have not seen, and says what follows."""
        machine, history = self.machine, self.history
        while self.done < len(history):
            machine.process(history[self.done])
            self.done += 1
        return machine.next_steps()

    def start_flow(self, name: str, body: str) -> None:
        """Adds a flow that the LLM wrote; it starts at the `start_flow` event of its name."""
        code = f"define flow {name}:\n" + "\n".join(
            f"  {row}" if row.strip() else row for row in body.split("\n")
        )
        flow: n.Flow = parse_colang("dynamic.co", code).flows[0]
        compiled = compile_flow(flow)
        compiled.instructions.insert(
            0, Instruction(EVENT, name="start_flow", fields=(("flow_id", name),))
        )
        self.program = self.program.fork()
        self.program.add(compiled)
        self.machine.program = self.program


def step(before: bytes, message: Mapping[str, Any]) -> bytes:
    """The key of a conversation after one message more; no two different conversations share one."""
    row = (
        message.get("role"),
        message.get("content"),
        message.get("event"),
        message.get("tool_calls"),
    )
    try:
        text = _encode(row)
    except (TypeError, ValueError, UnicodeError, OverflowError, RecursionError):
        text = json.dumps(row, default=str, sort_keys=True).encode()
    return hashlib.blake2b(before + text, digest_size=16).digest()


def chain(messages: Sequence[Mapping[str, Any]], session: str = "") -> list[bytes]:
    """The keys after each message; conversations of different sessions share none."""
    made: list[bytes] = []
    last = (
        hashlib.blake2b(session.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if session
        else b""
    )
    for message in messages:
        last = step(last, message)
        made.append(last)
    return made


def parses(body: str) -> bool:
    """Whether a text can be read as Colang: definitions, or the steps of a flow."""
    code = "\n".join(f"  {row}" if row.strip() else row for row in body.split("\n"))
    try:
        compile_flow(parse_colang("dynamic.co", f"define flow dynamic:\n{code}").flows[0])
    except (PlanError, IndexError):
        return False
    return True
