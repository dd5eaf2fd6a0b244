"""Files of Colang 1.0 as syntax trees, and syntax errors with their place."""

from __future__ import annotations

from typing import Any

import pytest

from truing.core.errors import PlanError
from truing.rails.colang import ast
from truing.rails.colang.parser import is_colang_2, parse_colang, walk_steps


def _parse_steps(body: str) -> list[Any]:
    lines = "".join(f"  {line}\n" for line in body.strip("\n").split("\n"))
    (flow,) = parse_colang("test.co", f"define flow x\n{lines}").flows
    return list(flow.steps)


def test_the_definitions_of_a_file() -> None:
    tree = parse_colang(
        "test.co",
        "import lib\n"
        'define user greet\n  "hello"\n\n'
        'define bot reply\n  "Hi!"\n\n'
        "define subflow check\n  user greet\n  bot reply\n",
    )
    assert tree.imports == ["lib"]
    assert tree.user_messages == {"greet": ["hello"]}
    assert tree.bot_messages == {"reply": [ast.BotText("Hi!", 6)]}
    assert tree.definition_lines == {("user", "greet"): 2, ("bot", "reply"): 5}
    (flow,) = tree.flows
    assert (flow.name, flow.file, flow.line, flow.meta) == (
        "check",
        "test.co",
        8,
        {"subflow": True},
    )
    assert flow.steps == [ast.UserIntent(9, None, "greet"), ast.BotMessage(10, None, "reply")]
    assert flow.source == "user greet\nbot reply"


def test_else_if_is_a_nested_if() -> None:
    (step,) = _parse_steps("if $a\n  bot a\nelse if $b\n  bot b\nelse\n  bot c")
    assert (step.condition, step.body[0].intent) == ("$a", "a")
    (nested,) = step.orelse
    assert (nested.condition, nested.body[0].intent) == ("$b", "b")
    assert nested.orelse[0].intent == "c"


def test_while_and_the_statement_after_it() -> None:
    loop, after = _parse_steps("while $n\n  $n = $n - 1\n  break\nbot done")
    assert [type(step) for step in loop.body] == [ast.Assign, ast.Break]
    assert after.intent == "done"


def test_when_branches_start_with_what_they_wait_for() -> None:
    (step,) = _parse_steps(
        "when user agree\n  bot thank\nelse when event Ping\n  stop\nelse\n  bot ask"
    )
    assert [type(branch[0]) for branch in step.branches] == [ast.UserIntent, ast.MatchEvent]
    assert [len(branch) for branch in step.branches] == [2, 2]
    assert [inner.intent for inner in step.orelse] == ["ask"]


def test_when_no_runs_its_body_on_anything_else() -> None:
    (step,) = _parse_steps("when no user agree\n  bot ask")
    assert [branch[0].intent for branch in step.branches] == ["agree"]
    assert [len(branch) for branch in step.branches] == [1]
    assert [inner.intent for inner in step.orelse] == ["ask"]


def test_any_holds_its_alternatives() -> None:
    (step,) = _parse_steps("any\n  user a\n  user b")
    assert [alternative.intent for alternative in step.steps] == ["a", "b"]


def test_texts_in_a_flow_define_the_message() -> None:
    tree = parse_colang("test.co", 'define flow x\n  bot a "Inline"\n  bot b\n    "Below"\n')
    assert tree.bot_messages == {
        "a": [ast.BotText("Inline", 2)],
        "b": [ast.BotText("Below", 4)],
    }
    assert [step.intent for step in tree.flows[0].steps] == ["a", "b"]  # type: ignore[attr-defined]


def test_meta_and_modifiers_set_flow_properties() -> None:
    content = "define parallel flow x\n  priority 2\n  meta\n    is_extension: true\n  bot a\n"
    (flow,) = parse_colang("test.co", content).flows
    assert flow.meta == {"priority": 2, "is_extension": True, "allow_multiple": True}


def test_equal_anonymous_flows_are_one_flow() -> None:
    body = "define flow\n  user a\n  bot b\n\n"
    assert len(parse_colang("test.co", body * 2).flows) == 1


def test_walk_steps_yields_nested_steps_in_order() -> None:
    steps = _parse_steps(
        "if $a\n  bot one\nelse\n  while $b\n    bot two\nwhen user x\n  bot three\nelse\n  bot four"
    )
    messages = [step.intent for step in walk_steps(steps) if isinstance(step, ast.BotMessage)]
    assert messages == ["one", "two", "three", "four"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("define flow x\n  else\n    bot a\n", "2: 'else' without an 'if' or 'when' above it"),
        ("define flow x\n  else if $a\n    bot a\n", "2: 'else if' without an 'if' above it"),
        ("define flow x\n  priority 2\n", "1: the flow 'x' has no steps"),
        (
            "define flow x\n  bot a\ndefine flow x\n  bot b\n",
            "3: the flow 'x' is already defined in line 1",
        ),
        ("define flow x\n  execute f(a=b)\n", "2: 'b' is neither a literal nor a $variable"),
        (
            "define flow x\n  when no user a\n    bot b\n  else\n    bot c\n",
            "2: 'when no ...' takes no other branch",
        ),
        ("flow main\n  match UserSaid\n", "1: this is Colang 2"),
    ],
)
def test_syntax_errors_have_file_and_line(content: str, fault: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse_colang("test.co", content)
    assert str(caught.value).startswith(f"test.co:{fault}")


def test_the_fault_of_each_definition_is_reported() -> None:
    content = (
        "define flow x\n  bot\n"
        'define user ask\n  "hi"\n'
        "  define flow y\n    if\n      bot a\n"
        "define bot tell\n"
        "define flow x\n  bot a\n"
        "define flow z\n  bot a\ndefine flow z\n  bot b\n"
    )
    with pytest.raises(PlanError) as caught:
        parse_colang("test.co", content)
    assert caught.value.faults == (
        "test.co:2: a name, a $variable or a text is missing after 'bot'",
        "test.co:6: a condition is missing after 'if'",
        "test.co:8: expected an indented block after 'define bot'",
        "test.co:13: the flow 'z' is already defined in line 11",
    )


def test_the_number_of_reported_faults_is_bounded() -> None:
    with pytest.raises(PlanError) as caught:
        parse_colang("test.co", "define flow x\n  bot\n" * 1000)
    assert len(caught.value.faults) == 20


def test_is_colang_2() -> None:
    assert is_colang_2('"""Says define."""\nflow main\n  await a\n')
    assert not is_colang_2("flow a\ndefine flow b\n  bot c\n")
    assert not is_colang_2("# flow main\n")
