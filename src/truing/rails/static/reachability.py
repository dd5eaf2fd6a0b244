"""Steps and branches that no conversation can reach, loops that do not end, subflows that call themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from truing.rails.colang import ast as n
from truing.rails.colang.expressions import ExpressionError, compile_expression, find_variables
from truing.rails.colang.flow_reference import parse_flow_name
from truing.rails.colang.parser import walk_steps
from truing.rails.static.findings import Finding


def check_reachability(flows: Sequence[n.Flow]) -> Iterator[Finding]:
    """The findings of all flows."""
    for flow in flows:
        yield from _Reach(flow).block(flow.steps)
    yield from _same_start(flows)
    yield from _recursion(flows)


def constant(text: str) -> bool | None:
    """The truth of a condition without variables; none if it depends on any."""
    if find_variables(text):
        return None
    try:
        return bool(compile_expression(text)({}))
    except ExpressionError:
        return None


class _Reach:
    """One flow."""

    def __init__(self, flow: n.Flow) -> None:
        self.flow = flow

    def _say(self, step: n.FlowStep, what: str, kind: str = "unreachable") -> Finding:
        return Finding(
            place=f"{self.flow.file}:{step.line or self.flow.line}", kind=kind, what=what
        )

    def block(self, steps: Sequence[n.FlowStep]) -> Iterator[Finding]:
        """Findings in a block."""
        ended: n.FlowStep | None = None
        for step in steps:
            if isinstance(step, n.FlowLabel):
                ended = None
            if ended is not None:
                yield self._say(step, f"unreachable: line {ended.line} ends the block before it")
                return
            yield from self._inner(step)
            if ends(step):
                ended = step

    def _inner(self, step: n.FlowStep) -> Iterator[Finding]:
        if isinstance(step, n.If):
            yield from self._if(step, [])
        elif isinstance(step, n.While):
            fixed = constant(step.condition)
            if fixed is False:
                yield self._say(step, f"unreachable: the condition {step.condition!r} never holds")
            elif fixed and not _leaves(step.body):
                yield self._say(
                    step, "this loop never ends: nothing in it breaks, waits or stops", "endless"
                )
            yield from self.block(step.body)
        elif isinstance(step, n.When):
            yield from self._when(step)
        elif isinstance(step, n.AnyOf):
            said = "'any' and 'user A or user B' never match, here as in NeMo Guardrails; use when ... / else when ..."
            yield self._say(step, said, "any")

    def _if(self, step: n.If, before: list[str]) -> Iterator[Finding]:
        condition = " ".join(step.condition.split())
        fixed = constant(condition)
        if condition in before:
            yield self._say(
                step, f"unreachable: the condition {condition!r} stands in an earlier branch"
            )
        elif fixed is False:
            yield self._say(step, f"unreachable: the condition {condition!r} never holds")
        elif fixed is True and step.orelse:
            yield self._say(
                step.orelse[0], f"unreachable: the condition {condition!r} always holds"
            )
        yield from self.block(step.body)
        if (
            len(step.orelse) == 1
            and isinstance(step.orelse[0], n.If)
            and step.orelse[0].line != step.line
        ):
            yield from self._if(step.orelse[0], [*before, condition])
        else:
            yield from self.block(step.orelse)

    def _when(self, step: n.When) -> Iterator[Finding]:
        heads = [b[0] for b in step.branches]
        for at, head in enumerate(heads):
            later = next((h for h in heads[at + 1 :] if _covers(h, head)), None)
            if later is not None:
                said = f"unreachable: line {later.line} waits for the same, and the last one that matches wins"
                yield self._say(head, said)
        for branch in step.branches:
            yield from self.block(branch[1:])
            if isinstance(branch[0], n.AnyOf):
                yield from self._inner(branch[0])
        yield from self.block(step.orelse or [])


def _covers(later: n.FlowStep, earlier: n.FlowStep) -> bool:
    if isinstance(later, n.UserIntent) and isinstance(earlier, n.UserIntent):
        return later.intent in (earlier.intent, "...", "*")
    if isinstance(later, n.BotMessage) and isinstance(earlier, n.BotMessage):
        return later.intent in (earlier.intent, "...")
    return (
        isinstance(later, n.MatchEvent)
        and isinstance(earlier, n.MatchEvent)
        and later.type == earlier.type
        and later.fields == earlier.fields
    )


def ends(step: n.FlowStep) -> bool:
    """Whether nothing after the step in its block can run."""
    if isinstance(step, n.Break | n.Continue | n.Return | n.Goto):
        return True
    if isinstance(step, n.BotMessage):
        return step.text is None and step.intent == "stop"
    if isinstance(step, n.If):
        return bool(step.orelse) and _block_ends(step.body) and _block_ends(step.orelse)
    if isinstance(step, n.While):
        return constant(step.condition) is True and not any(
            isinstance(s, n.Break) for s in _own(step.body)
        )
    if isinstance(step, n.When):
        return step.orelse is not None and all(
            _block_ends(b) for b in (*step.branches, step.orelse)
        )
    return False


def _block_ends(steps: Sequence[n.FlowStep]) -> bool:
    after = next(
        (i for i in range(len(steps) - 1, -1, -1) if isinstance(steps[i], n.FlowLabel)), -1
    )
    return any(ends(s) for s in steps[after + 1 :])


def _own(steps: Sequence[n.FlowStep]) -> Iterator[n.FlowStep]:
    """The steps of a loop without those of loops inside it."""
    for step in steps:
        yield step
        if isinstance(step, n.If):
            yield from _own([*step.body, *step.orelse])
        elif isinstance(step, n.When):
            yield from _own([s for b in (*step.branches, step.orelse or []) for s in b])


def _leaves(body: list[n.FlowStep]) -> bool:
    """Whether a loop can end or wait: by break, return, stop, goto, a user's message, an event."""
    for step in walk_steps(body):
        if isinstance(step, n.Break | n.Return):
            return True
        if isinstance(step, n.Goto | n.UserIntent | n.MatchEvent | n.When | n.CallFlow):
            return True
        if isinstance(step, n.BotMessage) and step.intent == "stop":
            return True
    return False


