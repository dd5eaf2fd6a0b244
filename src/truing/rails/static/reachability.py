"""Finds steps that no conversation can reach, loops that never end, and endless recursion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from truing.rails.colang import ast
from truing.rails.colang.expressions import (
    ExpressionError,
    compile_expression,
    find_variables,
)
from truing.rails.colang.flow_reference import parse_flow_name
from truing.rails.colang.parser import walk_steps
from truing.rails.static.findings import Finding


def check_reachability(flows: Sequence[ast.Flow]) -> Iterator[Finding]:
    """Yields the findings of all flows."""
    for flow in flows:
        yield from _FlowChecker(flow).check_block(flow.steps)
    yield from _find_duplicate_flows(flows)
    yield from _find_recursion(flows)


def evaluate_constant(condition: str) -> bool | None:
    """Returns the truth of a condition without variables; None for any other."""
    if find_variables(condition):
        return None
    try:
        return bool(compile_expression(condition)({}))
    except ExpressionError:
        return None


class _FlowChecker:
    """Checks the blocks of one flow."""

    def __init__(self, flow: ast.Flow) -> None:
        self.flow = flow

    def _finding(self, step: ast.FlowStep, message: str, kind: str = "unreachable") -> Finding:
        place = f"{self.flow.file}:{step.line or self.flow.line}"
        return Finding(place=place, kind=kind, what=message)

    def check_block(self, steps: Sequence[ast.FlowStep]) -> Iterator[Finding]:
        """Yields the findings in a block, up to its first unreachable step."""
        last_step: ast.FlowStep | None = None
        for step in steps:
            # A label can be reached by a goto.
            if isinstance(step, ast.FlowLabel):
                last_step = None
            if last_step is not None:
                message = f"unreachable: line {last_step.line} ends the block before it"
                yield self._finding(step, message)
                return
            yield from self._check_step(step)
            if ends_block(step):
                last_step = step

    def _check_step(self, step: ast.FlowStep) -> Iterator[Finding]:
        if isinstance(step, ast.If):
            yield from self._check_if(step, [])
        elif isinstance(step, ast.While):
            yield from self._check_while(step)
        elif isinstance(step, ast.When):
            yield from self._check_when(step)
        elif isinstance(step, ast.AnyOf):
            yield self._finding(
                step,
                "'any' and 'user A or user B' never match, here as in NeMo Guardrails; "
                "use when ... / else when ...",
                "any",
            )

    def _check_if(self, step: ast.If, earlier_conditions: list[str]) -> Iterator[Finding]:
        condition = " ".join(step.condition.split())
        constant = evaluate_constant(condition)
        if condition in earlier_conditions:
            yield self._finding(
                step, f"unreachable: an earlier branch has the same condition {condition!r}"
            )
        elif constant is False:
            yield self._finding(step, f"unreachable: the condition {condition!r} never holds")
        elif constant is True and step.orelse:
            yield self._finding(
                step.orelse[0], f"unreachable: the condition {condition!r} always holds"
            )
        yield from self.check_block(step.body)
        nested = step.orelse[0] if len(step.orelse) == 1 else None
        # `else if` is a nested If. In YAML flows all steps have the line of the flow, so that an
        # `else` with an inner `if` cannot be told from it there.
        if isinstance(nested, ast.If) and nested.line != step.line:
            yield from self._check_if(nested, [*earlier_conditions, condition])
        else:
            yield from self.check_block(step.orelse)

    def _check_while(self, step: ast.While) -> Iterator[Finding]:
        constant = evaluate_constant(step.condition)
        if constant is False:
            yield self._finding(step, f"unreachable: the condition {step.condition!r} never holds")
        elif constant and not _can_leave_loop(step.body):
            yield self._finding(
                step, "this loop never ends: nothing in it breaks, waits or stops", "endless"
            )
        yield from self.check_block(step.body)

    def _check_when(self, step: ast.When) -> Iterator[Finding]:
        awaited_steps = [branch[0] for branch in step.branches]
        for index, awaited in enumerate(awaited_steps):
            for later in awaited_steps[index + 1 :]:
                if _matches_all_of(later, awaited):
                    yield self._finding(
                        awaited,
                        f"unreachable: line {later.line} waits for the same, "
                        "and the last one that matches wins",
                    )
                    break
        for branch in step.branches:
            yield from self.check_block(branch[1:])
            if isinstance(branch[0], ast.AnyOf):
                yield from self._check_step(branch[0])
        yield from self.check_block(step.orelse or [])


def _matches_all_of(later: ast.FlowStep, earlier: ast.FlowStep) -> bool:
    """Whether every event that matches `earlier` also matches `later`."""
    match later, earlier:
        case ast.UserIntent(), ast.UserIntent():
            return later.intent in (earlier.intent, "...", "*")
        case ast.BotMessage(), ast.BotMessage():
            return later.intent in (earlier.intent, "...")
        case ast.MatchEvent(), ast.MatchEvent():
            return later.type == earlier.type and later.fields == earlier.fields
    return False


def ends_block(step: ast.FlowStep) -> bool:
    """Whether nothing after the step in its block can run."""
    match step:
        case ast.Break() | ast.Continue() | ast.Return() | ast.Goto():
            return True
        case ast.BotMessage():
            return step.text is None and step.intent == "stop"
        case ast.If():
            return bool(step.orelse) and _block_ends(step.body) and _block_ends(step.orelse)
        case ast.While():
            breaks = any(isinstance(inner, ast.Break) for inner in _steps_of_loop(step.body))
            return evaluate_constant(step.condition) is True and not breaks
        case ast.When():
            if step.orelse is None:
                return False
            return all(_block_ends(block) for block in (*step.branches, step.orelse))
    return False


def _block_ends(steps: Sequence[ast.FlowStep]) -> bool:
    """Whether a block never runs past its end; what follows its last label decides."""
    after_label = 0
    for index, step in enumerate(steps):
        if isinstance(step, ast.FlowLabel):
            after_label = index + 1
    return any(ends_block(step) for step in steps[after_label:])


def _steps_of_loop(steps: Sequence[ast.FlowStep]) -> Iterator[ast.FlowStep]:
    """Yields the steps of a loop, except those of loops inside it."""
    for step in steps:
        yield step
        if isinstance(step, ast.If):
            yield from _steps_of_loop([*step.body, *step.orelse])
        elif isinstance(step, ast.When):
            for block in (*step.branches, step.orelse or []):
                yield from _steps_of_loop(block)


def _can_leave_loop(body: list[ast.FlowStep]) -> bool:
    """Whether a loop may end or wait: break, return, stop, goto, or waiting for an event."""
    for step in walk_steps(body):
        match step:
            case ast.Break() | ast.Return() | ast.Goto():
                return True
            case ast.UserIntent() | ast.MatchEvent() | ast.When() | ast.CallFlow():
                return True
            case ast.BotMessage(intent="stop"):
                return True
    return False


def _find_duplicate_flows(flows: Sequence[ast.Flow]) -> Iterator[Finding]:
    flows_by_source: dict[str, ast.Flow] = {}
    for flow in flows:
        source = " ".join((flow.source or flow.name).split())
        first = flows_by_source.setdefault(source, flow)
        if first is not flow and not flow.meta.get("subflow"):
            yield Finding(
                place=f"{flow.file}:{flow.line}",
                kind="duplicate",
                level="warning",
                what=f"the flow {flow.name!r} does the same as {first.name!r} "
                f"({first.file}:{first.line})",
            )


def _find_recursion(flows: Sequence[ast.Flow]) -> Iterator[Finding]:
    """Flows that can call themselves, with the line of the first such call."""
    calls = {
        flow.name: [step for step in walk_steps(flow.steps) if isinstance(step, ast.CallFlow)]
        for flow in flows
    }
    callees = {
        name: [parse_flow_name(call.flow) for call in flow_calls]
        for name, flow_calls in calls.items()
    }
    for flow in flows:
        for call in calls[flow.name]:
            if not _is_reachable(parse_flow_name(call.flow), flow.name, callees):
                continue
            is_certain = _is_always_reached(call, flow)
            # 50 is the limit of the interpreter (MAX_DEPTH).
            effect = (
                "calls itself without end" if is_certain else "can call itself (at most 50 deep)"
            )
            yield Finding(
                place=f"{flow.file}:{call.line}",
                kind="recursion",
                level="error" if is_certain else "warning",
                what=f"the flow {flow.name!r} {effect}",
            )
            break


def _is_always_reached(call: ast.CallFlow, flow: ast.Flow) -> bool:
    """Whether a flow reaches a call without a condition, and without waiting for the user."""
    for step in flow.steps:
        if step is call:
            return True
        if isinstance(step, ast.UserIntent | ast.If | ast.When):
            return False
    return False


def _is_reachable(start: str, target: str, callees: dict[str, list[str]]) -> bool:
    """Whether a chain of calls leads from one flow to another (depth-first search)."""
    visited: set[str] = set()
    stack = [start]
    while stack:
        name = stack.pop()
        if name == target:
            return True
        if name not in visited:
            visited.add(name)
            stack.extend(callees.get(name, ()))
    return False
