"""Text as token rows: the answer's own tokens and its end, where pad is the end token and prompts are long."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")
from tests.models.local.conftest import tokenizer
from tests.train.parts import item, settings

from truing.core.errors import UserError
from truing.core.types import Conversation, Message
from truing.hf.chat_tokens import AnswerTooLong, ChatTokenizer
from truing.train.batches import ExampleEncoder, collate_examples


def encoder(**more: Any) -> ExampleEncoder:
    return ExampleEncoder(tokenizer(), settings(more.pop("kind", "dpo"), "out", "base", **more))


def test_the_end_token_is_part_of_the_answer_although_it_pads() -> None:
    made = encoder()
    words = made.tokenizer
    assert words.pad_token_id == words.eos_token_id == made.eos_token_id
    coded = [made.encode(item(k)) for k in range(3)]
    rows = collate_examples(coded, words.pad_token_id)
    for k, one in enumerate(coded):
        assert (
            one.answers[0][-1] == made.eos_token_id and one.answers[0].count(made.eos_token_id) == 1
        )
        assert words.decode(one.answers[0][:-1]) == one.item.answers[0]
        assert int(rows.mask[k].sum()) == len(one.row(0)) and int(rows.answer[k].sum()) == len(
            one.answers[0]
        )
        last = len(one.row(0)) - 1
        assert (
            int(rows.ids[k, last]) == made.eos_token_id
            and int(rows.answer[k, last]) == 1
            and int(rows.mask[k, last]) == 1
        )
        assert words.decode(one.prompt).endswith("<|im_start|>assistant\n")


def test_a_cut_answer_teaches_no_end() -> None:
    made = encoder()
    whole, cut = made.encode(item(0)), made.encode(item(0, cut=True))
    assert cut.answers[0] == whole.answers[0][:-1]


def test_long_prompts_give_way_long_answers_do_not() -> None:
    made = encoder(max_length=64)
    long = item(0, conversation=Conversation.of("wheel " * 300))
    one = made.encode(long)
    assert max(len(one.row(0)), len(one.row(1))) == 64 and made.tokenizer.decode(
        one.prompt
    ).endswith("assistant\n")
    with pytest.raises(AnswerTooLong):
        made.encode(item(0, answers=("wheel " * 300, "no")))
    kept, left = made.all([item(0), item(1, answers=("wheel " * 300, "no"))])
    assert len(kept) == 1 and left == ["pairs#1"]


def test_all_turns_of_a_dialogue() -> None:
    made = encoder(kind="sft", turns="all")
    turns = (Message("user", "Q one"), Message("assistant", "A one"), Message("user", "Q two"))
    one = made.encode(item(0, conversation=Conversation(turns), answers=("A two",)))
    ids, marks = one.row(0), one.mark(0)
    assert len(ids) == len(marks)
    learned = made.tokenizer.decode([i for i, m in zip(ids, marks) if m])
    assert learned == "A one<|im_end|>A two<|im_end|>"
    whole = made.render([*turns, Message("assistant", "A two")])
    assert made.tokenizer.decode(ids) == whole.rstrip("\n")


def test_plain_turns_where_there_is_no_template() -> None:
    bare = tokenizer(template=False)
    with pytest.raises(UserError, match="--template plain"):
        ExampleEncoder(bare, settings("dpo", "out", "base"))
    made = ExampleEncoder(bare, settings("dpo", "out", "base", template="plain"))
    one = made.encode(item(0))
    assert bare.decode(one.prompt) == "User: How do I true a wheel, part 0?\n\nAssistant:"
    assert one.answers[0][-1] == made.eos_token_id
    alone = ChatTokenizer(tokenizer(), plain=True)
    assert (
        alone.render([Message("user", "Q"), Message("assistant", "A")]) == "User: Q\n\nAssistant: A"
    )


def test_a_template_that_fails_and_a_tokenizer_without_an_end() -> None:
    words = tokenizer()
    words.chat_template = "{{ raise_exception('only users') }}"
    with pytest.raises(UserError, match="the chat template refuses a conversation: only users"):
        ChatTokenizer(words, name="x").render([Message("user", "Q")])
    none = tokenizer()
    none.eos_token = None
    with pytest.raises(UserError, match="no end token"):
        ChatTokenizer(none)


def test_items_are_values() -> None:
    assert msgspec.structs.replace(item(0), name="x").name == "x"
