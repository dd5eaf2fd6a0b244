"""The Colang interpreter on small programs: matching, control flow, subflows, interruptions."""

from __future__ import annotations

import pytest

from truing.rails.colang.compiler import Program, compile_flow
from truing.rails.colang.parser import parse_colang
from truing.rails.runtime.event_types import (
    BotIntent,
    ContextUpdate,
    Event,
    HidePreviousTurn,
    StartAction,
    StartFlow,
    UserIntent,
    Utterance,
    event_from_nemo,
)
from truing.rails.runtime.flow_frames import ABORTED
from truing.rails.runtime.interpreter import FlowError, Interpreter


def make_interpreter(colang: str) -> Interpreter:
    flows = parse_colang("main.co", colang).flows
    return Interpreter(Program([compile_flow(flow) for flow in flows]))


def user_intent(intent: str) -> Event:
    return UserIntent(intent)


def bot_intent(intent: str) -> Event:
    return BotIntent(intent)


def action_finished(name: str, status: str = "success") -> Event:
    return event_from_nemo(
        {"type": "InternalSystemActionFinished", "action_name": name, "status": status}
    )


def steps_after(interpreter: Interpreter, *events: Event) -> list[Event]:
    for event in events:
        interpreter.process(event)
    return interpreter.next_steps()


def test_a_flow_that_matches_proposes_its_next_bot_message() -> None:
    interpreter = make_interpreter("define flow\n  user greet\n  bot say hello\n")
    assert steps_after(interpreter, user_intent("greet")) == [bot_intent("say hello")]
    assert steps_after(interpreter, bot_intent("say hello")) == []


def test_an_intent_without_a_flow_leads_to_nothing() -> None:
    interpreter = make_interpreter("define flow\n  user greet\n  bot say hello\n")
    assert steps_after(interpreter, user_intent("ask price")) == []


@pytest.mark.parametrize(("value", "message"), [("2", "big"), ("1", "small")])
def test_if_takes_the_branch_of_its_condition(value: str, message: str) -> None:
    interpreter = make_interpreter(
        f"define flow\n  user go\n  $x = {value}\n  if $x > 1\n    bot big\n  else\n    bot small\n"
    )
    steps = steps_after(interpreter, user_intent("go"))
    assert steps == [ContextUpdate({"x": int(value)}), bot_intent(message)]


def test_while_runs_until_its_condition_is_false() -> None:
    interpreter = make_interpreter(
        "define flow\n  user go\n  $i = 0\n  while $i < 3\n    $i = $i + 1\n  bot done\n"
    )
    assert steps_after(interpreter, user_intent("go"))[-1] == bot_intent("done")
    assert interpreter.context["i"] == 3


def test_break_and_continue() -> None:
    interpreter = make_interpreter(
        "define flow\n  user go\n  $i = 0\n  $sum = 0\n  while True\n    $i = $i + 1\n"
        "    if $i == 2\n      continue\n    if $i == 5\n      break\n    $sum = $sum + $i\n  bot "
        "done\n"
    )
    steps_after(interpreter, user_intent("go"))
    assert (interpreter.context["i"], interpreter.context["sum"]) == (5, 1 + 3 + 4)


def test_an_action_carries_its_parameters_and_result() -> None:
    interpreter = make_interpreter(
        "define flow\n  user go\n  $price = execute look_up(item=2)\n  bot tell\n"
    )
    assert steps_after(interpreter, user_intent("go")) == [
        StartAction("look_up", {"item": 2}, action_result_key="price")
    ]
    assert steps_after(interpreter, action_finished("look_up")) == [bot_intent("tell")]


def test_a_failed_action_is_not_matched() -> None:
    interpreter = make_interpreter("define flow\n  user go\n  execute look_up\n  bot tell\n")
    steps_after(interpreter, user_intent("go"))
    assert steps_after(interpreter, action_finished("look_up", "failed")) == []


def test_a_subflow_runs_before_its_caller_goes_on() -> None:
    interpreter = make_interpreter(
        "define subflow check\n  bot ask name\n  user give name\n\n"
        "define flow\n  user go\n  do check\n  bot done\n"
    )
    assert steps_after(interpreter, user_intent("go")) == [bot_intent("ask name")]
    assert steps_after(interpreter, bot_intent("ask name")) == []
    assert steps_after(interpreter, user_intent("give name")) == [bot_intent("done")]


