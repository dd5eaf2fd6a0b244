"""Executes the statements of a script's flows; each flow is a generator of what it waits for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from truing.rails.colang.expressions import AttributeDict
from truing.rails.colang.script_ast import (
    Activate,
    Assign,
    Await,
    CallAction,
    CallFlow,
    Group,
    Hear,
    If,
    Leave,
    Say,
    Script,
    ScriptFlow,
    Start,
    Statement,
    UseGlobal,
    When,
    While,
)
from truing.rails.colang.script_expressions import compile_script_expression
from truing.rails.runtime.interpreter import FlowError
from truing.rails.runtime.script_runs import (
    Effect,
    FlowAborted,
    FlowReturned,
    FlowRun,
    FlowSteps,
    LoopLeft,
    Wait,
    WaitItem,
)

MAX_STEPS = 10_000  # statements and events of one utterance
ALL_FAILED = -1  # the case of a group of which nothing can end any more

Draw = Callable[[int], int]


class ScriptStatements(ABC):
    """The statements of flows. `draw(n)` returns an index below n where NeMo draws one."""

    def __init__(self, script: Script, settings: Any, draw: Draw) -> None:
        self.script = script
        self.draw = draw
        self.globals: dict[str, Any] = {}
        self._system = AttributeDict(config=AttributeDict(settings))
        self._steps = 0

    @abstractmethod
    def _begin(
        self,
        flow: ScriptFlow,
        arguments: dict[str, Any],
        parent: FlowRun | None,
        scores: Sequence[float],
    ) -> FlowRun:
        """Returns a run of a flow that has not executed anything yet."""

    @abstractmethod
    def _advance(self, run: FlowRun, sent: tuple[int, Any] | None) -> None:
        """Runs a flow up to what it waits for or wants to do next."""

    @abstractmethod
    def _activate(
        self, flow: ScriptFlow, arguments: dict[str, Any], owner: FlowRun, scores: Sequence[float]
    ) -> None:
        """Starts a flow that begins again when it ends, unless it runs already."""

    def _execute_flow(self, run: FlowRun) -> FlowSteps:
        try:
            yield from self._execute(run, run.flow.body)
        except FlowReturned as returned:
            return returned.value
        return None

    def _execute(self, run: FlowRun, body: Sequence[Statement]) -> FlowSteps:
        for statement in body:
            self._count_step()
            match statement:
                case Await(group=group):
                    value = yield from self._await(run, group)
                    if statement.variable:
                        self._set(run, statement.variable, value)
                case Activate():
                    for call in statement.calls:
                        flow = self.script.flows[call.flow]
                        self._activate(flow, self._bind(run, call), run, run.scores)
                case Start():
                    for call in statement.calls:
                        child = self._call(run, call)
                        self._advance(child, None)
                        if call.reference:
                            self._set(run, call.reference, AttributeDict(child.variables))
                case When():
                    yield from self._execute_when(run, statement)
                case If():
                    for condition, inner in statement.branches:
                        if not condition or self._evaluate(run, condition):
                            yield from self._execute(run, inner)
                            break
                case While():
                    yield from self._execute_while(run, statement)
                case Assign():
                    self._set(run, statement.variable, self._evaluate(run, statement.expression))
                case UseGlobal():
                    run.globals_used.add(statement.variable)
                case Leave():
                    self._leave(run, statement)
        return None

    def _execute_when(self, run: FlowRun, statement: When) -> FlowSteps:
        groups = [group for group, _ in statement.cases]
        case, _ = yield self._wait_for(run, groups)
        if case != ALL_FAILED:
            yield from self._execute(run, statement.cases[case][1])
        elif statement.otherwise is not None:
            yield from self._execute(run, statement.otherwise)
        else:
            raise FlowAborted
        return None

    def _execute_while(self, run: FlowRun, statement: While) -> FlowSteps:
        while self._evaluate(run, statement.condition):
            self._count_step()
            try:
                yield from self._execute(run, statement.body)
            except LoopLeft as left:
                if not left.continues:
                    break
        return None

    def _leave(self, run: FlowRun, statement: Leave) -> None:
        if statement.how == "abort":
            raise FlowAborted
        if statement.how == "return":
            expression = statement.expression
            raise FlowReturned(self._evaluate(run, expression) if expression else None)
        raise LoopLeft(statement.how == "continue")

    def _await(self, run: FlowRun, group: Group) -> FlowSteps:
        says = [item for item in group.items if isinstance(item, Say)]
        if says:
            if not group.needs_all and len(says) > 1:
                says = [says[self.draw(len(says))]]
            for say in says:
                yield Effect(str(self._evaluate(run, say.text)))
            return None
        first = group.items[0]
        if isinstance(first, CallAction):
            named = [(a.name, self._evaluate(run, a.expression)) for a in first.arguments]
            _, return_value = yield Effect(None, first.action, tuple(named))
            if first.reference:
                self._set(run, first.reference, AttributeDict(return_value=return_value))
            return return_value
        case, return_value = yield self._wait_for(run, [group])
        if case == ALL_FAILED:
            raise FlowAborted
        return return_value

    def _wait_for(self, run: FlowRun, groups: Sequence[Group]) -> Wait:
        cases = []
        for group in groups:
            wait_items = []
            for step in group.items:
                match step:
                    case Hear():
                        expected = self._evaluate(run, step.text) if step.text else None
                        # A text that is empty or None stands for any, as in NeMo's core library.
                        wait_items.append(
                            WaitItem(
                                text=expected or None,
                                hears=True,
                                reference=step.reference,
                                field=step.field,
                            )
                        )
                    case CallFlow():
                        child = self._call(run, step)
                        wait_items.append(WaitItem(child=child, reference=step.reference))
                    case _:
                        wait_items.append(WaitItem())
            cases.append(wait_items)
        return Wait(cases, [group.needs_all for group in groups])

    def _call(self, run: FlowRun, call: CallFlow) -> FlowRun:
        flow = self.script.flows[call.flow]
        return self._begin(flow, self._bind(run, call), run, run.scores)

    def _bind(self, run: FlowRun, call: CallFlow) -> dict[str, Any]:
        """Returns the arguments of a call by the names of the flow's parameters."""
        parameters = self.script.flows[call.flow].parameters
        return {
            argument.name or parameters[index].name: self._evaluate(run, argument.expression)
            for index, argument in enumerate(call.arguments)
        }

    # -- variables ---------------------------------------------------------------------------------

    def _evaluate(self, run: FlowRun, expression: str) -> Any:
        used = {name: self.globals.get(name) for name in run.globals_used}
        variables = {"system": self._system, **run.variables, **used}
        return compile_script_expression(expression)(variables)

    def _set(self, run: FlowRun, name: str, value: Any) -> None:
        (self.globals if name in run.globals_used else run.variables)[name] = value

    def _count_step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise FlowError("the flows do not come to an end: too many steps for one message")
