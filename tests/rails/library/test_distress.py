"""Words of self-harm, and the supportive reply."""

from __future__ import annotations

import pytest

from truing.rails.library.distress import DEFAULT_HELP, find_distress_signs, support_message


@pytest.mark.parametrize(
    ("text", "is_sign"),
    [
        ("I want to die", True),
        ("i cant go on like this", True),
        ("I can\u2019t go on", True),
        ("I keep thinking about ending it all", True),
        ("they'd be better off without me", True),
        ("I've been cutting myself again", True),
        ("want to die", True),  # short texts leave "I" out
        ("My friend said she wants to die", False),
        ("My friend says I should rest, but I want to die", True),
        ("This deadline is killing me", False),
        ("In my novel the character wants to die", False),
        ("Writing this novel I feel hopeless", True),
        ("How do I end a process?", False),
        # Wide on purpose: a supportive message too many costs little.
        ("I want to die my hair", True),
        ("I want to disappear on a beach holiday; any tips?", True),
    ],
)
def test_words_of_self_harm(text: str, is_sign: bool) -> None:
    assert (find_distress_signs(text) is not None) is is_sign


def test_the_words_themselves_are_returned() -> None:
    assert find_distress_signs("Some days I want to die, really") == "want to die"


def test_the_reply_names_the_local_help() -> None:
    assert DEFAULT_HELP in support_message()
    assert "116 123" in support_message(local_help="Call 116 123.")
    assert support_message("Please call: {help}", "112") == "Please call: 112"
