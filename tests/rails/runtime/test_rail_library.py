"""What a library adds to a runtime: flows, messages and actions."""

from __future__ import annotations

import asyncio
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from dialog_turns import ReplyListModel

from truing.rails.actions import action
from truing.rails.colang.parser import parse_colang
from truing.rails.config.loader import RailsConfig
from truing.rails.library.catalog import load_base_library
from truing.rails.runtime.app import Runtime, RuntimeParts
from truing.rails.runtime.embeddings import LexicalEncoder
from truing.rails.runtime.rail_library import RailLibrary
from truing.rails.runtime.turn_context import TurnContext

COLANG = """
define bot say closed
  "We are closed."

define subflow check hours
  $open = execute is_open
  if not $open
    bot say closed
    stop
"""


@action(is_system_action=True)
async def is_open(turn: TurnContext) -> Any:
    return "now" in str(turn.state.context["user_message"])


def make_library() -> RailLibrary:
    """Returns the base library, whose flows run the rails of a turn, and one more rail."""
    base, parsed = load_base_library(), parse_colang("hours.co", COLANG)
    return RailLibrary(
        flows=(*base.flows, *parsed.flows),
        bot_messages=base.bot_messages | parsed.bot_messages,
        actions=(*base.actions, is_open),
        pure_actions=base.pure_actions | {"is_open"},
    )


def run_turn(text: str, colang: str = "") -> str:
    config = RailsConfig.from_text("rails: {input: {flows: [check hours]}}\n", colang)
    parts = RuntimeParts(encoder=LexicalEncoder())
    runtime = Runtime(config, ReplyListModel("the answer"), make_library(), parts)
    return asyncio.run(runtime.run_turn([{"role": "user", "content": text}])).text


def test_flows_messages_and_actions_reach_the_runtime() -> None:
    assert run_turn("now?") == "the answer"
    assert run_turn("later?") == "We are closed."


def test_a_message_of_the_configuration_goes_before_the_librarys() -> None:
    assert run_turn("later?", 'define bot say closed\n  "Come back."\n') == "Come back."


def test_an_empty_library_and_its_immutability() -> None:
    first, second = RailLibrary(()), RailLibrary(())
    assert (first.flows, first.actions, first.pure_actions) == ((), (), frozenset())
    first.bot_messages["x"] = []
    assert second.bot_messages == {}
    with pytest.raises(FrozenInstanceError):
        first.flows = ()  # type: ignore[misc]
