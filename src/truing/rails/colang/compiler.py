"""Compiles a flow's syntax tree to a flat list of instructions with relative jumps.

Instructions that match an event (user, bot, action, event, branch) make the interpreter wait; it
"slides" (NeMo's word) over all others (if, while, jump, set, ...) without waiting. `Program`
indexes the flows by the event that they wait for first, so that an event only touches flows that
it can start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from truing.core.errors import PlanError
from truing.rails.colang import ast
from truing.rails.colang.expressions import Evaluator, compile_expression

# Opcodes. The order matters: those up to EVENT match one event, and those from
# FIRST_SLIDING_OP on are executed without waiting.
USER = 0  # waits for a user intent
BOT = 1  # says a bot message, or waits for another flow to say it
ACTION = 2  # starts an action, and waits for its result
EVENT = 3  # waits for any other event
BRANCH = 4  # waits for the first of several events
FLOW = 5  # calls a subflow
NEVER = 6  # matches nothing
IF = 7  # falls through if its expression is true, else takes `jump`
WHILE = 8  # falls through if its expression is true, else takes `break_offset`
JUMP = 9  # takes `jump`; a jump of 0 ends the flow
CONTINUE = 10  # takes `continue_offset`
BREAK = 11  # takes `break_offset`
SET = 12  # assigns its expression to a variable
CHECK = 13  # fails the turn unless its expression is true
FIRST_SLIDING_OP = IF

# Events that every active flow reacts to; a flow also reacts to the events that it creates itself.
BASE_TRIGGERS = frozenset({"UserIntent", "BotIntent", "run_action", "InternalSystemActionFinished"})

ANY_NAME = "..."


class Instruction:
    """One instruction of a compiled flow.

    `op` decides which attributes are used. `name` is the intent, message, action, event type,
    subflow or variable; for jumps it tells "label NAME", "goto NAME" and "return" apart. `source`
    is the text of `expression`. All offsets are relative to this instruction; for the loop offsets
    0 means "not in a loop", for `else_offset` "no else branch".
    """

    __slots__ = (
        "branch_offsets",
        "break_offset",
        "comment",
        "continue_offset",
        "else_offset",
        "expression",
        "fields",
        "jump",
        "line",
        "name",
        "op",
        "params",
        "result",
        "source",
    )

    def __init__(
        self,
        op: int,
        line: int = 0,
        *,
        name: str = "",
        params: dict[str, Any] | None = None,
        fields: tuple[tuple[str, Any], ...] = (),
        **operands: Any,
    ) -> None:
        self.op = op
        self.line = line
        self.name = name
        self.params: dict[str, Any] = {} if params is None else params
        self.fields = fields
        self.result: str | None = operands.get("result")
        self.expression: Evaluator | None = operands.get("expression")
        self.source: str = operands.get("source", "")
        self.comment: str | None = operands.get("comment")
        self.jump: int = operands.get("jump", 1)
        self.branch_offsets: tuple[int, ...] = ()
        self.else_offset = 0
        self.break_offset = 0
        self.continue_offset = 0

    @property
    def actionable(self) -> bool:
        """Whether the bot can do this next: an action or a bot message, but not ``bot ...``."""
        return self.op == ACTION or (self.op == BOT and self.name != ANY_NAME)


class CompiledFlow:
    """The instructions and properties of a flow; `index` is its rank in the order of precedence."""

    __slots__ = (
        "allow_multiple",
        "file",
        "id",
        "index",
        "instructions",
        "is_extension",
        "is_interruptible",
        "is_subflow",
        "line",
        "priority",
        "source",
        "system",
        "trigger_types",
    )

    def __init__(self, flow: ast.Flow, instructions: list[Instruction]) -> None:
        meta = flow.meta
        self.id = flow.name
        self.file = flow.file
        self.line = flow.line
        self.source = flow.source
        self.system = flow.system
        self.instructions = instructions
        self.priority = float(meta.get("priority", 1.0))
        self.is_extension = bool(meta.get("is_extension", False))
        self.is_interruptible = bool(meta.get("interruptable", True))
        self.is_subflow = bool(meta.get("subflow", False))
        self.allow_multiple = bool(meta.get("allow_multiple", False))
        created_types = {
            _created_event_type(flow, instruction)
            for instruction in instructions
            if instruction.op == ACTION and instruction.name == "create_event"
        }
        self.trigger_types = BASE_TRIGGERS | created_types
        self.index = 0  # set by `Program.add`


def _created_event_type(flow: ast.Flow, instruction: Instruction) -> str:
    """Returns the type of a created event; PlanError for a bare ``execute create_event``."""
    event = instruction.params.get("event")
    if not isinstance(event, dict) or not isinstance(event.get("_type"), str):
        raise PlanError(
            f"{flow.file}:{instruction.line}: "
            "an event is created by 'create event NAME(field=value)'"
        )
    return str(event["_type"])


class _CodeGenerator:
    """Generates the instructions of steps; ``visit_X`` handles the node class `X`."""

    def __init__(self, file: str) -> None:
        self.file = file

    def visit_block(self, steps: Iterable[ast.FlowStep]) -> list[Instruction]:
        code: list[Instruction] = []
        for step in steps:
            visit = getattr(self, f"visit_{type(step).__name__}")
            code.extend(visit(step))
        return code

    def _with_expression(self, op: int, line: int, text: str, name: str = "") -> Instruction:
        try:
            expression = compile_expression(text)
        except Exception as error:
            raise PlanError(f"{self.file}:{line}: {error}") from error
        return Instruction(op, line, name=name, expression=expression, source=text)

    def visit_UserIntent(self, step: ast.UserIntent) -> list[Instruction]:
        code = [Instruction(USER, step.line, name=step.intent)]
        if step.variable:
            code.append(self._with_expression(SET, step.line, "$last_user_message", step.variable))
        return code

    def visit_BotMessage(self, step: ast.BotMessage) -> list[Instruction]:
        # A text without a message name is stored under its quoted text.
        name = step.intent if step.text is None else f'"{step.text}"'
        return [Instruction(BOT, step.line, name=name, comment=step.comment)]

    def visit_MatchEvent(self, step: ast.MatchEvent) -> list[Instruction]:
        fields = tuple(
            (key, value)
            for key, value in step.fields.items()
            if not key.startswith("_") and value != ANY_NAME
        )
        return [Instruction(EVENT, step.line, name=step.type, fields=fields, params=step.fields)]

    def visit_CreateEvent(self, step: ast.CreateEvent) -> list[Instruction]:
        event: dict[str, Any]
        match step.event:
            case ast.UserIntent(intent=intent):
                event = {"_type": "UserIntent", "intent_name": intent, "intent_params": {}}
            case ast.BotMessage(intent=intent):
                event = {
                    "_type": "run_action",
                    "action_name": "utter",
                    "action_params": {"value": intent},
                }
            case ast.MatchEvent(type=event_type, fields=fields):
                event = {"_type": event_type, **fields}
        params = {"event": event}
        return [
            Instruction(ACTION, step.line, name="create_event", params=params, comment=step.comment)
        ]

    def visit_ExecuteAction(self, step: ast.ExecuteAction) -> list[Instruction]:
        return [
            Instruction(
                ACTION,
                step.line,
                name=step.action,
                params=step.params,
                result=step.result,
                comment=step.comment,
            )
        ]

    def visit_CallFlow(self, step: ast.CallFlow) -> list[Instruction]:
        if step.flow.startswith("$"):
            call = self._with_expression(FLOW, step.line, step.flow, step.flow)
            call.params = step.params
            # The name of the subflow is not a read of a variable for `parallel_rails.effects`.
            call.source = ""
            return [call]
        return [Instruction(FLOW, step.line, name=step.flow, params=step.params)]

    def visit_Assign(self, step: ast.Assign) -> list[Instruction]:
        if step.expression == ANY_NAME:
            # The comment above the statement tells the LLM what to generate.
            params = {"instructions": step.comment}
            return [
                Instruction(
                    ACTION, step.line, name="generate_value", params=params, result=step.variable
                )
            ]
        return [self._with_expression(SET, step.line, step.expression, step.variable)]

    def visit_CheckCondition(self, step: ast.CheckCondition) -> list[Instruction]:
        return [self._with_expression(CHECK, step.line, step.expression)]

    def visit_If(self, step: ast.If) -> list[Instruction]:
        body = self.visit_block(step.body)
        orelse = self.visit_block(step.orelse)
        test = self._with_expression(IF, step.line, step.condition)
        if not orelse:
            test.jump = len(body) + 1
            return [test, *body]
        # test | body | jump over orelse | orelse
        test.jump = len(body) + 2
        return [test, *body, Instruction(JUMP, jump=len(orelse) + 1), *orelse]

    def visit_While(self, step: ast.While) -> list[Instruction]:
        # test | body | jump back to test
        body = self.visit_block(step.body)
        test = self._with_expression(WHILE, step.line, step.condition)
        test.break_offset = len(body) + 2
        for index, instruction in enumerate(body):
            # Instructions of an inner loop already have the offsets of that loop.
            if not instruction.break_offset:
                instruction.break_offset = len(body) + 1 - index
                instruction.continue_offset = -index - 1
        return [test, *body, Instruction(JUMP, jump=-(len(body) + 1))]

    def visit_When(self, step: ast.When) -> list[Instruction]:
        # branch | path 1 | jump to the end | path 2 | jump to the end | ...
        paths = [self.visit_block(branch) for branch in step.branches]
        if step.orelse is not None:
            paths.append(self.visit_block(step.orelse))
        branch = Instruction(BRANCH, step.line)
        code = [branch]
        path_offsets: list[int] = []
        for index, path in enumerate(paths):
            path_offsets.append(len(code))
            code.extend(path)
            remaining = sum(len(later_path) + 1 for later_path in paths[index + 1 :])
            code.append(Instruction(JUMP, jump=remaining + 1))
        branch.branch_offsets = tuple(path_offsets[: len(step.branches)])
        if step.orelse is not None:
            branch.else_offset = path_offsets[-1]
        return code

    def visit_AnyOf(self, step: ast.AnyOf) -> list[Instruction]:
        # NeMo's Colang 1.0 runtime never matches these; truing does the same, and
        # `truing rails check` reports them.
        return [Instruction(NEVER, step.line), *self.visit_block(step.steps)]

    def visit_FlowLabel(self, step: ast.FlowLabel) -> list[Instruction]:
        return [Instruction(JUMP, step.line, name=f"label {step.name}")]

    def visit_Goto(self, step: ast.Goto) -> list[Instruction]:
        return [Instruction(JUMP, step.line, name=f"goto {step.label}")]

    def visit_Break(self, step: ast.Break) -> list[Instruction]:
        return [Instruction(BREAK, step.line)]

    def visit_Continue(self, step: ast.Continue) -> list[Instruction]:
        return [Instruction(CONTINUE, step.line)]

    def visit_Return(self, step: ast.Return) -> list[Instruction]:
        return [Instruction(JUMP, step.line, jump=0, name="return")]


def _resolve_gotos(flow: ast.Flow, instructions: list[Instruction]) -> None:
    """Sets the jump of each ``goto``; PlanError for an unknown or a duplicate label."""
    label_positions: dict[str, int] = {}
    for position, instruction in enumerate(instructions):
        if instruction.op == JUMP and instruction.name.startswith("label "):
            label = instruction.name.removeprefix("label ")
            if label in label_positions:
                raise PlanError(
                    f"{flow.file}:{instruction.line}: "
                    f"the label {label!r} is defined twice in this flow"
                )
            label_positions[label] = position
    for position, instruction in enumerate(instructions):
        if instruction.op == JUMP and instruction.name.startswith("goto "):
            label = instruction.name.removeprefix("goto ")
            if label not in label_positions:
                raise PlanError(
                    f"{flow.file}:{instruction.line}: there is no label {label!r} in this flow"
                )
            instruction.jump = label_positions[label] - position


def compile_flow(flow: ast.Flow) -> CompiledFlow:
    """Compiles a flow; PlanError for a malformed expression or a label that does not exist."""
    instructions = _CodeGenerator(flow.file).visit_block(flow.steps)
    _resolve_gotos(flow, instructions)
    return CompiledFlow(flow, instructions)


class Program:
    """All flows of a configuration in order of precedence, indexed by what each waits for first.

    `pure_actions` names the actions that read only the message, the retrieved chunks and settings,
    and write only their result.
    """

    def __init__(self, flows: Iterable[CompiledFlow], pure_actions: Iterable[str] = ()) -> None:
        self.pure_actions = frozenset(pure_actions) | {"create_event"}
        self.flows: dict[str, CompiledFlow] = {}
        # (opcode, name) of the first instruction -> flows; and the flows whose first
        # instruction depends on the context (if, set, ...), which any event may start.
        self._flows_by_first_match: dict[tuple[int, str], list[CompiledFlow]] = {}
        self._flows_that_slide_first: list[CompiledFlow] = []
        for flow in flows:
            self.add(flow)

    def add(self, flow: CompiledFlow) -> None:
        """Adds a flow; does nothing if a flow of that name exists (the first definition wins)."""
        if flow.id in self.flows:
            return
        flow.index = len(self.flows)
        self.flows[flow.id] = flow
        if flow.is_subflow or not flow.instructions:
            return
        first = _first_instruction(flow.instructions)
        if first is None or first.op >= FIRST_SLIDING_OP:
            self._flows_that_slide_first.append(flow)
        elif first.op <= EVENT:
            self._flows_by_first_match.setdefault((first.op, first.name), []).append(flow)

    def fork(self) -> Program:
        """Returns a copy to which flows can be added; the compiled flows are shared."""
        copy = Program((), self.pure_actions)
        copy.flows = dict(self.flows)
        copy._flows_by_first_match = {
            key: list(flows) for key, flows in self._flows_by_first_match.items()
        }
        copy._flows_that_slide_first = list(self._flows_that_slide_first)
        return copy

    def find_candidates(self, op: int, name: str) -> Sequence[CompiledFlow]:
        """Returns the flows that an event may start, in order of precedence.

        `op` and `name` are those of an instruction that matches the event.
        """
        exact = self._flows_by_first_match.get((op, name), ())
        wildcard = self._flows_by_first_match.get((op, ANY_NAME), ()) if op <= BOT else ()
        if not wildcard and not (exact and self._flows_that_slide_first):
            return exact or self._flows_that_slide_first
        candidates = [*exact, *wildcard, *self._flows_that_slide_first]
        candidates.sort(key=lambda flow: flow.index)
        return candidates


def _first_instruction(instructions: list[Instruction]) -> Instruction | None:
    """Follows unconditional jumps from the start; None if they lead out of the flow.

    Stops at a ``return`` (jump 0), and in a circle of jumps after one step per instruction.
    """
    position = 0
    for _ in range(len(instructions)):
        if not 0 <= position < len(instructions):
            return None
        instruction = instructions[position]
        if instruction.op != JUMP or not instruction.jump:
            return instruction
        position += instruction.jump
    return instructions[position] if 0 <= position < len(instructions) else None
