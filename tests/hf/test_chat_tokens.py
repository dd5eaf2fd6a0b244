"""Conversations as token ids: with a template, as plain turns, and cut to the window."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from truing.core.errors import UserError
from truing.core.types import Message
from truing.hf.chat_tokens import AnswerTooLong, ChatTokenizer, truncate_prompt

QUESTION = [Message("system", "s"), Message("user", "q")]


class CharacterTokenizer:
    """One token for each character; `^` and `$` are the special tokens."""

    eos_token_id: int | None = ord("$")
    sep_token_id: int | None = None
    chat_template: str | None = "template"

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
        ids = [ord(c) for c in text]
        return SimpleNamespace(input_ids=[ord("^"), *ids] if add_special_tokens else ids)

    def apply_chat_template(
        self, rows: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        if rows and rows[-1]["content"] == "raise":
            raise ValueError("roles must alternate")
        turns = "".join(f"<{row['role'][0]}>{row['content']}$\n" for row in rows)
        return turns + ("<a>" if add_generation_prompt else "")


class SeparatorTokenizer(CharacterTokenizer):
    """Like BERT's: no end token, a separator after each text."""

    eos_token_id = None
    sep_token_id = ord("|")
    chat_template = None

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
        encoding = super().__call__(text, add_special_tokens=add_special_tokens)
        if add_special_tokens:
            encoding.input_ids.append(self.sep_token_id)
        return encoding


def decode(ids: list[int]) -> str:
    return "".join(map(chr, ids))


def test_template_writes_its_own_special_tokens() -> None:
    chat = ChatTokenizer(CharacterTokenizer())
    assert decode(chat.encode_prompt(QUESTION)) == "<s>s$\n<u>q$\n<a>"
    # The line break that the template writes after the end token is not part of the answer.
    assert decode(chat.encode_answer(QUESTION, "yes")) == "yes$"


def test_plain_turns_start_with_a_special_token() -> None:
    chat = ChatTokenizer(CharacterTokenizer(), plain=True)
    assert decode(chat.encode_prompt(QUESTION)) == "^System: s\n\nUser: q\n\nAssistant:"
    assert decode(chat.encode_answer(QUESTION, "yes")) == " yes$"
    assert chat.render([*QUESTION, Message("assistant", "yes")]).endswith("Assistant: yes")


def test_separator_ends_an_answer_but_not_a_prompt() -> None:
    chat = ChatTokenizer(SeparatorTokenizer())
    assert chat.plain
    assert decode(chat.encode_prompt([Message("user", "q")])) == "^User: q\n\nAssistant:"
    assert decode(chat.encode_answer([Message("user", "q")], "a")) == " a|"


def test_row_keeps_the_answer_and_the_end_of_the_prompt() -> None:
    chat = ChatTokenizer(CharacterTokenizer())
    row = decode(chat.encode_row(QUESTION, "yes", window=14))
    assert row == "\n<u>q$\n<a>yes$"
    with pytest.raises(AnswerTooLong):
        chat.encode_row(QUESTION, "yes", window=11)


def test_truncate_prompt_keeps_at_least_eight_tokens() -> None:
    prompt = list(range(20))
    assert truncate_prompt(prompt, 5, 30) == prompt
    assert truncate_prompt(prompt, 5, 13) == list(range(12, 20))
    assert truncate_prompt([1, 2], 5, 7) == [1, 2]
    for answer_length, window in ((5, 12), (8, 8)):
        with pytest.raises(AnswerTooLong):
            truncate_prompt(prompt, answer_length, window)


def test_errors_name_the_model() -> None:
    class NoEnd(CharacterTokenizer):
        eos_token_id = None

    with pytest.raises(UserError, match="m: the tokenizer has no end token"):
        ChatTokenizer(NoEnd(), name="m")
    with pytest.raises(UserError, match="m: the chat template refuses .*: roles must alternate"):
        ChatTokenizer(CharacterTokenizer(), name="m").render([Message("user", "raise")])
