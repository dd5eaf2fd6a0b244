"""Prompts of a step, padding, and selection of rows."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from truing.core.errors import DataError  # noqa: E402
from truing.core.types import Conversation, Sample  # noqa: E402
from truing.train.batches import ExampleEncoder  # noqa: E402
from truing.train.rl.rollout import (  # noqa: E402
    GeneratedAnswers,
    TokenizedPrompt,
    build_rollout,
    sample_prompt_indices,
    tokenize_prompts,
)
from truing.train.settings import TrainingSettings  # noqa: E402


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
