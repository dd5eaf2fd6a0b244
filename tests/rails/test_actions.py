"""What actions are written with: the decorator, action results and rail outcomes."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from enum import Enum

import pytest

from truing.rails.actions import ActionResult, RailOutcome, action


def test_the_decorator_marks_a_function_and_returns_it() -> None:
    def look_up(item: int) -> int:
        return item + 1

    marked = action(is_system_action=True)(look_up)
    assert marked is look_up
    assert marked(2) == 3
    assert vars(look_up)["action_meta"] == {
        "name": "look_up",
        "is_system_action": True,
        "execute_async": False,
    }


def test_the_decorator_marks_classes_and_bound_methods() -> None:
    @action(name="search", execute_async=True)
    class Search:
        def run(self) -> str:
            return "result"

    assert Search.action_meta["name"] == "search"  # type: ignore[attr-defined]
    assert Search.action_meta["execute_async"] is True  # type: ignore[attr-defined]
    # The mark of a bound method lands on its function, since the method takes no attributes.
    method = action(name="run search")(Search().run)
    assert method() == "result"
    assert vars(Search.run)["action_meta"]["name"] == "run search"


def test_an_object_without_a_name_gets_an_empty_one() -> None:
    class Runnable:
        pass

    runnable = action()(Runnable())
    assert vars(runnable)["action_meta"]["name"] == ""


def test_action_results_share_no_updates() -> None:
    first, second = ActionResult(), ActionResult(return_value=1)
    assert first.context_updates is not None
    first.context_updates["x"] = 1
    assert (second.return_value, second.events, second.context_updates) == (1, None, {})


def test_allow_and_block() -> None:
    metadata = {"score": 0.9}
    blocked = RailOutcome.block(reason="rude", metadata=metadata)
    metadata["score"] = 0.0  # the outcome keeps a copy
    assert (blocked.decision, blocked.reason, blocked.metadata) == ("block", "rude", {"score": 0.9})
    assert (blocked.is_blocked, blocked.is_transform) == (True, False)
    allowed = RailOutcome.allow()
    assert (allowed.decision, allowed.reason, allowed.metadata) == ("allow", None, {})
    assert (allowed.is_blocked, allowed.is_transform) == (False, False)
    assert allowed == RailOutcome()


def test_transform_takes_names_and_enum_members() -> None:
    class Target(Enum):
        BOT_MESSAGE = "bot_message"

    outcome = RailOutcome.transform(
        [("user_message", "a"), (Target.BOT_MESSAGE, "b")],  # type: ignore[list-item]
        reason="masked",
    )
    assert (outcome.is_transform, outcome.is_blocked) == (True, False)
    assert outcome.transform_text == {"user_message": "a", "bot_message": "b"}
    assert outcome.reason == "masked"


def test_outcomes_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError, match="'decision'"):
        RailOutcome.allow().decision = "block"  # type: ignore[misc]