def test_the_flow_of_higher_priority_decides() -> None:
    interpreter = make_interpreter(
        "define flow one\n  user go\n  bot low\n\n"
        "define flow two\n  priority 2\n  user go\n  bot high\n"
    )
    assert steps_after(interpreter, user_intent("go")) == [bot_intent("high")]
    # The other flow proposed another step than the one that was taken.
    interpreter.process(bot_intent("high"))
    assert {f.flow.id: f.status for f in interpreter.frames}["one"] == ABORTED


def test_among_equal_priorities_the_first_flow_decides() -> None:
    interpreter = make_interpreter(
        "define flow one\n  user go\n  bot first\n\ndefine flow two\n  user go\n  bot second\n"
    )
    assert steps_after(interpreter, user_intent("go")) == [bot_intent("first")]


def test_an_interrupted_flow_resumes_after_the_interruption() -> None:
    interpreter = make_interpreter(
        "define flow order\n  user order\n  bot ask size\n  user give size\n  bot confirm\n\n"
        "define flow hours\n  user ask hours\n  bot tell hours\n"
    )
    steps_after(interpreter, user_intent("order"), bot_intent("ask size"))
    assert steps_after(interpreter, user_intent("ask hours")) == [bot_intent("tell hours")]
    interpreter.process(bot_intent("tell hours"))
    assert steps_after(interpreter, user_intent("give size")) == [bot_intent("confirm")]


def test_stop_ends_all_flows() -> None:
    interpreter = make_interpreter("define flow\n  user go\n  stop\n  bot never\n")
    assert steps_after(interpreter, user_intent("go")) == [bot_intent("stop")]
    assert steps_after(interpreter, bot_intent("stop")) == []
    assert interpreter.frames == []


def test_hide_prev_turn_restores_frames_and_context() -> None:
    interpreter = make_interpreter(
        "define flow\n  user go\n  $x = 1\n  bot ask\n  user answer\n  bot done\n"
    )
    utterance: Event = Utterance("go")
    steps_after(interpreter, utterance, user_intent("go"))
    assert interpreter.context["x"] == 1
    interpreter.process(HidePreviousTurn())
    assert "x" not in interpreter.context
    assert interpreter.frames == []
    with pytest.raises(FlowError, match="cannot be taken back"):
        interpreter.process(HidePreviousTurn())


def test_a_fork_goes_on_independently() -> None:
    interpreter = make_interpreter("define flow\n  user go\n  bot ask\n  user answer\n  bot done\n")
    steps_after(interpreter, user_intent("go"), bot_intent("ask"))
    fork = interpreter.fork()
    assert steps_after(fork, user_intent("answer")) == [bot_intent("done")]
    assert interpreter.frames[0].pc != fork.frames[0].pc
    assert steps_after(interpreter, user_intent("answer")) == [bot_intent("done")]


@pytest.mark.parametrize(
    ("colang", "message"),
    [
        ("define flow\n  user go\n  while True\n    $a = 1\n", "does not come to an end"),
        ("define flow\n  user go\n  do nothing\n", "there is no subflow 'nothing'"),
        ("define flow\n  user go\n  $a = 3\n  do $a\n", "should name a subflow"),
        (
            "define subflow loop\n  do loop\n\ndefine flow\n  user go\n  do loop\n",
            "subflows call each other",
        ),
    ],
)
def test_flows_that_cannot_go_on_are_errors(colang: str, message: str) -> None:
    with pytest.raises(FlowError, match=message):
        make_interpreter(colang).process(user_intent("go"))


def test_a_flow_reactivated_at_its_end_is_over() -> None:
    interpreter = make_interpreter(
        "define flow ends with a call\n  user go\n  do wait for more\n\n"
        "define subflow wait for more\n  user more\n"
    )
    interpreter.process(user_intent("go"))
    caller = next(f for f in interpreter.frames if f.flow.id == "ends with a call")
    assert caller.pc == len(caller.flow.instructions)
    caller.status = ABORTED
    interpreter._resolve_interruptions(extension_finished=True)
    assert steps_after(interpreter, user_intent("anything"), user_intent("more")) == []
    assert not interpreter.is_running("ends with a call")


def test_a_requested_subflow_without_a_waiting_step_is_over_at_once() -> None:
    interpreter = make_interpreter("define subflow sets\n  $a = 1\n")
    interpreter.process(StartFlow("sets"))
    assert not interpreter.is_running("sets")
    assert interpreter.context["a"] == 1
