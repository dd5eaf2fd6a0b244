"""The loss of a batch by hand, pairs that people ordered, weights of rare categories."""

from __future__ import annotations

import math

import pytest
import torch
from tests.train.moderation.builders import NAN, make_example

from truing.train.moderation.loss import (
    UNLISTED_CATEGORY_WEIGHT,
    LossWeights,
    find_ordered_pairs,
    moderation_loss,
    positive_weights,
    sets_with_categories,
)

LN2 = math.log(2)


def test_the_loss_by_hand() -> None:
    items = [
        make_example((1.0, NAN, 0.0, 1.0)),
        make_example((0.0, NAN, NAN, NAN), source="t"),
    ]
    logits = torch.tensor([[0.0, 9.0, 0.0, 0.0], [math.log(3), 9.0, 9.0, 9.0]])
    targets = torch.tensor([item.targets for item in items])
    weights = LossWeights(torch.tensor([2.0]), frozenset({"s"}), pair=0.5, category=4.0)
    harmful = (LN2 + math.log(4)) / 2  # -log(1/2) and -log(1 - 3/4), two rows
    refused = 0.5 * LN2 / 2
    category = 4.0 * 2.0 * LN2 / 1 / 2  # category weight, positive weight, one category
    expected = harmful + refused + category
    assert float(moderation_loss(logits, targets, items, weights)) == pytest.approx(expected)


def test_categories_of_a_set_that_lists_none_weigh_less() -> None:
    items = [make_example((NAN, NAN, NAN, 0.0), source="t")]
    targets = torch.tensor([item.targets for item in items])
    weights = LossWeights(torch.ones(1), frozenset({"s"}), category=4.0)
    loss = float(moderation_loss(torch.zeros(1, 4), targets, items, weights))
    assert loss == pytest.approx(4.0 * UNLISTED_CATEGORY_WEIGHT * LN2)


def test_ordered_pairs_are_pulled_apart() -> None:
    items = [
        make_example(pair="p", order=1.0),
        make_example(pair="p", order=0.0),
        make_example(pair="q", order=1.0),
        make_example(pair="r", order=0.5),
        make_example(pair="r", order=0.5),
    ]
    assert find_ordered_pairs(items) == ([1], [0])
    logits = torch.zeros(2, 4, requires_grad=True)
    unjudged = torch.full((2, 4), NAN)
    weights = LossWeights(torch.ones(1), frozenset())
    loss = moderation_loss(logits, unjudged, items[:2], weights)
    assert loss.item() == pytest.approx(0.5 * LN2 / 2)
    loss.backward()
    assert logits.grad is not None and logits.grad[0, 0] < 0 < logits.grad[1, 0]


def test_rare_categories_weigh_more() -> None:
    # One positive in ten: sqrt(9 / 1). No positive: at most 4. Never judged: 1.
    items = [make_example((0.0, NAN, NAN, float(k == 0), 0.0, NAN)) for k in range(10)]
    assert positive_weights(items, 3).tolist() == pytest.approx([3.0, 4.0, 1.0])
    assert positive_weights([], 2).tolist() == [1.0, 1.0]


def test_sets_that_list_categories() -> None:
    items = [make_example(), make_example((1.0, NAN, NAN, 0.0), source="t")]
    assert sets_with_categories(items) == {"s"}
