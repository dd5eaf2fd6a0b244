"""Runs the actions that flows start: with their arguments, and within a time limit."""

from __future__ import annotations

import inspect
import json
from typing import Any

from truing.core.errors import PlanError, UserError
from truing.core.types import Failure
from truing.rails.runtime.action_registry import ActionRegistry, RegisteredAction
from truing.rails.runtime.event_types import (
    ActionFinished,
    ContextUpdate,
    Event,
    StartAction,
)
from truing.rails.runtime.events import (
    aborted_turn_result,
    action_finished_events,
    events_for_create_event,
)
from truing.rails.runtime.interpreter import FlowError
from truing.rails.runtime.llm_client import LlmError, SpeculationStopped
from truing.rails.runtime.turn_context import EVIDENCE_CHARACTERS, TurnContext, UncheckedError

INTERNAL_ERROR_MESSAGE = "I'm sorry, an internal error has occurred."


class ActionRunner:
    """Runs registered actions. User code is stopped after `timeout` seconds.

    `extra_arguments` are values that user code gets by parameter name (`register_action_param`).
    """

    def __init__(self, actions: ActionRegistry, timeout: float) -> None:
        self.actions = actions
        self.timeout = timeout
        self.extra_arguments: dict[str, Any] = {}

    async def run(self, turn: TurnContext, event: StartAction) -> list[Event]:
        """Runs the action that `event` starts, and returns the events after it.

        A failed action ends the turn with an apology; `turn.error` and `turn.failure` say why, and
        `turn.error_detail` what the error itself says, which may quote a text.
        Raises LlmError, FlowError and UncheckedError, which end the turn without an answer, and
        SpeculationStopped in a speculative copy.
        """
        name, params = event.action_name, event.action_params
        if name == "create_event":
            return events_for_create_event(event, params["event"], turn.state.context)
        action = self.actions.find(name)
        if turn.is_speculative_copy and (action is None or not action.builtin):
            raise SpeculationStopped(f"the action {name!r} is not run twice")
        status, returned = "success", None
        if action is None:
            turn.error = f"there is no action {name!r}"
            status, returned = "failed", aborted_turn_result(f"Action '{name}' not found.")
        else:
            try:
                returned = await self._call(turn, action, dict(params))
            except (LlmError, FlowError, SpeculationStopped, UncheckedError):
                raise
            except TimeoutError:
                turn.error = f"the action {name!r} took longer than {self.timeout:g} s"
            except UserError as error:
                # Truing's own words, such as how to install an extra.
                turn.error = f"the action {name!r} failed: {error}"
            except (Exception, SystemExit) as error:
                # SystemExit too: an action that exits must not end the server.
                turn.error = f"the action {name!r} failed: {type(error).__name__}"
                turn.error_detail = str(error)[:EVIDENCE_CHARACTERS]
            if turn.error is not None and returned is None:
                status, returned = "failed", aborted_turn_result(INTERNAL_ERROR_MESSAGE)
        if status == "failed":
            turn.failure = Failure("rail", "action", turn.error or name)
        return action_finished_events(event, returned, status)

    async def run_for_script(
        self, turn: TurnContext, name: str, arguments: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """Runs an action that a Colang 2 flow calls; returns its result and what variables it sets.

        Raises FlowError if the action fails or does not exist.
        """
        events = await self.run(turn, StartAction(name, arguments, None))
        variables: dict[str, Any] = {}
        return_value = None
        for event in events:
            if isinstance(event, ContextUpdate):
                variables.update(event.data)
            elif isinstance(event, ActionFinished):
                if event.status == "failed":
                    raise FlowError(turn.error or f"the action {name!r} failed")
                return_value = event.return_value
        return return_value, variables

    async def _call(
        self, turn: TurnContext, action: RegisteredAction, kwargs: dict[str, Any]
    ) -> Any:
        """Calls an action with the flow's arguments; user code also gets what it names."""
        context = turn.state.context
        for parameter in action.parameters:
            if parameter.startswith("__context__"):
                kwargs[parameter] = context.get(parameter.removeprefix("__context__"))
        for name, argument in kwargs.items():
            if isinstance(argument, str) and argument.startswith("$") and argument[1:] in context:
                kwargs[name] = context[argument[1:]]
        # An error of this action is told apart from one that an earlier action left.
        previous_error, turn.error = turn.error, None
        if action.builtin:
            returned = await action.call(turn, **kwargs)
        else:
            injected = self._injected_arguments(turn, action)
            kwargs.update({k: v for k, v in injected.items() if k in action.parameters})
            kwargs = {name: with_call_arguments(value) for name, value in kwargs.items()}
            returned = await action.run(kwargs, self.timeout)
            _require_value(returned)
        turn.error = previous_error
        return returned

    def _injected_arguments(self, turn: TurnContext, action: RegisteredAction) -> dict[str, Any]:
        """Returns the values that user code gets by parameter name, as in NeMo."""
        services = turn.services
        arguments = {
            "events": turn.state.history.to_nemo(),
            "context": {k: with_call_arguments(v) for k, v in turn.state.context.items()},
            "config": services.config,
            "llm_task_manager": services.prompts,
            "llm": turn.llm(action.name),
            "kb": services.kb,
            "llms": {task: turn.llm(task) for task in services.models},
            **self.extra_arguments,
        }
        if arguments["kb"] is None:
            del arguments["kb"]  # the parameter's default holds
        return arguments


def _require_value(value: Any) -> None:
    """Raises PlanError for a generator, which a flow would take for a true value unread."""
    if inspect.isgenerator(value) or inspect.isasyncgen(value) or inspect.isawaitable(value):
        if hasattr(value, "close"):
            value.close()  # a coroutine that is never awaited warns
        raise PlanError(f"it returned a {type(value).__name__}, not a value")


def with_call_arguments(value: Any) -> Any:
    """Returns a list of tool calls with `name` and `args` (an object) in each call, as actions
    written for NeMo Guardrails read them; any other value unchanged.

    `args` is None where the model's arguments are no JSON object.
    """
    if not isinstance(value, list) or not value or not all(_is_tool_call(call) for call in value):
        return value
    return [{**call, **_read_arguments(call["function"])} for call in value]


def _is_tool_call(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("function"), dict)


def _read_arguments(function: dict[str, Any]) -> dict[str, Any]:
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError, RecursionError):
        arguments = None
    is_object = isinstance(arguments, dict)
    return {"name": function.get("name"), "args": arguments if is_object else None}
