"""Tricks undone, ordinary English left alone; windows cut with care."""

from __future__ import annotations

import time

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from truing.core.types import Conversation, Message
from truing.judges.moderation.inputs import InputEncoder, ModerationInput, cut_middle
from truing.judges.moderation.text_cleaning import clean_text, clip_middle


@pytest.mark.parametrize(
    "text",
    [
        "How do I kill a Python process?",
        "I paid $100 for a B2B course on the 3rd.",
        "A naïve café in São Paulo.",
        "Wait... what?",
        "U.S. law, e.g. in 2024.",
        "a b testing",
        "line one\nline two",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("s t e a l the car", "steal the car"),
        ("s.t.e.a.l", "steal"),
        ("st\u200beal", "steal"),
        ("ste\u0430l", "steal"),
        ("ｓｔｅａｌ", "steal"),
        ("st3al it", "steal it"),
        ("sooooo bad", "soo bad"),
        ("b\u00adad", "bad"),
    ],
)
def test_tricks_are_undone(text: str, plain: str) -> None:
    assert clean_text(text) == plain


def test_a_long_text_costs_little() -> None:
    long = "and so it goes on " * 6000
    assert len(clip_middle(long)) < 20_100 and len(long) > 100_000
    started = time.perf_counter()
    clean_text(long)
    clean_text("a." * 50_000)
    assert time.perf_counter() - started < 2.0


def _rows(prompt: int = 8, response: int = 8) -> InputEncoder:
    words = {w: i for i, w in enumerate(["[UNK]", "[CLS]", "[SEP]", *(f"w{n}" for n in range(40))])}
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return InputEncoder(raw, prompt=prompt, response=response, cls=1, sep=2)


def _words(first: int, last: int) -> str:
    return " ".join(f"w{n}" for n in range(first, last))


def test_pair_prompt_and_response_rows() -> None:
    pair, prompt, response = _rows().encode(
        [ModerationInput(("w0 w1",), "w2"), ModerationInput(("w0 w1",)), ModerationInput((), "w2")]
    )
    assert pair.ids == (1, 3, 4, 2, 5, 2) and pair.segments == (0, 0, 0, 0, 1, 1)
    assert prompt.ids == (1, 3, 4, 2) and response.ids == (1, 2, 5, 2)
    assert [
        ModerationInput(("a",), "b").mode,
        ModerationInput(("a",)).mode,
        ModerationInput((" ",), "b").mode,
    ] == [
        "pair",
        "prompt",
        "response",
    ]


def test_long_sides_keep_head_and_tail() -> None:
    (row,) = _rows().encode([ModerationInput((_words(0, 20),), _words(0, 20))])
    prompt, response = row.ids[1:9], row.ids[10:18]
    assert prompt == (3, 4, 5, 6, 19, 20, 21, 22) and response == (3, 4, 5, 6, 7, 8, 21, 22)
    assert row.cut == 24
    assert cut_middle([1, 2, 3], 5, 0.5) == [1, 2, 3]


def test_of_a_dialogue_the_newest_turn_comes_first() -> None:
    (row,) = _rows(prompt=16).encode([ModerationInput((_words(20, 40), _words(0, 5), "w9"), "w1")])
    assert row.ids == (1, *range(35, 43), 2, 3, 4, 5, 6, 7, 2, 12, 2, 4, 2)
    assert row.cut == 12


def test_system_and_tool_messages_say_nothing() -> None:
    told = Conversation(
        (
            Message("system", "s"),
            Message("user", "u"),
            Message("assistant", "a"),
            Message("tool", "t"),
        )
    )
    assert ModerationInput.of(told, "r").turns == ("u", "a")


def test_lone_surrogates_have_no_token_but_do_not_break() -> None:
    (row,) = _rows().encode([ModerationInput(("w0 \udcff",), "w1")])
    assert row.ids[1] == 3
