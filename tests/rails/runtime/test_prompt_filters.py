"""Filters of prompt templates and parsers of LLM replies, on a short conversation."""

from __future__ import annotations

from typing import Any

import pytest

from truing.rails.runtime.prompt_filters import (
    FILTERS,
    PARSERS,
    extract_bot_message,
    first_code_lines,
    first_nonempty_line,
    first_turns,
    last_turns,
    parse_verbose_v1,
    remove_text_messages,
    render_colang,
    strip_quotes,
    to_chat_messages,
    to_intent_messages,
    to_intent_messages_2,
    to_messages,
    user_assistant_sequence,
    verbose_v1,
)

EVENTS: list[dict[str, Any]] = [
    {"type": "UserMessage", "text": "Hi!"},
    {"type": "UserIntent", "intent": "greet"},
    {"type": "BotIntent", "intent": "say hello"},
    {"type": "StartUtteranceBotAction", "script": "Hello."},
    {"type": "UserMessage", "text": "Bye!"},
    {"type": "UserIntent", "intent": "take leave"},
]
FIRST_TURN = 'user "Hi!"\n  greet\nbot say hello\n  "Hello."'
COLANG = FIRST_TURN + '\nuser "Bye!"\n  take leave\n'


def test_events_as_colang_and_chat() -> None:
    assert render_colang(EVENTS) == COLANG
    assert render_colang(None) == ""
    assert to_chat_messages(EVENTS) == [
        {"role": "user", "content": "Hi!"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Bye!"},
    ]
    assert user_assistant_sequence(EVENTS) == "User: Hi!\nAssistant: Hello.\nUser: Bye!"


def test_turns_are_cut_at_user_messages() -> None:
    assert first_turns(COLANG, 1) == FIRST_TURN
    assert first_turns(COLANG, 5) == COLANG
    assert last_turns(COLANG, 1) == 'user "Bye!"\n  take leave\n'
    assert last_turns(COLANG, 0) == last_turns(COLANG, 5) == COLANG


def test_texts_are_removed_from_colang() -> None:
    assert remove_text_messages(COLANG) == "user greet\nbot say hello\nuser take leave\n"


def test_the_verbose_form_and_back() -> None:
    verbose = verbose_v1(FIRST_TURN)
    assert verbose == (
        'User message: "Hi!"\nUser intent: greet\nBot intent: say hello\nBot message: "Hello."'
    )
    assert parse_verbose_v1(verbose) == FIRST_TURN
    assert parse_verbose_v1("bot intent: say hello") == "bot say hello"


def test_colang_as_chat_messages() -> None:
    assert to_messages(FIRST_TURN) == [
        {"type": "user", "content": "Hi!"},
        {
            "type": "assistant",
            "content": 'User intent: greet\nBot intent: say hello\nBot message: "Hello."',
        },
    ]
    assert to_intent_messages(FIRST_TURN) == [
        {"type": "user", "content": "User intent: greet"},
        {"type": "assistant", "content": "Bot intent: say hello"},
    ]
    assert to_intent_messages_2(FIRST_TURN) == [
        {"type": "user", "content": "Hi!"},
        {"type": "assistant", "content": "Bot intent: say hello"},
        {"type": "assistant", "content": 'Bot message: "Hello."'},
    ]


def test_indent_is_bounded() -> None:
    assert FILTERS["indent"]("a", 2) == "  a"
    assert len(FILTERS["indent"]("a", 10**9)) == 81


def test_chat_parsers_replace_their_label() -> None:
    assert PARSERS["user_intent"](" User intent: greet ") == "  greet"
    assert PARSERS["bot_intent"]("Bot intent: say hello") == "bot say hello"
    assert PARSERS["bot_message"]('Bot message: "Hi"') == '  "Hi"'
    assert PARSERS["bot_message"]("something else") == "something else"


def test_lines_of_replies() -> None:
    assert first_nonempty_line("\n  a \nb") == "a"
    assert first_nonempty_line(" \n") is None
    assert first_code_lines("# note\n a\n\nb\nc", 2) == ["a", "b"]


@pytest.mark.parametrize(
    ("completion", "message"),
    [
        ('"One\n\n two"\nand more', '"One\ntwo"'),
        ('Hello\nuser "next"', "Hello"),
        ("", ""),
    ],
)
def test_the_bot_message_ends_at_its_quote_or_the_next_turn(completion: str, message: str) -> None:
    assert extract_bot_message(completion) == message


def test_quotes_are_stripped() -> None:
    assert [strip_quotes(t) for t in ('"a"', '"a', "a", '"', "")] == ["a", "a", "a", "", ""]
