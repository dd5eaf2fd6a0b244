"""Runs a script, the Colang 2 flows that react to exact words, utterance by utterance.

The rules are those of NeMo Guardrails' Colang 2 runtime (`statemachine.run_to_completion`), for the
statements that `colang.script_parser` reads. Flows run side by side as generators that yield what
they wait for. Where several flows want to act on one event, the one that matched it most closely
acts, with those that want the very same; the others fail. Activated flows begin again when they
end, and `main` at the user's next message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from truing.rails.colang.expressions import AttributeDict, ExpressionError
from truing.rails.colang.script_ast import Script, ScriptFlow
from truing.rails.colang.script_expressions import compile_script_expression
from truing.rails.runtime.interpreter import FlowError
from truing.rails.runtime.script_runs import (
    ANY_SCORE,
    EXACT_SCORE,
    ActionEnded,
    Effect,
    FlowAborted,
    FlowEnded,
    FlowRun,
    UserUtterance,
    Wait,
    WaitItem,
    match_score,
    matches_item,
)
from truing.rails.runtime.script_statements import ALL_FAILED, Draw, ScriptStatements

MAX_RUNS = 500  # flows that run side by side
MAX_DEPTH = 50  # flows that call each other

# Returns the result of an action, and the variables that it sets.
CallActionFunction = Callable[[str, dict[str, Any]], Awaitable[tuple[Any, dict[str, Any]]]]


class ScriptRunner(ScriptStatements):
    """The flows of one conversation."""

    def __init__(self, script: Script, settings: Any, draw: Draw) -> None:
        super().__init__(script, settings, draw)
        self.was_handled = False
        self._runs: list[FlowRun] = []
        self._internal: deque[UserUtterance | ActionEnded | FlowEnded] = deque()
        self._acting: list[FlowRun] = []
        self._main: FlowRun | None = None
        self._last_key = 0

    async def hear(self, text: str, call_action: CallActionFunction) -> list[str]:
        """Returns what the bot says to an utterance; `was_handled` says whether a flow waited.

        Raises FlowError where the flows come to no end, or an expression fails.
        """
        self._steps, self.was_handled = 0, False
        self.globals["user_message"] = self.globals["last_user_message"] = text
        bot_texts: list[str] = []
        events: deque[UserUtterance | ActionEnded] = deque([UserUtterance(text)])
        try:
            started = self._start_main() if self._main is None else []
            while True:
                for key, effect in started:
                    return_value = None
                    if effect.text is not None:
                        bot_texts.append(effect.text)
                        self.globals["bot_message"] = effect.text
                        self.globals["last_bot_message"] = effect.text
                    else:
                        arguments = dict(effect.arguments)
                        return_value, variables = await call_action(effect.action, arguments)
                        self.globals.update(variables)
                    events.append(ActionEnded(key, return_value))
                if not events:
                    return bot_texts
                started = self._process(events.popleft())
        except ExpressionError as error:
            raise FlowError(str(error)) from error

    # -- events ------------------------------------------------------------------------------------

    def _start_main(self) -> list[tuple[int, Effect]]:
        main = self._main = self._begin(self.script.flows["main"], {}, None, [])
        main.is_activated = True
        for flow in self.script.flows.values():
            if flow.is_active and flow.name != "main":
                self._activate(flow, {}, main, [])
        self._advance(main, None)
        return self._settle()

    def _process(self, event: UserUtterance | ActionEnded) -> list[tuple[int, Effect]]:
        self._internal.append(event)
        return self._settle()

    def _settle(self) -> list[tuple[int, Effect]]:
        """Handles events until all flows wait; returns what they have begun to do."""
        begun: list[tuple[int, Effect]] = []
        while True:
            while self._internal:
                self._count_step()
                self._handle(self._internal.popleft())
            acting = [run for run in self._acting if run.is_alive and run.effect is not None]
            self._acting = []
            if not acting:
                return begun
            begun.append(self._resolve(acting))

    def _handle(self, event: UserUtterance | ActionEnded | FlowEnded) -> None:
        if isinstance(event, FlowEnded):
            parent = event.run.parent
            if parent is not None and parent.is_alive:
                scores = event.run.scores
                score = ANY_SCORE if event.value is not None else EXACT_SCORE
                self._end_item(parent, event, [*scores, score])
            return
        matches = []
        for run in self._runs:
            score = match_score(run, event)
            if score:
                matches.append((score, run))
        if isinstance(event, UserUtterance):
            self.was_handled = bool(matches)
        # The closest match goes first; of equals the flow that began to wait first.
        for score, run in sorted(matches, key=lambda match: -match[0]):
            if run.is_alive and run.wait is not None:
                self._end_item(run, event, [score])

    def _end_item(
        self, run: FlowRun, event: UserUtterance | ActionEnded | FlowEnded, scores: list[float]
    ) -> None:
        """Marks what a run waits for; goes on with it if a case is complete, or all have failed."""
        wait = run.wait
        if wait is None:
            return
        event_value: Any = None
        for number, wait_items in enumerate(wait.cases):
            needs_all = wait.needs_all[number]
            for wait_item in wait_items:
                if (
                    wait_item.has_ended
                    or wait_item.has_failed
                    or not matches_item(wait_item, event)
                ):
                    continue
                if isinstance(event, FlowEnded) and event.failed:
                    wait_item.has_failed = True
                    continue
                wait_item.has_ended = True
                event_value = self._take_result(run, wait_item, event)
            ended = [wait_item.has_ended for wait_item in wait_items]
            if (all if needs_all else any)(ended):
                self._resume(run, number, event_value, scores)
                return
        if all(
            (any if wait.needs_all[number] else all)(
                wait_item.has_failed for wait_item in wait_items
            )
            for number, wait_items in enumerate(wait.cases)
        ):
            self._resume(run, ALL_FAILED, None, scores)

    def _take_result(
        self, run: FlowRun, wait_item: WaitItem, event: UserUtterance | ActionEnded | FlowEnded
    ) -> Any:
        """Sets the reference (`as $name`) and returns the result of what has ended."""
        if isinstance(event, UserUtterance):
            event_value: Any = event.text
            fields = AttributeDict({wait_item.field: event.text, "text": event.text})
        elif isinstance(event, ActionEnded):
            event_value, fields = event.value, AttributeDict(return_value=event.value)
        else:
            event_value, fields = event.value, AttributeDict(event.run.variables)
        if wait_item.reference:
            self._set(run, wait_item.reference, fields)
        return event_value

    def _resume(self, run: FlowRun, case: int, event_value: Any, scores: list[float]) -> None:
        wait, run.wait = run.wait, None
        for items in wait.cases if wait is not None else ():
            for item in items:
                if item.child is not None and not item.has_ended:
                    self._end(item.child, failed=True, restarts=False, tells=False)
        run.scores = scores
        self._advance(run, (case, event_value))

    # -- runs --------------------------------------------------------------------------------------

    def _begin(
        self,
        flow: ScriptFlow,
        arguments: dict[str, Any],
        parent: FlowRun | None,
        scores: Sequence[float],
    ) -> FlowRun:
        variables: dict[str, Any] = {}
        for parameter in flow.parameters:
            default = parameter.default
            variables[parameter.name] = (
                arguments[parameter.name]
                if parameter.name in arguments
                else compile_script_expression(default)({})
                if default
                else None
            )
        depth = 0 if parent is None else parent.depth + 1
        if depth > MAX_DEPTH or len(self._runs) >= MAX_RUNS:
            raise FlowError(f"{flow.file}:{flow.line}: too many flows run inside of each other")
        run = FlowRun(flow, variables, parent, list(scores), depth)
        run.generator = self._execute_flow(run)
        self._runs.append(run)
        if parent is not None:
            parent.children.append(run)
        return run

    def _advance(self, run: FlowRun, sent: tuple[int, Any] | None) -> None:
        """Runs a flow up to what it waits for or wants to do next."""
        assert run.generator is not None, "a run has a generator from its beginning on"
        self._count_step()
        try:
            # A generator that has not begun takes no value.
            step = next(run.generator) if sent is None else run.generator.send(sent)
        except StopIteration as end:
            self._finish(run, end.value)
        except FlowAborted:
            self._end(run, failed=True)
        else:
            if isinstance(step, Effect):
                run.effect = step
                self._acting.append(run)
                return
            run.wait, run.has_waited = step, True
            for items in step.cases:
                for item in items:
                    if item.child is not None and run.wait is step:
                        self._advance(item.child, None)

    def _finish(self, run: FlowRun, value: Any) -> None:
        if run.is_activated and not run.has_waited:
            # As in NeMo, a flow that has never waited does not begin again; its children go on.
            return
        self._end(run, failed=False, return_value=value)

    def _end(
        self,
        run: FlowRun,
        *,
        failed: bool,
        return_value: Any = None,
        restarts: bool = True,
        tells: bool = True,
    ) -> None:
        """Ends a run with all that it started; an activated one begins again."""
        if not run.is_alive:
            return
        run.is_alive, run.wait, run.effect = False, None, None
        self._runs.remove(run)
        for holder in (run.parent, *run.owners):
            if holder is not None and run in holder.children:
                holder.children.remove(run)
        if run.generator is not None:
            run.generator.close()
        for child in list(run.children):
            child.owners = [owner for owner in child.owners if owner is not run]
            if not child.owners:
                self._end(child, failed=True, restarts=False, tells=False)
        if run is self._main:
            self._main = None
            return
        if tells:
            self._internal.append(FlowEnded(run, failed, return_value))
        if restarts and run.is_activated and run.has_waited:
            self._restart(run)

    def _restart(self, run: FlowRun) -> None:
        parameters = [parameter.name for parameter in run.flow.parameters]
        arguments = {name: run.variables.get(name) for name in parameters}
        again = self._begin(run.flow, arguments, run.parent, run.scores)
        again.is_activated, again.owners = True, run.owners
        for owner in run.owners:
            if again not in owner.children:
                owner.children.append(again)
        self._advance(again, None)

    def _activate(
        self, flow: ScriptFlow, arguments: dict[str, Any], owner: FlowRun, scores: Sequence[float]
    ) -> None:
        for run in self._runs:
            is_same = run.is_activated and run.flow is flow
            if is_same and all(run.variables.get(k) == v for k, v in arguments.items()):
                if run.flow is not owner.flow:
                    run.owners.append(owner)
                    owner.children.append(run)
                return
        run = self._begin(flow, arguments, owner, scores)
        run.is_activated, run.owners = True, [owner]
        self._advance(run, None)

    def _resolve(self, acting: list[FlowRun]) -> tuple[int, Effect]:
        """Lets the run that matched most closely act, with those that want the same."""
        length = max(len(run.scores) for run in acting)
        ordered = sorted(
            acting, key=lambda r: r.scores + [1.0] * (length - len(r.scores)), reverse=True
        )
        count = 0
        while count < len(ordered) and ordered[count].scores == ordered[0].scores:
            count += 1
        winner = ordered[self.draw(count) if count > 1 else 0]
        effect = winner.effect
        assert effect is not None, "only runs with an effect act"
        self._last_key += 1
        for run in ordered:
            if run.effect == effect:
                run.effect, run.has_waited = None, True
                run.wait = Wait([[WaitItem(key=self._last_key)]], [False])
            elif run.is_alive:
                self._end(run, failed=True)
        return self._last_key, effect
