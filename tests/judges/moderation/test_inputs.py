"""Token rows: the three modes, windows, dialogues, invalid text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers

from truing.core.types import Conversation, Message
from truing.judges.moderation.inputs import (
    InputEncoder,
    ModerationInput,
    build_input_encoder,
    cut_middle,
)


def make_tokenizer() -> Tokenizer:
    """Returns a tokenizer of the words w0 to w39, whose ids are 3 to 42."""
    words = ["[UNK]", "[CLS]", "[SEP]", *(f"w{n}" for n in range(40))]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def make_encoder(prompt: int = 8, response: int = 8) -> InputEncoder:
    return InputEncoder(make_tokenizer(), prompt=prompt, response=response, cls=1, sep=2)


def make_words(first: int, last: int) -> str:
    return " ".join(f"w{n}" for n in range(first, last))


def test_rows_of_the_three_modes() -> None:
    inputs = [
        ModerationInput(("w0 w1",), "w2"),
        ModerationInput(("w0 w1",)),
        ModerationInput((), "w2"),
    ]
    pair, prompt, response = make_encoder().encode(inputs)
    assert pair.ids == (1, 3, 4, 2, 5, 2) and pair.segments == (0, 0, 0, 0, 1, 1)
    assert prompt.ids == (1, 3, 4, 2) and response.ids == (1, 2, 5, 2)
    assert [i.mode for i in inputs] == ["pair", "prompt", "response"]
    assert ModerationInput((" ",), "b").mode == "response"
    assert make_encoder().encode([]) == []


def test_long_sides_keep_head_and_tail() -> None:
    text = make_words(0, 20)
    (row,) = make_encoder().encode([ModerationInput((text,), text)])
    prompt, response = row.ids[1:9], row.ids[10:18]
    assert prompt == (3, 4, 5, 6, 19, 20, 21, 22)
    assert response == (3, 4, 5, 6, 7, 8, 21, 22)
    assert row.cut == 24


def test_cut_middle() -> None:
    assert cut_middle([1, 2, 3], 5, 0.5) == [1, 2, 3]
    assert cut_middle(range(10), 4, 0.75) == [0, 1, 2, 9]
    assert cut_middle(range(10), 4, 1.0) == [0, 1, 2, 3]


def test_the_newest_turn_of_a_dialogue_comes_first() -> None:
    turns = (make_words(20, 40), make_words(0, 5), "w9")
    (row,) = make_encoder(prompt=16).encode([ModerationInput(turns, "w1")])
    assert row.ids == (1, *range(35, 43), 2, 3, 4, 5, 6, 7, 2, 12, 2, 4, 2)
    assert row.cut == 12


def test_an_earlier_turn_that_would_get_few_tokens_is_left_out() -> None:
    (row,) = make_encoder(prompt=12).encode([ModerationInput((make_words(0, 9), "w9 w8 w7 w6"))])
    assert row.ids == (1, 12, 11, 10, 9, 2)  # 7 tokens would be left for the first turn
    assert row.cut == 10  # its nine tokens and the separator


def test_training_reads_the_turns_of_user_and_assistant() -> None:
    conversation = Conversation(
        (
            Message("system", "s"),
            Message("user", "u"),
            Message("assistant", "a"),
            Message("tool", "t"),
        )
    )
    assert ModerationInput.from_conversation(conversation, "r").turns == ("u", "a")


def test_a_lone_surrogate_is_no_error() -> None:
    (row,) = make_encoder().encode([ModerationInput(("w0 \udcff",), "w1")])
    assert row.ids[1] == 3


def test_a_tokenizer_of_a_language_model_lends_its_begin_and_end_tokens() -> None:
    tokenizer: Any = SimpleNamespace(
        backend_tokenizer=make_tokenizer(),
        cls_token_id=None,
        sep_token_id=None,
        bos_token_id=7,
        eos_token_id=8,
    )
    encoder = build_input_encoder(tokenizer, prompt=8, response=8)
    assert encoder.encode([ModerationInput(("w0",), "w1")])[0].ids == (7, 3, 8, 4, 8)
