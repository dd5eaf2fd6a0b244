"""Prompts of a step, padding, and selection of rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from truing.core.errors import DataError
from truing.core.types import Conversation, Sample
from truing.train.batches import ExampleEncoder
from truing.train.rl.rollout import (
    GeneratedAnswers,
    TokenizedPrompt,
    build_rollout,
    redraw_prompt_indices,
    sample_prompt_indices,
    special_token_ids,
    tokenize_prompts,
)
from truing.train.settings import TrainingSettings


def test_prompts_are_shuffled_anew_each_epoch() -> None:
    indices = [i for step in range(5) for i in sample_prompt_indices(10, step, 4, seed=3)]
    assert sorted(indices[:10]) == sorted(indices[10:]) == list(range(10))
    assert indices[:10] != indices[10:]


def test_prompts_of_a_step_depend_on_seed_and_step_alone() -> None:
    indices = [i for step in range(3) for i in sample_prompt_indices(10, step, 4, seed=3)]
    assert sample_prompt_indices(10, 2, 4, seed=3) == indices[8:12]
    other_seed = [i for step in range(3) for i in sample_prompt_indices(10, step, 4, seed=4)]
    assert indices != other_seed


def test_prompts_that_are_too_long_are_left_out(task: Any) -> None:
    encoder = ExampleEncoder(
        task.tokenizer(), TrainingSettings(kind="distil", out="", template="plain")
    )
    samples = [
        Sample(conversation=Conversation.of(" ".join(["ash"] * words)), id=f"s{words}")
        for words in (1, 30)
    ]
    prompts, too_long = tokenize_prompts(samples, encoder, max_tokens=20)
    assert [prompt.sample.id for prompt in prompts] == ["s1"]
    assert too_long == ["s30"]
    with pytest.raises(DataError, match="none of 1 prompts"):
        tokenize_prompts(samples[1:], encoder, max_tokens=20)


def make_padded_rollout(task: Any) -> Any:
    sample = Sample(conversation=Conversation.of("x"), id="a")
    prompts = [TokenizedPrompt(sample, (4, 5, 6)), TokenizedPrompt(sample, (7,))]
    log_probs = torch.tensor([[-1.0, 0.0, 0.0], [-2.0, -3.0, 0.0]])
    answers = GeneratedAnswers(((2,), (3, 1)), log_probs, (False, True))
    return build_rollout(prompts, [5, 9], answers, task.tokenizer(), device="cpu", pad_id=0)


def test_prompts_are_padded_on_the_left_and_answers_on_the_right(task: Any) -> None:
    rollout = make_padded_rollout(task)
    assert rollout.input_ids.tolist() == [[4, 5, 6, 2, 0], [0, 0, 7, 3, 1]]
    assert rollout.attention_mask.tolist() == [[1, 1, 1, 1, 0], [0, 0, 1, 1, 1]]
    assert rollout.answer_mask.tolist() == [[1, 0], [1, 1]]
    assert rollout.answer_start == 3
    assert rollout.answer_lengths.tolist() == [1, 2]
    assert rollout.answer_ids.tolist() == [[2, 0], [3, 1]]
    assert rollout.log_probs.tolist() == [[-1.0, 0.0], [-2.0, -3.0]]
    assert rollout.texts == ("gold", "risk")


def test_selected_rows_keep_what_belongs_to_them(task: Any) -> None:
    selected = make_padded_rollout(task).select_rows([1])
    assert selected.global_rows == (9,)
    assert selected.ended == (True,)
    assert selected.log_probs.tolist() == [[-2.0, -3.0]]
    assert selected.ref_log_probs is None


def test_responses_say_whether_the_answer_ended(task: Any) -> None:
    responses = make_padded_rollout(task).to_responses("policy")
    assert [(r.index, r.text, r.finish_reason) for r in responses] == [
        (5, "gold", "length"),
        (9, "risk", "stop"),
    ]


def test_special_tokens_are_visible_but_for_the_one_that_ends_the_answer(task: Any) -> None:
    sample = Sample(conversation=Conversation.of("x"), id="a")
    prompts = [TokenizedPrompt(sample, (4,))] * 4
    ids = ((2, 1), (2, 1, 3), (1,), (0, 2))
    answers = GeneratedAnswers(ids, torch.zeros(4, 3), (True, False, True, False))
    rollout = build_rollout(prompts, range(4), answers, task.tokenizer(), device="cpu", pad_id=0)
    assert rollout.texts == ("gold", "gold <eos> risk", "", "<pad> gold")
    assert rollout.special == (False, True, False, True)
    hidden = build_rollout(
        prompts,
        range(4),
        answers,
        task.tokenizer(),
        device="cpu",
        pad_id=0,
        hide_special_tokens=True,
    )
    assert hidden.texts == ("gold", "gold risk", "", "gold")


def test_added_tokens_that_mark_turns_are_special_and_the_unknown_token_is_not() -> None:
    from types import SimpleNamespace

    tokens = {7: SimpleNamespace(special=True), 8: SimpleNamespace(special=False)}
    tokenizer = SimpleNamespace(added_tokens_decoder=tokens, all_special_ids=[0, 1], unk_token_id=0)
    assert special_token_ids(tokenizer) == {1, 7}


def test_rows_of_another_rollout_keep_their_columns(task: Any) -> None:
    rollout = make_padded_rollout(task)
    sample = Sample(conversation=Conversation.of("y"), id="b")
    answers = GeneratedAnswers(((2, 3, 2, 1),), torch.full((1, 4), -0.5), (True,))
    prompt = TokenizedPrompt(sample, (9, 8, 7, 6))
    other = build_rollout([prompt], [5], answers, task.tokenizer(), device="cpu", pad_id=0)
    merged = rollout.with_rows([0], other)
    assert merged.input_ids.tolist() == [[9, 8, 7, 6, 2, 3, 2, 1], [0, 0, 0, 7, 3, 1, 0, 0]]
    assert merged.attention_mask.tolist() == [[1] * 8, [0, 0, 0, 1, 1, 1, 0, 0]]
    assert merged.answer_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert merged.log_probs.tolist() == [[-0.5] * 4, [-2.0, -3.0, 0.0, 0.0]]
    assert merged.texts == ("gold risk gold", "risk")
    assert [p.sample.id for p in merged.prompts] == ["b", "a"]
    assert merged.global_rows == (5, 9)


def test_redraws_choose_prompts_by_seed_step_and_draw() -> None:
    first = redraw_prompt_indices(10, 3, 4, 7, 1)
    assert first == redraw_prompt_indices(10, 3, 4, 7, 1)
    assert len(set(first)) == 4
    others = [redraw_prompt_indices(10, s, 4, 7, d) for s, d in ((3, 2), (4, 1))]
    assert first not in others
    assert len(redraw_prompt_indices(3, 0, 8, 0, 1)) == 8
