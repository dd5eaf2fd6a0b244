"""Answers are drawn from the policy, with the log-probabilities that training reads, whatever the batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from truing.core.errors import UserError  # noqa: E402
from truing.train.rl.generate import LocalGenerator, choose, streams  # noqa: E402
from truing.train.rl.policy_models import log_probs, over_all, trimmed  # noqa: E402
from truing.train.rl.rollout import assemble, draw_prompts  # noqa: E402


def drawn(
    task: Any,
    *,
    rows: int = 64,
    temperature: float = 1.0,
    repeat: int = 3,
    ends: frozenset[int] = frozenset({1}),
) -> Any:
    model = task.model(1, dtype=torch.float64)
    asked = [p for p in task.prompts(6) for _ in range(repeat)]
    generator = LocalGenerator(model, ends, temperature=temperature, rows=rows)
    answered = generator([p.ids for p in asked], streams(0, 5, range(len(asked)), 12))
    return (
        model,
        asked,
        answered,
        assemble(asked, range(len(asked)), answered, task.tokenizer(), device="cpu", fill=0),
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_that_training_reads(task: Any, temperature: float) -> None:
    model, _, _, rollout = drawn(task, temperature=temperature)
    again = over_all(rollout, 4, lambda piece: log_probs(model, piece, temperature=temperature))
    torch.testing.assert_close(again, rollout.log_probs * rollout.answer, rtol=1e-9, atol=1e-12)


def test_answers_do_not_depend_on_the_batch(task: Any) -> None:
    _, _, whole, _ = drawn(task)
    _, _, single, _ = drawn(task, rows=1)
    _, _, five, _ = drawn(task, rows=5)  # groups of equal prompts cut apart
    assert whole.ids == single.ids == five.ids
    torch.testing.assert_close(whole.log_probs, five.log_probs, rtol=1e-9, atol=1e-12)


def test_an_answer_ends_at_its_end_token_and_rows_that_are_done_are_dropped(task: Any) -> None:
    ends = frozenset({1, 4, 5, 6})
    _, _, answered, rollout = drawn(task, ends=ends)
    assert 0 < sum(answered.ended) < len(answered.ended) or max(map(len, answered.ids)) < 12
    for ids, ended in zip(answered.ids, answered.ended):
        assert ended == (ids[-1] in ends)
        assert all(i not in ends for i in ids[:-1])
        assert ended or len(ids) == 12
    assert rollout.lengths.tolist() == [len(i) for i in answered.ids]
    assert rollout.start == max(len(p.ids) for p in rollout.prompts)
    some = trimmed(rollout.take([2, 3]))
    assert some.mask.sum() == rollout.mask[[2, 3]].sum()
    assert some.mask[:, 0].any() and some.mask[:, -1].any()


def test_tokens_are_drawn_with_their_probabilities() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0]]).expand(20_000, 4)
    draw = torch.from_numpy(np.random.default_rng(0).random(20_000))
    token, chance = choose(logits, draw, 1.0)
    expected = torch.softmax(logits[0], -1)
    got = torch.bincount(token, minlength=4) / 20_000
    assert float((got - expected).abs().max()) < 0.012  # 3.4 standard errors
    torch.testing.assert_close(chance.exp(), expected[token])
    few, _ = choose(logits, draw, 0.8)
    assert set(few.tolist()) == {1, 3}


def test_no_end_token_is_an_error(task: Any) -> None:
    with pytest.raises(UserError, match="no end token"):
        LocalGenerator(task.model(0), frozenset())


def test_logits_that_are_no_numbers_stop_the_run(task: Any) -> None:
    model = task.model(0)
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="no numbers"):
        LocalGenerator(model, frozenset({1}))([[4, 5]], streams(0, 0, [0], 4))


def test_prompts_are_drawn_epoch_after_epoch() -> None:
    seen = [p for step in range(5) for p in draw_prompts(10, step, 4, seed=3)]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert draw_prompts(10, 2, 4, seed=3) == seen[8:12]
    assert seen[:10] != [p for s in range(5) for p in draw_prompts(10, s, 4, seed=4)][:10]
