"""The bodies of message definitions: examples of intents, texts of bot messages with conditions."""

from __future__ import annotations

import pytest

from truing.rails.colang.ast import BotText, ColangFile
from truing.rails.colang.lexer import read_logical_lines
from truing.rails.colang.messages import add_bot_texts, add_user_examples
from truing.rails.colang.statements import ColangSyntaxError


def _examples(body: str) -> list[str]:
    tree = ColangFile()
    add_user_examples("greet", read_logical_lines(body), tree)
    return tree.user_messages["greet"]


def _texts(body: str) -> list[BotText]:
    tree = ColangFile()
    add_bot_texts("greet", read_logical_lines(body), tree)
    return tree.bot_messages["greet"]


def test_quoted_and_bare_examples() -> None:
    assert _examples('  "hello"\n  hi there\n') == ["hello", "hi there"]


def test_an_intent_without_examples_has_its_name_as_example() -> None:
    assert _examples("") == ["greet"]


def test_parameters_in_examples_become_placeholders() -> None:
    assert _examples('  "fly to [Oslo](city)"\n  "call me $name"\n') == [
        "fly to {city}",
        "call me {name}",
    ]


def test_declarations_of_parameters_are_no_examples() -> None:
    assert _examples('  param city\n  "hello"\n') == ["hello"]


def test_items_of_a_text_over_several_lines_are_examples_of_their_own() -> None:
    assert _examples('  "hello\n  - hi\n  dropped\n  * hey"\n') == ["hello", "hi", "hey"]


def test_texts_of_a_bot_message_have_their_lines() -> None:
    assert _texts('  "Hello!"\n  "Hi `name`!"\n') == [BotText("Hello!", 1), BotText("Hi $name!", 2)]


def test_texts_under_if_and_else_have_conditions() -> None:
    body = (
        "  if $a\n"
        '    "first"\n'
        "  else if $b\n"
        '    "second"\n'
        "  else\n"
        "    if $c:\n"
        '      "third"\n'
        '  "always"\n'
    )
    assert [(text.text, text.conditions) for text in _texts(body)] == [
        ("first", ("$a",)),
        ("second", ("not ($a)", "$b")),
        ("third", ("not ($a)", "not ($b)", "$c")),
        ("always", ()),
    ]


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("  else\n", 1, "'else' without an 'if'"),
        ('  "ok"\n  hello\n', 2, "expected a quoted text in 'define bot greet'"),
        ('  "\n', 1, "is not closed"),
    ],
)
def test_errors_in_bot_messages(body: str, line: int, message: str) -> None:
    with pytest.raises(ColangSyntaxError, match=message) as caught:
        _texts(body)
    assert caught.value.line == line


def test_a_bot_message_in_an_intent_is_an_error() -> None:
    with pytest.raises(ColangSyntaxError, match="write a flow"):
        _examples("  bot greet\n")
