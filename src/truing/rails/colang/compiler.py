"""Flows, compiled once: the tree of a flow becomes a flat program of elements with relative jumps.

Elements either match events (user, bot, action, event, branch) or are slid over (if, while, jump, set, ...). What a flow
waits for first decides in which bucket of the `Program` index it lies, so that an event touches only flows that can start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from truing.core.errors import PlanError
from truing.rails.colang import ast as n
from truing.rails.colang.expressions import Evaluate, compile_expression

# Operations. Up to EVENT they match an event; BRANCH looks at several; FLOW calls; the rest is slid over.
USER, BOT, ACTION, EVENT, BRANCH, FLOW, NEVER, IF, WHILE, JUMP, CONTINUE, BREAK, SET, CHECK = range(
    14
)
SLIDING = 7  # IF and above

BASE_TRIGGERS = frozenset({"UserIntent", "BotIntent", "run_action", "InternalSystemActionFinished"})


class Element:
    """One instruction of a program; which fields it uses depends on `op`."""

    __slots__ = (
        "comment",
        "expression",
        "fields",
        "heads",
        "jump",
        "line",
        "name",
        "on_break",
        "on_continue",
        "op",
        "other",
        "params",
        "result",
        "source",
    )

    def __init__(self, op: int, line: int = 0, **given: Any) -> None:
        self.op = op
        self.line = line
        self.name: str = given.get(
            "name", ""
        )  # intent, message, action, event type, subflow, variable, label
        self.params: dict[str, Any] = given.get("params", {})
        self.fields: tuple[tuple[str, Any], ...] = given.get("fields", ())
        self.result: str | None = given.get("result")
        self.expression: Evaluate | None = given.get("expression")
        self.source: str = given.get("source", "")
        self.comment: str | None = given.get("comment")
        self.heads: tuple[int, ...] = given.get("heads", ())
        self.other: int = given.get("other", 0)
        self.jump: int = given.get("jump", 1)
        self.on_break: int = given.get("on_break", 0)
        self.on_continue: int = given.get("on_continue", 0)

    @property
    def actionable(self) -> bool:
        """Whether it can be the next step: an action or a bot message, but not ``bot ...``."""
        return self.op == ACTION or (self.op == BOT and self.name != "...")


class FlowProgram:
    """A compiled flow. `index` is its place in the order of precedence."""

    __slots__ = (
        "elements",
        "extension",
        "file",
        "id",
        "index",
        "interruptible",
        "line",
        "multiple",
        "priority",
        "source",
        "subflow",
        "system",
        "triggers",
    )

    def __init__(self, flow: n.Flow, elements: list[Element]) -> None:
        meta = flow.meta
        self.id = flow.name
        self.file, self.line, self.source, self.system = (
            flow.file,
            flow.line,
            flow.source,
            flow.system,
        )
        self.elements = elements
        self.priority = float(meta.get("priority", 1.0))
        self.extension = bool(meta.get("is_extension", False))
        self.interruptible = bool(meta.get("interruptable", True))
        self.subflow = bool(meta.get("subflow", False))
        self.multiple = bool(meta.get("allow_multiple", False))
        created = {
            _event_type(flow, e) for e in elements if e.op == ACTION and e.name == "create_event"
        }
        self.triggers = BASE_TRIGGERS | created
        self.index = 0


def _event_type(flow: n.Flow, element: Element) -> str:
    event = element.params.get("event")
    if not isinstance(event, dict) or not isinstance(event.get("_type"), str):
        raise PlanError(
            f"{flow.file}:{element.line}: an event is created by 'create event NAME(field=value)'"
        )
    return str(event["_type"])


def _expression(text: str, file: str, line: int) -> Evaluate:
    try:
        return compile_expression(text)
    except Exception as error:
        raise PlanError(f"{file}:{line}: {error}") from error


class _Flatten:
    """Tree to elements."""

    def __init__(self, file: str) -> None:
        self.file = file

    def many(self, steps: Iterable[n.Step]) -> list[Element]:
        made: list[Element] = []
        for step in steps:
            made.extend(getattr(self, f"on_{type(step).__name__.lower()}")(step))
        return made

    def on_user(self, s: n.User) -> list[Element]:
        made = [Element(USER, s.line, name=s.intent)]
        if s.variable:
            take = compile_expression("$last_user_message")
            made.append(
                Element(SET, s.line, name=s.variable, expression=take, source="$last_user_message")
            )
        return made

    def on_bot(self, s: n.Bot) -> list[Element]:
        name = s.intent if s.text is None else f'"{s.text}"'
        return [Element(BOT, s.line, name=name, comment=s.comment)]

    def on_event(self, s: n.Event) -> list[Element]:
        fields = tuple((k, v) for k, v in s.fields.items() if not k.startswith("_") and v != "...")
        return [Element(EVENT, s.line, name=s.type, fields=fields, params=s.fields)]

    def on_create(self, s: n.Create) -> list[Element]:
        event = s.event
        if isinstance(event, n.User):
            spec: dict[str, Any] = {
                "_type": "UserIntent",
                "intent_name": event.intent,
                "intent_params": {},
            }
        elif isinstance(event, n.Bot):
            spec = {
                "_type": "run_action",
                "action_name": "utter",
                "action_params": {"value": event.intent},
            }
        else:
            spec = {"_type": event.type, **event.fields}
        return [
            Element(ACTION, s.line, name="create_event", params={"event": spec}, comment=s.comment)
        ]

    def on_execute(self, s: n.Execute) -> list[Element]:
        return [
            Element(
                ACTION, s.line, name=s.action, params=s.params, result=s.result, comment=s.comment
            )
        ]

    def on_do(self, s: n.Do) -> list[Element]:
        expression = _expression(s.flow, self.file, s.line) if s.flow.startswith("$") else None
        return [Element(FLOW, s.line, name=s.flow, params=s.params, expression=expression)]

    def on_set(self, s: n.Set) -> list[Element]:
        if s.expression == "...":
            params = {"instructions": s.comment}
            return [Element(ACTION, s.line, name="generate_value", params=params, result=s.name)]
        expression = _expression(s.expression, self.file, s.line)
        return [Element(SET, s.line, name=s.name, expression=expression, source=s.expression)]

    def on_check(self, s: n.Check) -> list[Element]:
        return [
            Element(
                CHECK,
                s.line,
                expression=_expression(s.expression, self.file, s.line),
                source=s.expression,
            )
        ]

    def on_if(self, s: n.If) -> list[Element]:
        then, other = self.many(s.then), self.many(s.other)
        first = Element(
            IF, s.line, expression=_expression(s.condition, self.file, s.line), source=s.condition
        )
        first.jump = len(then) + 1
        if not other:
            return [first, *then]
        first.jump += 1
        return [first, *then, Element(JUMP, jump=len(other) + 1), *other]

    def on_while(self, s: n.While) -> list[Element]:
        body = self.many(s.body)
        first = Element(
            WHILE,
            s.line,
            expression=_expression(s.condition, self.file, s.line),
            source=s.condition,
        )
        first.on_break = len(body) + 2
        for at, element in enumerate(body):
            if not element.on_break:
                element.on_break = len(body) + 1 - at
                element.on_continue = -at - 1
        return [first, *body, Element(JUMP, jump=-(len(body) + 1))]

    def on_when(self, s: n.When) -> list[Element]:
        paths = [self.many(b) for b in s.branches]
        branch = Element(BRANCH, s.line)
        if s.other is not None:
            paths.append(self.many(s.other))
        made = [branch]
        heads: list[int] = []
        for at, path in enumerate(paths):
            heads.append(len(made))
            made.extend(path)
            made.append(Element(JUMP, jump=1 + sum(len(p) + 1 for p in paths[at + 1 :])))
        branch.heads = tuple(heads[: len(s.branches)])
        branch.other = heads[-1] if s.other is not None else 0
        return made

    def on_anyof(self, s: n.AnyOf) -> list[Element]:
        return [Element(NEVER, s.line), *self.many(s.steps)]

    def on_label(self, s: n.Label) -> list[Element]:
        return [Element(JUMP, s.line, name=f"label {s.name}")]

    def on_goto(self, s: n.Goto) -> list[Element]:
        return [Element(JUMP, s.line, name=f"goto {s.name}")]

    def on_leave(self, s: n.Leave) -> list[Element]:
        if s.kind == "return":
            return [Element(JUMP, s.line, jump=0, name="return")]
        return [Element(BREAK if s.kind == "break" else CONTINUE, s.line)]


def compile_flow(flow: n.Flow) -> FlowProgram:
    """Compiles a flow; PlanError for a bad expression or a label that does not exist."""
    elements = _Flatten(flow.file).many(flow.steps)
    labels: dict[str, int] = {}
    for at, element in enumerate(elements):
        if element.op == JUMP and element.name.startswith("label "):
            name = element.name[6:]
            if name in labels:
                raise PlanError(
                    f"{flow.file}:{element.line}: the label {name!r} stands twice in this flow"
                )
            labels[name] = at
    for at, element in enumerate(elements):
        if element.op == JUMP and element.name.startswith("goto "):
            name = element.name[5:]
            if name not in labels:
                raise PlanError(
                    f"{flow.file}:{element.line}: there is no label {name!r} in this flow"
                )
            element.jump = labels[name] - at
    return FlowProgram(flow, elements)


class Program:
    """All flows of a configuration in their order of precedence, indexed by what each waits for first.

    `pure_actions` are the names of actions that read only the message, the retrieved chunks and settings, and write
    only their result.
    """

    def __init__(self, flows: Iterable[FlowProgram], pure_actions: Iterable[str] = ()) -> None:
        self.pure_actions = frozenset(pure_actions) | {"create_event"}
        self.flows: dict[str, FlowProgram] = {}
        self.start: dict[tuple[int, str], list[FlowProgram]] = {}
        self.moving: list[FlowProgram] = []
        for flow in flows:
            self.add(flow)

    def add(self, flow: FlowProgram) -> None:
        """Adds a flow unless one of that name is there."""
        if flow.id in self.flows:
            return
        flow.index = len(self.flows)
        self.flows[flow.id] = flow
        if flow.subflow or not flow.elements:
            return
        at = 0
        for _ in range(len(flow.elements)):
            if (
                at < 0
                or at >= len(flow.elements)
                or flow.elements[at].op != JUMP
                or not flow.elements[at].jump
            ):
                break
            at += flow.elements[at].jump
        first = flow.elements[at] if 0 <= at < len(flow.elements) else None
        if first is None or first.op >= SLIDING:
            self.moving.append(flow)
        elif first.op <= EVENT:
            self.start.setdefault((first.op, first.name), []).append(flow)

    def fork(self) -> Program:
        """A copy to which flows can be added."""
        other = Program((), self.pure_actions)
        other.flows = dict(self.flows)
        other.start = {k: list(v) for k, v in self.start.items()}
        other.moving = list(self.moving)
        return other

    def candidates(self, op: int, name: str) -> list[FlowProgram]:
        """The flows that an event of a kind may start, in order: those that wait for it, and those that start by sliding."""
        exact = self.start.get((op, name), ())
        wild = self.start.get((op, "..."), ()) if op in (USER, BOT) else ()
        if not wild and not self.moving:
            return list(exact)
        found = [*exact, *wild, *self.moving]
        found.sort(key=lambda f: f.index)
        return found
