"""Single statements: the normal form, parameters, and the nodes."""

from __future__ import annotations

from typing import Any

import pytest

from truing.rails.colang import ast
from truing.rails.colang.lexer import LogicalLine, leading_keyword
from truing.rails.colang.statements import (
    ColangSyntaxError,
    Statement,
    normalise_statement,
    parse_indented_parameters,
    parse_meta,
    parse_step,
    split_bot_message,
)


def _statement(text: str, *indented: str) -> Statement:
    """A statement in line 7, with indented lines; their own indentation counts from it."""
    normal = normalise_statement(text)
    lines = [
        LogicalLine(line.strip(), 8 + index, 4 + len(line) - len(line.lstrip()))
        for index, line in enumerate(indented)
    ]
    return Statement(LogicalLine(text, 7, 2, "a comment"), normal, leading_keyword(normal), lines)


def _parse(text: str, *indented: str) -> Any:
    return parse_step(_statement(text, *indented))


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("bot  greet:", "bot greet"),
        ("def flow a", "define flow a"),
        ("user says hello", "user hello"),
        ("user something else", "user *"),
        ("execute f", "run f"),
        ("$x = execute f(a=1)", "run $x = f(a=1)"),
        ("$x = 3", "set $x = 3"),
        ("$x += 2", "set $x = $x + 2"),
        ("create event Ping", "infer event Ping"),
        ("create Ping", "infer Ping"),
        ("when Ping", "when event Ping"),
        ("when user a", "when user a"),
        ("priority 2", 'meta {"priority": 2}'),
    ],
)
def test_short_forms_have_one_normal_form(text: str, normal: str) -> None:
    assert normalise_statement(text) == normal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user ask price", ast.UserIntent(intent="ask price")),
        ("user ask price as $intent", ast.UserIntent(intent="ask price", variable="intent")),
        ("user ask price with $x", ast.UserIntent(intent="ask price")),
        ('user "hello"', ast.UserIntent(intent="hello")),
        ("bot greet", ast.BotMessage(intent="greet")),
        ('bot "Hi!"', ast.BotMessage(text="Hi!")),
        ('bot greet "Hi!"', ast.BotMessage(intent="greet")),
        ("bot $name", ast.BotMessage(intent="$name")),
        ("stop", ast.BotMessage(intent="stop")),
        ("event Ping(a=1)", ast.MatchEvent(type="Ping", fields={"a": 1})),
        (
            "create event Ping(a=$b)",
            ast.CreateEvent(event=ast.MatchEvent(type="Ping", fields={"a": "$b"}, line=7)),
        ),
        ("execute f", ast.ExecuteAction(action="f")),
        (
            '$x = execute my action(a=[1, 2], b="c, d")',
            ast.ExecuteAction(action="my action", params={"a": [1, 2], "b": "c, d"}, result="x"),
        ),
        ("execute f($a, $b)", ast.ExecuteAction(action="f", params={"$1": "$a", "$2": "$b"})),
        ("do greet", ast.CallFlow(flow="greet")),
        ("do greet(n=4)", ast.CallFlow(flow="greet", params={"n": 4})),
        ("do $flow", ast.CallFlow(flow="$flow")),
        ("$x = $y + 1", ast.Assign(variable="x", expression="$y + 1")),
        ("check $x", ast.CheckCondition(expression="$x")),
        ("label again", ast.FlowLabel(name="again")),
        ("goto again", ast.Goto(label="again")),
        ("go to again", ast.Goto(label="again")),
        ("break", ast.Break()),
        ("pass", ast.Continue()),
        ("done", ast.Return()),
    ],
)
def test_each_statement_has_its_node(text: str, expected: ast.FlowStep) -> None:
    expected.line, expected.comment = 7, "a comment"
    if isinstance(expected, ast.CreateEvent):
        expected.event.comment = "a comment"
    assert _parse(text) == expected


def test_alternatives_of_a_user_statement() -> None:
    step = _parse("user a or user b")
    assert isinstance(step, ast.AnyOf)
    assert [alternative.intent for alternative in step.steps] == ["a", "b"]  # type: ignore[attr-defined]


def test_indented_parameters_are_merged_with_inline_ones() -> None:
    step = _parse("execute f(a=1)", "b: 2", "c 3")
    assert step.params == {"a": 1, "b": 2, "c": 3}


def test_create_may_have_its_event_on_the_next_line() -> None:
    assert _parse("create", "event Ping(a=1)").event.type == "Ping"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["a: 1"], {"a": 1}),
        (["a 1"], {"a": 1}),
        (["a = 1"], {"a": 1}),
        (["$a: x"], {"a": "x"}),
        (["a: x, y"], {"a": ["x", "y"]}),
        (["a x, y"], {"a": ["x", "y"]}),
        (["a", "  b: 1"], {"a": {"b": 1}}),
        (["a: {b: [1, 2]}"], {"a": {"b": [1, 2]}}),
        ([], {}),
    ],
)
def test_indented_parameters(lines: list[str], expected: dict[str, Any]) -> None:
    assert parse_indented_parameters(_statement("execute f", *lines).indented_lines) == expected


def test_split_bot_message() -> None:
    assert split_bot_message("greet user") == ("greet user", None)
    assert split_bot_message('greet "Hi!"') == ("greet", '"Hi!"')
    assert split_bot_message('"Hi!"') == ("", '"Hi!"')
    assert split_bot_message("greet with $name, n=1") == ("greet", None)
    with pytest.raises(ValueError, match="only one quoted text"):
        split_bot_message('greet "Hi!" "Ho!"')


def test_parse_meta() -> None:
    assert parse_meta(_statement("priority 2.5")) == {"priority": 2.5}
    assert parse_meta(_statement("meta", "is_extension: true")) == {"is_extension": True}
    with pytest.raises(ColangSyntaxError, match="cannot be read"):
        parse_meta(_statement("meta {priority"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user", "an intent is missing"),
        ("user a or b", "expected 'user b' after 'or'"),
        ("bot", "is missing after 'bot'"),
        ("bot {x}", "not supported"),
        ("execute f(a=1", "is not closed"),
        ("execute f(a=x)", "neither a literal nor a \\$variable"),
        ("execute f(a==1=2)", "is not of the form name=value"),
        ("execute f(a='" + "x" * 10_001 + "')", "too long"),
        ("execute", "unknown statement"),
        ("do", "a subflow's name is missing"),
        ("do greet $n=4", "stand in parentheses: do greet\\(name=value\\)"),
        ("do greet loudly n=4", "stand in parentheses"),
        ("create", "an event is missing"),
        ("create run f", "expected 'create event"),
        ("set $x", "expected \\$name = expression"),
        ("goto", "a label's name is missing"),
        ("label", "expected a label's name"),
        ("unheard of", "unknown statement 'unheard'"),
    ],
)
def test_malformed_statements_have_their_line(text: str, message: str) -> None:
    with pytest.raises(ColangSyntaxError, match=message) as caught:
        _parse(text)
    assert caught.value.line == 7
