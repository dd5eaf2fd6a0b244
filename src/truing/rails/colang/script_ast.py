"""The syntax tree of a script: the Colang 2 flows of a configuration that react to exact words.

Expressions are kept as text; `script_expressions.compile_script_expression` evaluates them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a call: its expression, and its name where it is passed by name."""

    expression: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Hear:
    """Waits until the user has said a text (an expression; empty for any text).

    `field` is the attribute of the reference that holds what the user said.
    """

    text: str = ""
    field: Literal["transcript", "final_transcript"] = "transcript"
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Say:
    """Says the text that an expression evaluates to."""

    text: str


@dataclass(frozen=True, slots=True)
class CallFlow:
    """Starts a flow; the statement around it says whether it waits for the end of the flow."""

    flow: str
    arguments: tuple[Argument, ...] = ()
    reference: str = ""


@dataclass(frozen=True, slots=True)
class CallAction:
    """Runs an action of the configuration's Python and waits for its result."""

    action: str
    arguments: tuple[Argument, ...] = ()
    reference: str = ""


@dataclass(frozen=True, slots=True)
class NeverHappens:
    """Waits for an event that no client sends."""


Item = Hear | Say | CallFlow | CallAction | NeverHappens


@dataclass(frozen=True, slots=True)
class Group:
    """Items of which one (`or`) or all (`and`) must end."""

    items: tuple[Item, ...]
    needs_all: bool = False


@dataclass(frozen=True, slots=True)
class Await:
    """Waits for a group; `variable` gets the result of the item that ended."""

    line: int
    group: Group
    variable: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    """Starts flows that run beside this one, until it ends."""

    line: int
    calls: tuple[CallFlow, ...]


@dataclass(frozen=True, slots=True)
class Activate:
    """Starts flows that begin again whenever they end, until this one ends."""

    line: int
    calls: tuple[CallFlow, ...]


@dataclass(frozen=True, slots=True)
class When:
    """Waits for the first of several groups and runs its body; the last one if all have failed."""

    line: int
    cases: tuple[tuple[Group, tuple[Statement, ...]], ...]
    otherwise: tuple[Statement, ...] | None = None


@dataclass(frozen=True, slots=True)
class If:
    """Runs the body of the first condition that holds; `""` always holds."""

    line: int
    branches: tuple[tuple[str, tuple[Statement, ...]], ...]


@dataclass(frozen=True, slots=True)
class While:
    """Repeats a body while a condition holds."""

    line: int
    condition: str
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Assign:
    """Sets a variable."""

    line: int
    variable: str
    expression: str


@dataclass(frozen=True, slots=True)
class UseGlobal:
    """Makes a variable that of the whole conversation."""

    line: int
    variable: str


@dataclass(frozen=True, slots=True)
class Leave:
    """Leaves a loop or the flow; `return` may have a value."""

    line: int
    how: Literal["break", "continue", "return", "abort"]
    expression: str = ""


Statement = Await | Start | Activate | When | If | While | Assign | UseGlobal | Leave


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a flow, with the expression of its default ("": None)."""

    name: str
    default: str = ""


@dataclass(frozen=True, slots=True)
class ScriptFlow:
    """A flow of a script; `is_active` flows start with the conversation."""

    name: str
    file: str
    line: int
    parameters: tuple[Parameter, ...] = ()
    body: tuple[Statement, ...] = ()
    is_active: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """The flows of a configuration in Colang 2 that run without an LLM.

    `continues` says that the LLM answers what no flow waits for. `source` is the text of all files.
    """

    flows: dict[str, ScriptFlow]
    continues: bool = False
    source: str = field(default="", repr=False)

    def iterate_actions(self) -> Iterator[tuple[str, CallAction]]:
        """Yields (place, call) for each action that the flows run."""
        for flow in self.flows.values():
            for statement in walk_statements(flow.body):
                for group in groups_of(statement):
                    for item in group.items:
                        if isinstance(item, CallAction):
                            yield f"{flow.file}:{statement.line}", item


def groups_of(statement: Statement) -> tuple[Group, ...]:
    """Returns the groups that a statement waits for or starts."""
    match statement:
        case Await():
            return (statement.group,)
        case When():
            return tuple(group for group, _ in statement.cases)
        case Start() | Activate():
            return (Group(statement.calls),)
    return ()


def walk_statements(body: tuple[Statement, ...]) -> Iterator[Statement]:
    """Yields all statements of a body, with those inside of others."""
    for statement in body:
        yield statement
        match statement:
            case When():
                for _, inner in statement.cases:
                    yield from walk_statements(inner)
                yield from walk_statements(statement.otherwise or ())
            case If():
                for _, inner in statement.branches:
                    yield from walk_statements(inner)
            case While():
                yield from walk_statements(statement.body)
