"""Sampling of tokens: argmax, nucleus, distribution, random streams and log-probabilities."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from tests.models.local.generation import ASKS, answers, texts

from truing.core.types import Conversation, Sampling
from truing.models.local import LocalModel
from truing.models.local.sampling import (
    BLOCK,
    find_largest,
    make_generator,
    sample_tokens,
    top_logprobs,
)


def test_each_answer_has_a_random_stream_of_its_own(tiny: LocalModel) -> None:
    hot = Sampling(max_tokens=12, temperature=1.0, n=8, seed=3)
    eight = texts(tiny, ASKS[:1], hot)
    assert len(set(eight)) == 8
    assert texts(tiny, ASKS[:1], Sampling(max_tokens=12, temperature=1.0, n=3, seed=3)) == eight[:3]
    assert texts(tiny, ASKS[:1], Sampling(max_tokens=12, temperature=1.0, n=3, seed=4)) != eight[:3]
    assert texts(tiny, [ASKS[1], ASKS[0]], hot)[8:] == eight


def test_draws_follow_the_distribution(tiny: LocalModel) -> None:
    ask = ASKS[1]
    with torch.inference_mode():
        ids = torch.tensor([tiny.template.prompt(ask).ids])
        logits = tiny.forward.model(input_ids=ids).logits[0, -1].float()
    wanted = torch.softmax(logits / 0.8, -1)
    n = 1500
    firsts = answers(tiny, [ask], Sampling(max_tokens=1, temperature=0.8, n=n, logprobs=0))[0]
    names = [a.logprobs[0].token for a in firsts if a.logprobs]
    best = wanted.argmax()
    share = names.count(tiny.forward.tokenizer.decode([int(best)])) / n
    assert len(names) == n
    assert abs(share - float(wanted[best])) < 4 * (0.25 / n) ** 0.5
    narrow = answers(
        tiny, [ask], Sampling(max_tokens=1, temperature=0.8, top_p=float(wanted[best]) * 0.9, n=50)
    )[0]
    assert len({a.text for a in narrow}) == 1


def log_probs(*probabilities: float) -> torch.Tensor:
    return torch.log(torch.tensor(probabilities))


def test_temperature_zero_takes_the_argmax_whatever_the_draw() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert sample_tokens(logits, [Sampling()] * 2, [0.0, 0.999]) == [1, 0]


@pytest.mark.parametrize(
    ("draw", "token"), [(0.0, 0), (0.49, 0), (0.51, 1), (0.79, 1), (0.81, 2), (0.9999, 2)]
)
def test_a_draw_is_looked_up_in_the_cumulative_distribution(draw: float, token: int) -> None:
    logits = log_probs(0.5, 0.3, 0.2)[None]
    assert sample_tokens(logits, [Sampling(temperature=1.0)], [draw]) == [token]


def test_temperature_divides_the_logits() -> None:
    # At temperature 0.5 the probabilities are squared: 0.25, 0.09 and 0.04 of 0.38.
    logits = log_probs(0.5, 0.3, 0.2)[None]
    sampling = Sampling(temperature=0.5)
    below, above = 0.25 / 0.38 - 0.001, 0.25 / 0.38 + 0.001
    assert sample_tokens(logits, [sampling], [below]) == [0]
    assert sample_tokens(logits, [sampling], [above]) == [1]


def test_the_nucleus_is_the_smallest_set_that_reaches_top_p() -> None:
    logits = log_probs(0.2, 0.5, 0.3)[None]
    draws = np.linspace(0, 0.999, 200)

    def sampled(top_p: float) -> Counter[int]:
        sampling = Sampling(temperature=1.0, top_p=top_p)
        return Counter(sample_tokens(logits, [sampling], [float(d)])[0] for d in draws)

    assert set(sampled(0.4)) == {1}
    assert set(sampled(0.6)) == {1, 2}
    # Within the nucleus the probabilities keep their ratio, 5 to 3.
    assert sampled(0.6)[1] / 200 == pytest.approx(5 / 8, abs=0.01)
    assert set(sampled(0.9)) == {0, 1, 2}


def test_a_nucleus_wider_than_the_first_tokens_is_found_by_sorting() -> None:
    # 2000 equal tokens: the 512 most probable ones hold a quarter of the mass.
    logits = torch.zeros(1, 2000)
    sampling = Sampling(temperature=1.0, top_p=0.9)
    tokens = {sample_tokens(logits, [sampling], [d / 997])[0] for d in range(997)}
    assert len(tokens) == 997


def test_neighbours_do_not_change_a_token_among_ties() -> None:
    """Logits in steps of 1/8, as those of bfloat16: many are equal."""
    generator = torch.Generator().manual_seed(0)
    size = 9000
    logits = (torch.randn(40, size, generator=generator) * 3 * 8).round() / 8
    # Sixty likely tokens, then ties: the nucleus ends among the largest 64, between two ties.
    logits[0] = -20.0
    logits[0, torch.randperm(size, generator=generator)[:60]] = 8.0
    logits[0, torch.randperm(size, generator=generator)[:30]] = 5.0
    samplings = [Sampling(temperature=1.0, top_p=p) for p in (0.5, 0.9, 0.97, 0.99)] * 10
    flat, of_flat = torch.zeros(1, size), Sampling(temperature=1.0, top_p=0.999)
    for draw in (0.3, 0.75, 0.98, 0.9999):
        alone = [sample_tokens(logits[i : i + 1], [samplings[i]], [draw])[0] for i in range(40)]
        beside = sample_tokens(
            torch.cat([flat, logits]), [of_flat, *samplings], [0.5, *[draw] * 40]
        )
        assert beside[1:] == alone
        assert alone == [_nucleus_token(row, s.top_p, draw) for row, s in zip(logits, samplings)]


def _nucleus_token(logits: torch.Tensor, top_p: float, draw: float) -> int:
    """Returns the token by the definition: equal probabilities stand in the order of their ids."""
    top, ids = torch.softmax(logits, -1).sort(descending=True, stable=True)
    nucleus = torch.where(top.cumsum(-1) - top < top_p, top, 0.0).cumsum(-1)
    return int(ids[torch.searchsorted(nucleus, draw * nucleus[-1], right=True)])


@pytest.mark.parametrize("size", [5, 300, 6 * BLOCK, 9 * BLOCK + 1, 40 * BLOCK - 1])
@pytest.mark.parametrize("count", [1, 4, 16])
def test_the_largest_values_are_those_of_topk(size: int, count: int) -> None:
    # A permutation: no two values are equal, so that there is one order.
    generator = torch.Generator().manual_seed(size)
    values = torch.stack([torch.randperm(size, generator=generator) for _ in range(3)]).float()
    values[1] = torch.arange(size)  # the largest lie together, behind the last whole block too
    top, columns = find_largest(values, count)
    expected = values.topk(min(count, size), dim=-1)
    assert torch.equal(top, expected.values)
    assert torch.equal(columns, expected.indices)


def test_a_row_without_top_p_keeps_its_whole_distribution_beside_one_with_top_p() -> None:
    logits = torch.zeros(2, 2000)
    samplings = [Sampling(temperature=1.0), Sampling(temperature=1.0, top_p=0.9)]
    alone = [sample_tokens(logits[:1], samplings[:1], [d / 97])[0] for d in range(97)]
    together = [sample_tokens(logits, samplings, [d / 97, 0.5])[0] for d in range(97)]
    assert together == alone == sorted(alone)


def test_each_row_follows_its_own_settings() -> None:
    logits = log_probs(0.5, 0.3, 0.2).repeat(4, 1)
    samplings = [
        Sampling(),
        Sampling(temperature=1.0),
        Sampling(temperature=1.0, top_p=0.4),
        Sampling(temperature=1e-9),
    ]
    assert sample_tokens(logits, samplings, [0.99] * 4) == [0, 2, 0, 0]


def test_a_token_of_probability_zero_is_not_drawn_at_zero() -> None:
    logits = torch.tensor([[-math.inf, 0.0]])
    assert sample_tokens(logits, [Sampling(temperature=1.0)], [0.0]) == [1]


def test_rows_with_nan_give_minus_one_and_leave_the_others_alone() -> None:
    logits = torch.tensor([[math.nan, 1.0], [0.0, 1.0], [math.nan, math.nan]])
    samplings = [Sampling(), Sampling(), Sampling(temperature=1.0)]
    assert sample_tokens(logits, samplings, [0.5] * 3) == [-1, 1, -1]


def test_generators_depend_on_seed_conversation_and_index() -> None:
    def first_draw(seed: int, text: str, index: int) -> float:
        return float(make_generator(seed, Conversation.of(text), index).random())

    assert first_draw(1, "a", 0) == first_draw(1, "a", 0)
    draws = {first_draw(s, t, i) for s in (1, 2) for t in ("a", "b") for i in (0, 1)}
    assert len(draws) == 8


class _Letters:
    def decode(self, ids: list[int]) -> str:
        return "abc"[ids[0]]


def test_log_probabilities_of_the_token_and_the_most_probable_ones() -> None:
    logits = log_probs(0.2, 0.5, 0.3) + 7.0  # a constant changes nothing
    logprob, top = top_logprobs(logits, 0, 2, _Letters())
    assert logprob == pytest.approx(math.log(0.2), abs=1e-5)
    assert [text for text, _ in top] == ["b", "c"]
    assert [value for _, value in top] == pytest.approx([math.log(0.5), math.log(0.3)], abs=1e-5)
    assert top_logprobs(logits, 0, 0, _Letters())[1] == ()
