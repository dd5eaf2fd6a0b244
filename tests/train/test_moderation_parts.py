"""The trainer's parts against hand-computed values, scikit-learn and brute force."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from truing.judges.moderation.inputs import EncodedInput, ModerationInput
from truing.judges.moderation.ngrams import NgramModel, ngram_buckets, quantise_columns
from truing.train.moderation import calibration as cal
from truing.train.moderation.batching import make_batches, sample_epoch_units
from truing.train.moderation.examples import ModerationExample
from truing.train.moderation.fold_training import drop_prompt, prompt_as_response
from truing.train.moderation.loss import (
    LossWeights,
    find_ordered_pairs,
    moderation_loss,
    positive_weights,
    sets_with_categories,
)
from truing.train.moderation.ngram_fit import fit_ngram_regression, ngram_matrix, tfidf_rows

NAN = math.nan


def _item(
    targets: tuple[float, ...] = (1.0, NAN, NAN, 1.0),
    source: str = "s",
    width: int = 5,
    **more: object,
) -> ModerationExample:
    row = EncodedInput(tuple(range(width)), (0,) * (width - 2) + (1, 1))
    return ModerationExample(
        source=source,
        key="a",
        piece=ModerationInput(("x",), "y"),
        targets=targets,
        encoded=row,
        **more,
    )  # type: ignore[arg-type]


def test_logistic_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=(400, 2)), np.ones(400)])
    y = (rng.random(400) < 1 / (1 + np.exp(-(x @ [1.5, -0.5, 0.3])))).astype(float)
    ours = cal.fit_logistic_regression(x, y, ridge=1e-3)
    theirs = LogisticRegression(C=1 / (1e-3 * 400), tol=1e-9).fit(x[:, :2], y)
    assert ours == pytest.approx([*theirs.coef_[0], theirs.intercept_[0]], abs=1e-4)


def test_best_f1_is_the_best_of_all_thresholds() -> None:
    rng = np.random.default_rng(1)
    p, y = rng.random(200).round(2), (rng.random(200) < 0.3).astype(float)
    threshold, f1 = cal.best_f1_threshold(p, y)
    every = max(f1_score(y, p >= t) for t in np.unique(p))
    assert f1 == pytest.approx(every) == pytest.approx(f1_score(y, p >= threshold))
    assert cal.best_f1_threshold(p, np.zeros(200)) == (0.5, 0.0)


def test_rare_categories_take_the_common_threshold() -> None:
    rng = np.random.default_rng(2)
    y = np.zeros((1000, 3))
    y[:400, 0], y[:2, 1] = 1, 1
    p = np.clip(0.3 * y + 0.6 * rng.random(y.shape), 0, 1)
    made = cal.fit_category_thresholds(p, y)
    common, _ = cal.best_f1_threshold(p.ravel(), y.ravel())
    assert made[2] == pytest.approx(common)  # a category without positives
    assert abs(made[1] - common) < 0.05 < 1
    y[:, 2] = NAN
    assert np.isfinite(cal.fit_category_thresholds(p, y)).all()


def test_noise_stays_noise_under_crossfitting() -> None:
    rng = np.random.default_rng(3)
    n = 600
    targets = np.full((n, 5), NAN)
    targets[:, 0] = rng.integers(0, 2, n)
    targets[:, 3:] = rng.integers(0, 2, (n, 2))
    given = cal.OutOfFoldLogits(
        rng.normal(size=(n, 5)), rng.normal(size=(n, 5)), targets, rng.integers(0, 3, n)
    )
    everything = np.ones(n, bool)
    p, said = cal.cross_fit(given, everything, np.zeros(n, bool))
    assert p[:, 0].std() < 0.06 and abs(p[:, 0].mean() - 0.5) < 0.05
    assert said.shape == targets.shape


def test_a_row_is_never_judged_by_what_it_chose() -> None:
    rng = np.random.default_rng(4)
    n = 90
    targets = np.full((n, 4), NAN)
    targets[:, 0] = rng.integers(0, 2, n)
    given = cal.OutOfFoldLogits(
        rng.normal(size=(n, 4)), np.zeros((n, 4)), targets, np.arange(n) % 3
    )
    home, alone = np.ones(n, bool), np.zeros(n, bool)
    before, _ = cal.cross_fit(given, home, alone)
    turned = targets.copy()
    turned[given.folds == 0, 0] = 1 - turned[given.folds == 0, 0]
    after, _ = cal.cross_fit(
        cal.OutOfFoldLogits(given.encoder, given.ngrams, turned, given.folds), home, alone
    )
    assert np.array_equal(before[given.folds == 0], after[given.folds == 0])
    assert not np.array_equal(before[given.folds == 1], after[given.folds == 1])


def test_the_mix_folds_into_one_linear_map() -> None:
    mix = cal.LogitMix(
        np.array([2.0, 1, 1, 3, 4]),
        np.array([0.5, 0, 0, 1, 1]),
        np.array([0.1, 0.2]),
        np.array([1.0, 0, 0, -1, -2]),
    )
    z, n = np.array([[1.0, 5, 6, 2, 3]]), np.array([[2.0, 9, 9, 1, 0]])
    assert mix.apply(z, n)[0].tolist() == pytest.approx(
        [2 + 1 + 1, 5, 6, 6 + 1 - 1 + 0.1, 12 + 0 - 2 + 0.2]
    )


def test_linear_is_scikit_learns_with_soft_and_missing_labels() -> None:
    rng = random.Random(0)
    rows = [
        EncodedInput((1, *(rng.randrange(5, 40) for _ in range(8)), 2), (0,) * 10)
        for _ in range(300)
    ]
    x = ngram_matrix(rows, 10)
    y = np.array([float(7 in r.ids or 9 in r.ids) for r in rows])
    y[:40] = NAN
    targets, weight = y[:, None], np.ones((300, 1))
    ours = fit_ngram_regression(x, targets, weight, strength=3.0, steps=500)
    a = tfidf_rows(x, ours.idf)
    theirs = LogisticRegression(C=3.0, tol=1e-8, max_iter=2000).fit(a[40:], y[40:])
    assert ours.logits(x)[:, 0] == pytest.approx(theirs.decision_function(a), abs=2e-2)
    assert (
        fit_ngram_regression(x, np.full((300, 1), 1.0), weight).weight.max() == 0.0
    )  # one label alone teaches nothing


def test_shipped_ngrams_give_the_fitted_logits() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(256, 4)).astype(np.float32)
    idf = rng.random(256).astype(np.float32) + 1
    rows = [
        EncodedInput((1, 5, 6, 7, 2, 8, 9, 2), (0, 0, 0, 0, 0, 1, 1, 1)),
        EncodedInput((1, 2), (0, 0)),
    ]
    made = NgramModel(*quantise_columns(weight), idf).logits(rows)
    exact = tfidf_rows(ngram_matrix(rows, 8), idf) @ weight
    assert made[0] == pytest.approx(exact[0], abs=0.05)
    with pytest.raises(ValueError, match="do not fit"):
        NgramModel(np.zeros((100, 4), np.int8), np.ones(4, np.float32), np.ones(100, np.float32))


def test_buckets_tell_prompt_from_answer_and_count_the_first_word() -> None:
    one = ngram_buckets(EncodedInput((1, 5, 2, 6, 2), (0, 0, 0, 1, 1)), 16)
    other = ngram_buckets(EncodedInput((1, 6, 2, 5, 2), (0, 0, 0, 1, 1)), 16)
    assert len(one) == len(set(one.tolist())) and set(one.tolist()) != set(other.tolist())
    alone = set(ngram_buckets(EncodedInput((1, 2, 6, 2), (0, 0, 1, 1)), 16).tolist())
    assert len(alone & set(one.tolist())) >= 2  # 6, and 6 with the end


def test_loss_by_hand() -> None:
    items = [_item((1.0, NAN, 0.0, 1.0)), _item((0.0, NAN, NAN, NAN), source="t")]
    logits = torch.tensor([[0.0, 9.0, 0.0, 0.0], [math.log(3), 9.0, 9.0, 9.0]])
    targets = torch.tensor([i.targets for i in items])
    balance = LossWeights(torch.tensor([2.0]), frozenset({"s"}), pair=0.5, category=4.0)
    half = math.log(2)
    wanted = (half + math.log(4)) / 2 + 0.5 * half / 2 + 4.0 * 2.0 * half / 1 / 2
    assert float(moderation_loss(logits, targets, items, balance)) == pytest.approx(wanted)


def test_pairs_pull_apart_what_people_ordered() -> None:
    items = [
        _item(pair="p", order=1.0),
        _item(pair="p", order=0.0),
        _item(pair="q", order=1.0),
        _item(pair="r", order=0.5),
        _item(pair="r", order=0.5),
    ]
    assert find_ordered_pairs(items) == ([1], [0])
    logits = torch.zeros(2, 4, requires_grad=True)
    nothing = torch.full((2, 4), NAN)
    loss = moderation_loss(logits, nothing, items[:2], LossWeights(torch.ones(1), frozenset()))
    assert loss.item() == pytest.approx(0.5 * math.log(2) / 2)
    loss.backward()
    assert logits.grad is not None and logits.grad[0, 0] < 0 < logits.grad[1, 0]


def test_weights_of_rare_categories() -> None:
    items = [_item((0.0, NAN, NAN, float(k == 0), 0.0, NAN)) for k in range(10)]
    assert positive_weights(items, 3).tolist() == pytest.approx([3.0, 4.0, 1.0])
    assert positive_weights([], 2).tolist() == [1.0, 1.0]
    assert sets_with_categories([_item(), _item((1.0, NAN, NAN, 0.0), source="t")]) == {"s"}


def test_each_set_passes_as_often_as_its_weight_says() -> None:
    items = [_item(source="a") for _ in range(10)] + [
        _item(source="b", pair=str(k // 2)) for k in range(8)
    ]
    made = sample_epoch_units(items, {"a": 2.5, "b": 1.0}, random.Random(0))
    flat = [i for u in made for i in u]
    assert sum(i < 10 for i in flat) == 25 and sorted(i for i in flat if i >= 10) == list(
        range(10, 18)
    )
    assert all(len(u) == 2 for u in made if u[0] >= 10)


def test_batches_hold_the_limit_and_lose_nothing() -> None:
    rng = random.Random(0)
    items = [_item(width=rng.randrange(4, 30)) for _ in range(200)]
    order = [[i] for i in range(200)]
    made = make_batches(items, order, 64, rng)
    assert sorted(i for b in made for i in b) == list(range(200))
    assert all(max(len(items[i].row.ids) for i in b) * len(b) <= 64 for b in made)


def test_rows_without_their_prompt_or_role() -> None:
    row = EncodedInput((1, 5, 6, 2, 7, 8, 2), (0, 0, 0, 0, 1, 1, 1))
    assert drop_prompt(row) == EncodedInput((1, 2, 7, 8, 2), (0, 0, 1, 1, 1))
    assert prompt_as_response(EncodedInput((1, 5, 6, 2), (0, 0, 0, 0))) == EncodedInput(
        (1, 2, 5, 6, 2), (0, 0, 1, 1, 1)
    )


def test_the_mean_of_two_networks_gets_the_scale_of_its_members() -> None:
    from types import SimpleNamespace

    from truing.train.moderation.run import match_logit_scale

    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 6))
    head = torch.nn.Linear(6, 3)
    logits = x @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    members = np.stack([2.0 * logits + 1.0, 3.0 * logits - 1.0])
    match_logit_scale(SimpleNamespace(head=head), logits, members)  # type: ignore[arg-type]
    after = x @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    assert after.std(0) == pytest.approx(2.5 * logits.std(0), rel=1e-4)
    assert after.mean(0) == pytest.approx(2.5 * logits.mean(0), rel=1e-3, abs=1e-3)