def _same_start(flows: Sequence[n.Flow]) -> Iterator[Finding]:
    first: dict[str, n.Flow] = {}
    for flow in flows:
        other = first.setdefault(" ".join((flow.source or flow.name).split()), flow)
        if other is not flow and not flow.meta.get("subflow"):
            said = f"the flow {flow.name!r} does the same as {other.name!r} ({other.file}:{other.line})"
            yield Finding(
                place=f"{flow.file}:{flow.line}", kind="duplicate", level="warning", what=said
            )


def _recursion(flows: Sequence[n.Flow]) -> Iterator[Finding]:
    """Subflows that reach themselves again, with the line of the first call."""
    calls = {
        f.name: [
            (parse_flow_name(s.flow), s) for s in walk_steps(f.steps) if isinstance(s, n.CallFlow)
        ]
        for f in flows
    }
    for flow in flows:
        for name, step in calls[flow.name]:
            if _reaches(name, flow.name, calls):
                before = flow.steps[: next((i for i, s in enumerate(flow.steps) if s is step), 0)]
                sure = any(s is step for s in flow.steps) and not any(
                    isinstance(s, n.UserIntent | n.If | n.When) for s in before
                )
                said = "calls itself without end" if sure else "can call itself (at most 50 deep)"
                yield Finding(
                    place=f"{flow.file}:{step.line}",
                    kind="recursion",
                    level="error" if sure else "warning",
                    what=f"the flow {flow.name!r} {said}",
                )
                break


def _reaches(start: str, goal: str, calls: dict[str, list[tuple[str, n.CallFlow]]]) -> bool:
    seen, todo = set[str](), [start]
    while todo:
        name = todo.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            todo.extend(called for called, _ in calls.get(name, ()))
    return False
