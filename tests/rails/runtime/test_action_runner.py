"""Actions within a turn: arguments, failures, time limits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from truing.models.scripted import ScriptedModel
from truing.rails.build import build_runtime
from truing.rails.config.loader import RailsConfig
from truing.rails.runtime.action_registry import ActionRegistry
from truing.rails.runtime.action_runner import (
    INTERNAL_ERROR_MESSAGE,
    ActionRunner,
    with_call_arguments,
)
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.conversation_state import ConversationState
from truing.rails.runtime.embeddings import LexicalEncoder
from truing.rails.runtime.event_types import BotIntent, Event, StartAction, StartUtterance
from truing.rails.runtime.llm_client import LlmClient, SpeculationStopped
from truing.rails.runtime.turn_context import TurnContext


def make_turn() -> TurnContext:
    config = RailsConfig.from_text("models: []\n")
    runtime = build_runtime(config, ScriptedModel("x"), RuntimeParts(encoder=LexicalEncoder()))
    return TurnContext(services=runtime.services, state=ConversationState(runtime.program, config))


def run(
    call: Any, turn: TurnContext | None = None, timeout: float = 5.0, **params: Any
) -> list[Event]:
    registry = ActionRegistry()
    if call is not None:
        registry.register(call, "act")
    runner = ActionRunner(registry, timeout)
    runner.extra_arguments["database"] = "the database"
    event = StartAction("act", params, action_result_key="r")
    return asyncio.run(runner.run(turn or make_turn(), event))


def test_user_code_gets_what_its_parameters_name() -> None:
    async def act(text: str, llm: Any, context: Any, database: str, kb: str = "no kb") -> Any:
        assert isinstance(llm, LlmClient)
        context["x"] = 2  # a copy: the conversation's context does not change
        return [text, database, kb]

    turn = make_turn()
    turn.state.context["x"] = 1
    update, finished = run(act, turn, text="hello")
    assert update.get("data") == {"r": ["hello", "the database", "no kb"]}
    assert finished.get("status") == "success"
    assert turn.state.context["x"] == 1


def test_variables_in_arguments_and_context_parameters() -> None:
    turn = make_turn()
    turn.state.context.update({"name": "Ada", "city": "Oslo"})

    def act(a: str, b: str, __context__city: str) -> Any:
        return [a, b, __context__city]

    update = run(act, turn, a="$name", b="$unknown")[0]
    assert update.get("data") == {"r": ["Ada", "$unknown", "Oslo"]}


@pytest.mark.parametrize("error", [RuntimeError("no disk"), SystemExit(3)])
def test_an_action_that_fails_ends_the_turn(error: BaseException) -> None:
    async def act() -> None:
        raise error

    turn = make_turn()
    events = run(act, turn)
    assert StartUtterance(INTERNAL_ERROR_MESSAGE) in events
    assert events[-1] == BotIntent("stop")
    assert turn.failure is not None
    assert f"the action 'act' failed: {type(error).__name__}" in turn.failure.message


def test_an_action_that_is_missing_or_slow_ends_the_turn() -> None:
    turn = make_turn()
    run(None, turn)
    assert turn.error == "there is no action 'act'"

    async def act() -> None:
        await asyncio.sleep(60)

    turn = make_turn()
    run(act, turn, timeout=0.01)
    assert turn.error == "the action 'act' took longer than 0.01 s"


def test_a_speculative_copy_stops_at_user_code() -> None:
    turn = make_turn()
    turn.is_speculative_copy = True
    with pytest.raises(SpeculationStopped, match="not run twice"):
        run(lambda: None, turn)


def test_actions_get_the_arguments_of_tool_calls_as_objects() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"a": 1}'}}
    broken = {"function": {"name": "find", "arguments": "{"}}
    first, second = with_call_arguments([call, broken])
    assert (first["name"], first["args"], first["id"]) == ("find", {"a": 1}, "1")
    assert second["args"] is None
    for value in ("text", [], [1], [{"function": "f"}], {"function": {}}):
        assert with_call_arguments(value) is value
