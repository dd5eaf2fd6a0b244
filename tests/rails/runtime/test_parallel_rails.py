"""Parallel rails: the static proof, and what a stage of parallel rails does."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from adapter_truing import BagOfWordsEncoder

from truing.core.types import Answer, Conversation, Sampling
from truing.models.scripted import ScriptedModel
from truing.rails import library
from truing.rails.colang.compiler import Program, compile_flow
from truing.rails.colang.parser import parse_colang
from truing.rails.config.loader import RailsConfig
from truing.rails.guarded import GuardedModel
from truing.rails.runtime.app import RuntimeParts
from truing.rails.runtime.parallel_rails import (
    ACTION_READS,
    RailEffects,
    can_run_in_parallel,
    variable_effects,
)


def make_program(colang: str, pure_actions: tuple[str, ...] = ()) -> Program:
    flows = parse_colang("main.co", colang).flows
    return Program([compile_flow(flow) for flow in flows], pure_actions)


@pytest.mark.parametrize(
    ("first", "second", "is_parallel"),
    [
        ('$a = "x" in $user_message', '$b = "y" in $user_message', True),
        ('$user_message = "x"', '$b = "y" in $user_message', False),
        ("$a = 1", "if $a\n    stop", False),
        ("$a = 1", "$a = 2\n  if $a\n    stop", True),
        ("$a = 1", "if $b\n    $a = 2\n  if $a\n    stop", False),
        ("execute unknown_action", "$b = 1", False),
        ("create event Something", "$b = 1", False),
        ("create event MyException", "$b = 1", True),
        ("do $sub", "$b = 1", False),
    ],
)
def test_independence_is_proved_or_denied(first: str, second: str, is_parallel: bool) -> None:
    program = make_program(f"define subflow one\n  {first}\n\ndefine subflow two\n  {second}\n")
    assert can_run_in_parallel(program, ["one", "two"]) is is_parallel
    assert variable_effects(program, "two") is not None


def test_effects_are_reads_before_writes_and_writes() -> None:
    program = make_program(
        "define subflow rail\n  $a = $x\n  $b = $a\n  $r = execute pure(t=$y)\n  do other\n\n"
        "define subflow other\n  $c = $z\n",
        ("pure",),
    )
    assert variable_effects(program, "rail") == RailEffects(
        ACTION_READS | {"x", "y", "z"}, frozenset({"a", "b", "r", "c"})
    )


def test_actions_of_the_library_read_no_other_variables() -> None:
    """Holds what the proof assumes of them: see `pure_action_names`."""
    names: set[str] = set()
    folder = Path(library.__file__).parent
    for path in folder.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        names |= set(re.findall(r"\bcontext(?:\.get\(|\[)\s*\"(\w+)\"", source))
        writes = re.findall(r"\bcontext\[[^\]]+\]\s*=(?!=)|\bcontext\.(?:update|pop|set)", source)
        assert not writes, path
    assert {"user_message", "bot_thinking"} <= names <= ACTION_READS


def test_a_rail_that_waits_for_an_event_is_not_proved() -> None:
    program = make_program("define subflow rail\n  bot ask\n  user answer\n")
    assert variable_effects(program, "rail") is None


# -- running -----------------------------------------------------------------------------------

PARALLEL = "rails: {input: {parallel: true, flows: [one, two]}}\ntruing: {action_timeout: 5}\n"


def run_guarded(colang: str, message: str = "hello", **parts: Any) -> Answer:
    model = GuardedModel(
        RailsConfig.from_text(PARALLEL, colang),
        ScriptedModel("fine"),
        parts=RuntimeParts(encoder=BagOfWordsEncoder(), **parts),
    )
    return asyncio.run(model.answer(Conversation.of(message), Sampling()))


def test_all_rails_run_and_are_recorded_in_the_configured_order() -> None:
    started: list[str] = []
    is_released = asyncio.Event()

    async def wait() -> bool:
        started.append("wait")
        return await is_released.wait()  # only the second rail sets it: in sequence this would hang

    async def release() -> bool:
        started.append("release")
        is_released.set()
        return True

    colang = "define subflow one\n  execute wait\n\ndefine subflow two\n  execute release\n"
    answer = run_guarded(colang, actions={"wait": wait, "release": release})
    assert answer.text == "fine"
    assert sorted(started) == ["release", "wait"]
    assert [(r.name, r.ruling) for r in answer.rulings] == [("one", "allow"), ("two", "allow")]


def test_the_first_rail_that_blocks_cancels_the_others() -> None:
    cancelled: list[bool] = []

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    colang = (
        "define subflow one\n  execute never\n\n"
        "define subflow two\n  execute tick\n  bot refuse to respond\n  stop\n"
    )
    answer = run_guarded(colang, actions={"never": never, "tick": lambda: None})
    assert answer.finish_reason == "blocked"
    assert cancelled == [True]
    assert [(r.name, r.ruling) for r in answer.rulings] == [("two", "block")]


@pytest.mark.parametrize(("message", "ruling"), [("hello", "allow"), ("a secret", "block")])
def test_rails_without_any_action_run_once(message: str, ruling: str) -> None:
    colang = (
        'define subflow one\n  if "secret" in $user_message\n    bot refuse to respond\n    '
        "stop\n\n"
        "define subflow two\n  $a = 1\n"
    )
    answer = run_guarded(colang, message)
    assert (answer.text == "fine") is (ruling == "allow")
    assert ("one", ruling) in [(r.name, r.ruling) for r in answer.rulings]


def test_a_rail_that_fails_blocks_the_turn() -> None:
    def fail() -> None:
        raise RuntimeError("out of memory")

    colang = "define subflow one\n  execute fail\n\ndefine subflow two\n  $a = 1\n"
    answer = run_guarded(colang, actions={"fail": fail})
    assert answer.finish_reason == "blocked"
    assert "fine" not in answer.text
    # What the exception says is evidence, which clients do not get; its type is the reason.
    (failed,) = [r for r in answer.rulings if "failed" in r.reason]
    assert "RuntimeError" in failed.reason
    assert "out of memory" not in failed.reason
    assert "out of memory" in str(failed.evidence)
