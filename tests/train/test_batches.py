"""Encoding and padding: answer masks, the end token, prompts that are cut, dialogues."""

from __future__ import annotations

from typing import Any

import pytest
from tests.models.local.conftest import tokenizer
from tests.train.builders import make_example, make_settings

from truing.core.errors import UserError
from truing.core.types import Conversation, Message
from truing.hf.chat_tokens import AnswerTooLong, ChatTokenizer
from truing.train.batches import ExampleEncoder, collate_examples, pad_batch


def make_encoder(kind: str = "dpo", **fields: Any) -> ExampleEncoder:
    """Returns an encoder whose pad token is its end token."""
    return ExampleEncoder(tokenizer(), make_settings(kind, "out", "base", **fields))


def test_the_end_token_is_part_of_the_answer_although_it_is_the_pad_token() -> None:
    encoder = make_encoder()
    decode, end = encoder.tokenizer.decode, encoder.eos_token_id
    assert encoder.tokenizer.pad_token_id == end
    encoded = [encoder.encode(make_example(k)) for k in range(3)]
    batch = collate_examples(encoded, end)
    for row, example in enumerate(encoded):
        answer = example.answers[0]
        assert answer[-1] == end and answer.count(end) == 1
        assert decode(answer[:-1]) == example.item.answers[0]
        assert decode(example.prompt).endswith("<|im_start|>assistant\n")

        length = len(example.token_ids())
        assert int(batch.mask[row].sum()) == length
        assert int(batch.answer_mask[row].sum()) == len(answer)
        assert int(batch.ids[row, length - 1]) == end
        assert int(batch.mask[row, length - 1]) == int(batch.answer_mask[row, length - 1]) == 1


def test_pairs_are_collated_as_all_first_and_then_all_second_answers() -> None:
    encoder = make_encoder()
    encoded = [encoder.encode(make_example(k)) for k in range(2)]
    batch = collate_examples(encoded, encoder.eos_token_id)
    expected = [encoded[0].token_ids(0), encoded[1].token_ids(0)]
    expected += [encoded[0].token_ids(1), encoded[1].token_ids(1)]
    for row, ids in enumerate(expected):
        assert tuple(batch.ids[row, : len(ids)].tolist()) == ids


def test_rows_are_padded_on_the_right() -> None:
    batch = pad_batch([(5, 6), (7, 8, 9)], [(0, 1), (0, 1, 1)], pad_id=3)
    assert batch.ids.tolist() == [[5, 6, 3], [7, 8, 9]]
    assert batch.mask.tolist() == [[1, 1, 0], [1, 1, 1]]
    assert batch.answer_mask.tolist() == [[0, 1, 0], [0, 1, 1]]


def test_a_cut_answer_has_no_end_token() -> None:
    encoder = make_encoder()
    whole = encoder.encode(make_example(0))
    cut = encoder.encode(make_example(0, cut=True))
    assert cut.answers[0] == whole.answers[0][:-1]


def test_long_prompts_are_cut_and_long_answers_are_refused() -> None:
    encoder = make_encoder(max_length=64)
    encoded = encoder.encode(make_example(0, conversation=Conversation.of("wheel " * 300)))
    assert max(len(encoded.token_ids(0)), len(encoded.token_ids(1))) == 64
    assert encoder.tokenizer.decode(encoded.prompt).endswith("assistant\n")
    too_long = make_example(1, answers=("wheel " * 300, "no"))
    with pytest.raises(AnswerTooLong):
        encoder.encode(too_long)
    kept, too_long_names = encoder.encode_all([make_example(0), too_long])
    assert len(kept) == 1 and too_long_names == ["pairs#1"]


def test_all_assistant_turns_of_a_dialogue_are_learned() -> None:
    encoder = make_encoder("sft", turns="all")
    turns = (Message("user", "Q one"), Message("assistant", "A one"), Message("user", "Q two"))
    example = make_example(0, conversation=Conversation(turns), answers=("A two",))
    encoded = encoder.encode(example)
    ids, mask = encoded.token_ids(), encoded.answer_mask()
    assert len(ids) == len(mask)
    learned = encoder.tokenizer.decode([i for i, m in zip(ids, mask) if m])
    assert learned == "A one<|im_end|>A two<|im_end|>"
    rendered = encoder.render([*turns, Message("assistant", "A two")])
    assert encoder.tokenizer.decode(ids) == rendered.rstrip("\n")


def test_plain_turns_are_used_without_a_chat_template() -> None:
    words = tokenizer(template=False)
    with pytest.raises(UserError, match="--template plain"):
        ExampleEncoder(words, make_settings("dpo", "out", "base"))
    encoder = ExampleEncoder(words, make_settings("dpo", "out", "base", template="plain"))
    encoded = encoder.encode(make_example(0))
    prompt = "User: How do I true a wheel, part 0?\n\nAssistant:"
    assert words.decode(encoded.prompt) == prompt
    assert encoded.answers[0][-1] == encoder.eos_token_id
    plain = ChatTokenizer(tokenizer(), plain=True)
    turns = [Message("user", "Q"), Message("assistant", "A")]
    assert plain.render(turns) == "User: Q\n\nAssistant: A"


def test_a_failing_template_and_a_missing_end_token_are_user_errors() -> None:
    words = tokenizer()
    words.chat_template = "{{ raise_exception('only users') }}"
    with pytest.raises(UserError, match="the chat template refuses a conversation: only users"):
        ChatTokenizer(words, name="x").render([Message("user", "Q")])
    words = tokenizer()
    words.eos_token = None
    with pytest.raises(UserError, match="no end token"):
        ChatTokenizer(words)
