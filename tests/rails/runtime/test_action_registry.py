"""The registry of actions: names, precedence, and the ways an action is called."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from truing.rails.actions import action
from truing.rails.runtime.action_registry import ActionRegistry


@action(name="check_facts", is_system_action=True)
async def check_facts(text: str = "") -> str:
    return text.upper()


def test_an_action_is_found_by_its_name_in_either_form() -> None:
    registry = ActionRegistry()
    registry.register(check_facts)
    found = registry.find("check_facts")
    assert found is not None
    assert found.system
    assert registry.find("CheckFactsAction") is found
    assert registry.find("check_fact") is None
    assert registry.names() == {"check_facts"}


def test_a_later_registration_replaces_an_earlier_one_unless_told_not_to() -> None:
    registry = ActionRegistry()
    registry.register(check_facts, "name", builtin=True)
    registry.register(len, "name", override=False)
    assert registry.find("name").builtin  # type: ignore[union-attr]
    registry.register(check_facts, "name")
    assert not registry.find("name").builtin  # type: ignore[union-attr]


def test_an_action_without_a_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs name="):
        ActionRegistry().register(object())


def test_parameters_are_those_of_the_signature() -> None:
    async def act(text: str, *, llm: Any = None, **rest: Any) -> None:
        return None

    registry = ActionRegistry()
    registry.register(act)
    found = registry.find("act")
    assert found is not None
    assert found.parameters == {"text", "llm"}
    assert found.accepts_any_keyword


def run(call: Any, seconds: float = 5.0, **params: Any) -> Any:
    registry = ActionRegistry()
    registry.register(call, "act")
    found = registry.find("act")
    assert found is not None
    return asyncio.run(found.run(params, seconds))


def test_coroutines_run_in_the_event_loop_and_functions_in_a_thread() -> None:
    async def coroutine() -> int:
        return threading.get_ident()

    def function() -> int:
        return threading.get_ident()

    assert run(coroutine) == threading.get_ident()
    assert run(function) != threading.get_ident()


def test_classes_are_instantiated_and_runnables_invoked() -> None:
    class WithRun:
        def run(self, a: int) -> int:
            return a + 1

    class Runnable:
        async def ainvoke(self, input: dict[str, int]) -> int:
            return input["a"] * 10

    assert run(WithRun, a=2) == 3
    assert run(Runnable(), a=2) == 20


def test_an_action_that_takes_too_long_is_a_timeout() -> None:
    async def slow() -> None:
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        run(slow, seconds=0.01)
    with pytest.raises(TimeoutError):
        run(lambda: time.sleep(0.2), seconds=0.01)
