"""The instructions of flows, their jump targets, and the index of a program."""

from __future__ import annotations

import pytest

from truing.core.errors import PlanError
from truing.rails.colang import compiler
from truing.rails.colang.compiler import CompiledFlow, Program, compile_flow
from truing.rails.colang.parser import parse_colang


def _compile(body: str, definition: str = "define flow x") -> CompiledFlow:
    lines = "".join(f"  {line}\n" for line in body.strip("\n").split("\n"))
    (flow,) = parse_colang("test.co", f"{definition}\n{lines}").flows
    return compile_flow(flow)


def _opcodes(flow: CompiledFlow) -> list[int]:
    return [instruction.op for instruction in flow.instructions]


def test_simple_steps() -> None:
    flow = _compile("user a as $text\nbot b\n$r = execute f(p=1)\nevent Ping(q=2)\ndo sub")
    assert _opcodes(flow) == [
        compiler.USER,
        compiler.SET,
        compiler.BOT,
        compiler.ACTION,
        compiler.EVENT,
        compiler.FLOW,
    ]
    _, assign, _, action, event, call = flow.instructions
    assert (assign.name, assign.source) == ("text", "$last_user_message")
    assert (action.name, action.params, action.result) == ("f", {"p": 1}, "r")
    assert (event.name, event.fields) == ("Ping", (("q", 2),))
    assert call.name == "sub"


def test_a_value_of_the_llm_is_an_action_with_the_comment_as_instructions() -> None:
    (action,) = _compile("# the user's name\n$name = ...").instructions
    assert (action.op, action.name, action.result) == (compiler.ACTION, "generate_value", "name")
    assert action.params == {"instructions": "the user's name"}


def test_if_else_jumps_over_the_branch_not_taken() -> None:
    # 0 if, 1 bot a, 2 jump, 3 bot b, 4 bot c, 5 bot d
    flow = _compile("if $x\n  bot a\nelse\n  bot b\n  bot c\nbot d")
    test, _, jump, *_ = flow.instructions
    assert _opcodes(flow)[:3] == [compiler.IF, compiler.BOT, compiler.JUMP]
    assert 0 + test.jump == 3
    assert 2 + jump.jump == 5


def test_if_without_else_needs_no_second_jump() -> None:
    flow = _compile("if $x\n  bot a\nbot b")
    assert _opcodes(flow) == [compiler.IF, compiler.BOT, compiler.BOT]
    assert flow.instructions[0].jump == 2


def test_while_jumps_back_and_break_and_continue_know_their_loop() -> None:
    # 0 while, 1 if, 2 break, 3 continue, 4 jump to 0, 5 bot b
    flow = _compile("while $x\n  if $y\n    break\n  continue\nbot b")
    loop, _, break_, continue_, jump, _ = flow.instructions
    assert 0 + loop.break_offset == 5
    assert 2 + break_.break_offset == 5
    assert 3 + continue_.continue_offset == 0
    assert 4 + jump.jump == 0


def test_break_leaves_the_innermost_loop() -> None:
    # 0 while, 1 while, 2 break, 3 jump to 1, 4 jump to 0
    flow = _compile("while $x\n  while $y\n    break\nbot b")
    assert 2 + flow.instructions[2].break_offset == 4
    assert 0 + flow.instructions[0].break_offset == 5


def test_branches_of_when_end_behind_the_last_one() -> None:
    # 0 branch, 1 user a, 2 bot b, 3 jump, 4 user c, 5 jump, 6 bot d, 7 jump, 8 bot e
    flow = _compile("when user a\n  bot b\nelse when user c\n  bot x\nelse\n  bot d\nbot e")
    branch = flow.instructions[0]
    assert branch.op == compiler.BRANCH
    assert [flow.instructions[offset].name for offset in branch.branch_offsets] == ["a", "c"]
    assert flow.instructions[branch.else_offset].name == "d"
    end = len(flow.instructions) - 1
    targets = [
        position + instruction.jump
        for position, instruction in enumerate(flow.instructions)
        if instruction.op == compiler.JUMP
    ]
    assert targets == [end] * 3


def test_goto_jumps_to_its_label_in_both_directions() -> None:
    flow = _compile("label start\ngoto end\nbot a\nlabel end\ngoto start")
    targets = {
        instruction.name: position + instruction.jump
        for position, instruction in enumerate(flow.instructions)
        if instruction.name.startswith("goto ")
    }
    assert targets == {"goto start": 0, "goto end": 3}


def test_return_is_a_jump_of_zero() -> None:
    (instruction,) = _compile("return").instructions
    assert (instruction.op, instruction.jump, instruction.name) == (compiler.JUMP, 0, "return")


def test_any_never_matches_as_in_nemo() -> None:
    assert _opcodes(_compile("user a or user b"))[0] == compiler.NEVER


def test_flow_properties_and_triggers() -> None:
    flow = _compile("priority 2\nuser a\ncreate event Ping(a=1)", "define continuous flow x")
    assert (flow.priority, flow.is_interruptible, flow.is_subflow) == (2.0, False, False)
    assert flow.trigger_types == compiler.BASE_TRIGGERS | {"Ping"}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("bot a\ngoto nowhere", "test.co:3: there is no label 'nowhere' in this flow"),
        ("label a\nlabel a", "test.co:3: the label 'a' is defined twice in this flow"),
        ("if (1 +\n  bot a", "test.co:2: '(1 +' is not an expression"),
        ("execute create_event", "test.co:2: an event is created by"),
    ],
)
def test_compile_errors_have_their_line(body: str, fault: str) -> None:
    with pytest.raises(PlanError) as caught:
        _compile(body)
    assert str(caught.value).startswith(fault)


def test_actionable_instructions() -> None:
    flow = _compile("user a\nbot b\nbot ...\nexecute f\n$x = 1")
    actionable = [instruction.actionable for instruction in flow.instructions]
    assert actionable == [False, True, False, True, False]


# -- program ---------------------------------------------------------------------------------------


def _program() -> Program:
    content = (
        "define flow first\n  user a\n  bot x\n\n"
        "define flow any intent\n  user ...\n  bot x\n\n"
        "define flow sliding\n  if $y\n    user a\n  bot x\n\n"
        "define flow second\n  label start\n  user a\n  bot y\n\n"
        "define flow event\n  event Ping\n  bot x\n\n"
        "define subflow sub\n  user a\n"
    )
    return Program(map(compile_flow, parse_colang("test.co", content).flows), ["pure"])


def _candidate_names(program: Program, op: int, name: str) -> list[str]:
    return [flow.id for flow in program.find_candidates(op, name)]


def test_candidates_in_order_of_precedence() -> None:
    program = _program()
    assert _candidate_names(program, compiler.USER, "a") == [
        "first",
        "any intent",
        "sliding",
        "second",
    ]
    assert _candidate_names(program, compiler.USER, "b") == ["any intent", "sliding"]
    assert _candidate_names(program, compiler.EVENT, "Ping") == ["sliding", "event"]


def test_the_first_flow_of_a_name_stands() -> None:
    program = _program()
    first = program.flows["first"]
    program.add(_compile("user z", "define flow first"))
    assert program.flows["first"] is first


def test_a_fork_is_independent() -> None:
    program = _program()
    fork = program.fork()
    fork.add(_compile("user b", "define flow new"))
    assert "new" in _candidate_names(fork, compiler.USER, "b")
    assert "new" not in _candidate_names(program, compiler.USER, "b")
    assert fork.pure_actions == program.pure_actions == {"pure", "create_event"}
