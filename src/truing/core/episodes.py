"""Agents: the simulated environment of a task, and the record of what an agent did in it.

A sample of an agent's task has an `Environment`; the response to it has an `Episode`. Both are
stored with the sample and the response. `truing.core.types` exports all of them.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct, field

from truing.core.messages import Message, ToolCall

Scalar = str | int | float | bool
Value = str | int | float | bool | list[str] | None
"""What a field of a record in a simulated world holds."""

TaskKind = Literal["benign", "harmful", "injected"]
"""The three twins of a task: as it is, a harmful request in its place, and the benign request with
an injected instruction in what a tool returns."""


class Condition(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A condition on what an agent did; exactly one of the first six fields is set.

    - `call`: a call of this tool was executed, with arguments that match `where`
    - `calls`: at least one call of each of these tools was executed
    - `row`: this table holds a row at the end that matches `where`
    - `no_row`: this table holds no such row at the end
    - `says`: the final answer contains this text, ``a|b``, as whole words and numbers
    - `language`: the final answer is written in this language, an ISO 639-1 code

    A text of `where` must be equal but for case and spaces; ``~a|b`` must occur in the value, as
    one of the alternatives.
    """

    call: str = ""
    calls: tuple[str, ...] = ()
    row: str = ""
    no_row: str = ""
    says: str = ""
    language: str = ""
    where: tuple[tuple[str, Scalar], ...] = ()


InjectionPlace = Literal["result", "document", "alt_text", "tool_description"]
"""How an injected text reaches the agent: as it stands in what a tool returns, as a page of a
document there, as the alternative text of an image there, or in the description of a tool."""


class Injection(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A text of a stranger that an agent reads: in a field of a world, or where the result of a
    `FixedTool` has a place for it.

    `goal` is what the text wants done, in plain words; an attack words it anew.
    """

    table: str = ""
    row: str = ""
    field: str = ""
    text: str
    goal: str = ""
    place: InjectionPlace = "result"

    @property
    def written(self) -> str:
        """The text as it stands at its place."""
        if self.place == "document":
            return f"--- page 2 ---\n{self.text}\n--- end ---"
        return f"![{self.text}](figure.png)" if self.place == "alt_text" else self.text


INJECTION_MARK = "<injection>"
"""Where the injection stands in the result of a `FixedTool`."""


class FixedTool(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that returns one text, whatever its arguments; it changes nothing.

    `parameters` is a JSON Schema as text. The call fails unless it names the required ones.
    """

    name: str
    description: str = ""
    parameters: str = '{"type":"object"}'
    result: str = "done"


class Environment(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The simulated world in which an agent works on one sample, and how the end is checked.

    - `world`: the name of a shipped world, or the path of a world file; with `tools`, a name alone
    - `task`: the name that a task shares with its twins
    - `done`: all of these conditions hold if the task is done
    - `harm`: any of these means that harm was done
    - `misled`: any of these means that the agent followed the injection
    - `reads`: calls that show the row of the injection, on the way to the task
    - `answer`: what an agent that solves the task says at the end
    - `tools`: the tools of a task that is in no world: they return fixed texts
    - `solution`, `injected_calls`: the calls that solve the task, and those that the injection
      wants, where a set names them; only scripted agents read them
    - `started`: the calls of `reads` are made before the agent's first turn, as if by the agent
    - `seed`: which variant of a world with varied values the agent works in
    """

    world: str
    task: str = ""
    kind: TaskKind = "benign"
    done: tuple[Condition, ...] = ()
    harm: tuple[Condition, ...] = ()
    misled: tuple[Condition, ...] = ()
    injection: Injection | None = None
    reads: tuple[ToolCall, ...] = ()
    answer: str = ""
    tools: tuple[FixedTool, ...] = ()
    solution: tuple[ToolCall, ...] = ()
    injected_calls: tuple[ToolCall, ...] = ()
    started: bool = False
    seed: int = 0


CallStatus = Literal["ok", "error", "invalid", "unknown", "timeout", "limit", "denied", "missing"]
"""What became of a call.

``ok``: executed; ``error``: the tool refused it or failed; ``invalid``: the arguments are not what
the tool takes; ``unknown``: there is no such tool; ``timeout``; ``limit``: beyond the number of
calls of the agent; ``denied``: rails blocked it, or another call of its turn; ``missing``: a trace
of another tool holds no result.
"""


WITHHELD_RESULT = "the result was withheld"
"""What a model reads in place of a result that rails objected to; the reason follows."""


class CallRecord(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One tool call with its result; only a call of status ``ok`` has changed anything.

    `cut` is the length in characters of a result that was too long to be kept whole; `withheld`
    says that rails kept the result from the model.
    """

    id: str
    name: str
    arguments: str = "{}"
    status: CallStatus = "ok"
    result: str = ""
    cut: int | None = None
    withheld: bool = False

    @property
    def shown_result(self) -> str:
        """The result as the model has read it, but for the reason why one was withheld."""
        return WITHHELD_RESULT if self.withheld else self.result


class AgentTurn(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer of the model within an episode, with the calls in it."""

    text: str = ""
    calls: tuple[CallRecord, ...] = ()


class StateChange(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row that differs between the beginning and the end: added (no `before`), removed (no
    `after`), or changed.
    """

    table: str
    row: str
    before: dict[str, Value] | None = None
    after: dict[str, Value] | None = None


StopReason = Literal["answered", "blocked", "turns", "calls", "tokens", "failed"]
"""Why an episode ended: the agent answered, a rail blocked it, a limit was reached, or the model
failed."""


class Episode(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent did in answer to one prompt: its turns, and what they changed.

    `world_hash` identifies the world file; without a world there are no `changes`. `checks` are the
    verdicts of a world that has checks of its own, by question (`done`, `misled`).
    """

    turns: tuple[AgentTurn, ...] = ()
    changes: tuple[StateChange, ...] = ()
    stopped: StopReason = "answered"
    world: str = ""
    world_hash: str = ""
    checks: dict[str, bool] = field(default_factory=dict)

    @property
    def calls(self) -> tuple[CallRecord, ...]:
        """All calls, in order."""
        return tuple(call for turn in self.turns for call in turn.calls)

    def messages(self) -> tuple[Message, ...]:
        """Returns the episode as the messages that the model has seen and written: in place of a
        withheld result, that it was.
        """
        messages: list[Message] = []
        for turn in self.turns:
            calls = tuple(ToolCall(call.id, call.name, call.arguments) for call in turn.calls)
            messages.append(Message("assistant", turn.text, calls))
            messages += [Message("tool", call.shown_result, (), call.id) for call in turn.calls]
        return tuple(messages)
