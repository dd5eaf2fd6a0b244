"""Sampled answers: distribution, log-probabilities, independence of the batch, end tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from truing.core.errors import UserError
from truing.train.rl.forward import answer_log_probs, map_micro_batches
from truing.train.rl.generate import (
    LocalGenerator,
    sample_tokens,
    scale_logits,
    uniform_draws,
)
from truing.train.rl.rollout import build_rollout

MAX_TOKENS = 12


def generate(
    task: Any,
    *,
    rows: int = 64,
    temperature: float = 1.0,
    end_ids: frozenset[int] = frozenset({1}),
) -> Any:
    """Returns (model, answers, rollout) of three answers to each of six prompts."""
    model = task.model(1, dtype=torch.float64)
    prompts = [prompt for prompt in task.prompts(6) for _ in range(3)]
    generator = LocalGenerator(model, end_ids, temperature=temperature, rows=rows)
    draws = uniform_draws(0, 5, range(len(prompts)), MAX_TOKENS)
    answers = generator([prompt.ids for prompt in prompts], draws)
    rollout = build_rollout(
        prompts, range(len(prompts)), answers, task.tokenizer(), device="cpu", pad_id=0
    )
    return model, answers, rollout


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_equal_those_of_training(task: Any, temperature: float) -> None:
    model, _, rollout = generate(task, temperature=temperature)
    recomputed = map_micro_batches(
        rollout, 4, lambda micro: answer_log_probs(model, micro, temperature=temperature)
    )
    sampled = rollout.log_probs * rollout.answer_mask
    torch.testing.assert_close(recomputed, sampled, rtol=1e-9, atol=1e-12)


def test_answers_do_not_depend_on_the_batch(task: Any) -> None:
    _, all_at_once, _ = generate(task)
    _, one_by_one, _ = generate(task, rows=1)
    _, in_fives, _ = generate(task, rows=5)  # cuts groups of equal prompts apart
    assert all_at_once.ids == one_by_one.ids == in_fives.ids
    torch.testing.assert_close(all_at_once.log_probs, in_fives.log_probs, rtol=1e-9, atol=1e-12)


def test_an_answer_ends_at_its_end_token(task: Any) -> None:
    end_ids = frozenset({1, 4, 5, 6})
    _, answers, rollout = generate(task, end_ids=end_ids)
    assert len({len(ids) for ids in answers.ids}) > 1  # rows finish at different times
    for ids, ended in zip(answers.ids, answers.ended):
        assert ended == (ids[-1] in end_ids)
        assert not end_ids.intersection(ids[:-1])
        assert ended or len(ids) == MAX_TOKENS
    assert rollout.answer_lengths.tolist() == [len(ids) for ids in answers.ids]
    assert rollout.answer_start == max(len(prompt.ids) for prompt in rollout.prompts)


def test_temperature_0_takes_the_most_probable_token(task: Any) -> None:
    model, answers, rollout = generate(task, temperature=0.0)
    ids, answer = answers.ids[0], rollout.prompts[0].ids
    for token in ids:
        logits = model(input_ids=torch.tensor([answer])).logits[0, -1]
        assert token == int(logits.argmax())
        answer = (*answer, token)


def test_tokens_are_drawn_with_their_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]]).expand(20_000, 4)
    uniforms = torch.from_numpy(np.random.default_rng(0).random(20_000))
    tokens, log_probs = sample_tokens(logits, uniforms, 1.0)
    expected = torch.softmax(logits[0], -1)
    frequencies = torch.bincount(tokens, minlength=4) / 20_000
    assert float((frequencies - expected).abs().max()) < 0.012  # 3.4 standard errors
    torch.testing.assert_close(log_probs.exp(), expected[tokens])


def test_top_p_keeps_the_most_probable_tokens() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]]).expand(1000, 4)
    uniforms = torch.from_numpy(np.random.default_rng(0).random(1000))
    tokens, log_probs = sample_tokens(logits, uniforms, 0.8)
    assert set(tokens.tolist()) == {1, 3}
    # The log-probabilities are those of the whole distribution.
    torch.testing.assert_close(log_probs.exp(), torch.softmax(logits[0], -1)[tokens])


def test_a_draw_of_0_does_not_choose_a_token_of_probability_0() -> None:
    logits = torch.tensor([[-float("inf"), 0.0]])
    tokens, _ = sample_tokens(logits, torch.zeros(1, dtype=torch.float64), 1.0)
    assert tokens.tolist() == [1]


def test_uniform_draws_are_keyed_by_row() -> None:
    draws = uniform_draws(0, 5, [3, 7], 4)
    assert draws.shape == (2, 4)
    assert (uniform_draws(0, 5, [7], 4) == draws[1:]).all()
    assert (uniform_draws(0, 6, [7], 4) != draws[1:]).all()
    assert uniform_draws(0, 5, [], 4).shape == (0, 4)


def test_logits_are_scaled_in_single_precision_at_least() -> None:
    half = torch.tensor([1.0, 2.0], dtype=torch.bfloat16)
    scaled = scale_logits(half, 0.5)
    assert scaled.dtype == torch.float32
    assert scaled.tolist() == [2.0, 4.0]
    assert scale_logits(half.double(), 1.0).dtype == torch.float64


def test_no_end_token_is_an_error(task: Any) -> None:
    with pytest.raises(UserError, match="no end token"):
        LocalGenerator(task.model(0), frozenset())


def test_logits_that_are_not_finite_stop_the_run(task: Any) -> None:
    model = task.model(0)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    generator = LocalGenerator(model, frozenset({1}))
    with pytest.raises(UserError, match="not finite"):
        generator([[4, 5]], uniform_draws(0, 0, [0], 4))
