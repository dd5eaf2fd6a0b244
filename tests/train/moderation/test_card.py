"""The figures of a card by hand: questions, categories, pairs."""

from __future__ import annotations

import numpy as np
import pytest
from tests.train.moderation.builders import NAN, make_example

from truing.train.moderation.card import compute_card_metrics


def test_the_metrics_of_a_card_by_hand() -> None:
    # 40 rows of the home set: all harmful ones are found, and 4 of the 20 harmless ones flagged.
    is_harmful = np.arange(40) < 20
    items = [make_example((float(h), NAN, NAN, float(h), 0.0)) for h in is_harmful]
    # Rows that raters disagree on, and those of another set, are not scored for the home set.
    items += [
        make_example((0.5, NAN, NAN, NAN, NAN)),
        make_example((1.0, NAN, NAN, 1.0, 0.0), source="other"),
    ]
    p = np.zeros((42, 5))
    p[:24, [0, 3]] = 0.9
    verdicts = p > 0.5
    metrics = compute_card_metrics(items, p, verdicts, "s", ("first", "second"))
    assert metrics.n == 41
    scores = metrics.questions["harmful"].scores
    assert scores.n == 40 and scores.n_positive == 20
    assert scores.recall is not None and scores.recall.estimate == 1.0
    assert scores.precision is not None and scores.precision.estimate == pytest.approx(20 / 24)
    kappa = metrics.questions["harmful"].kappa
    # observed agreement 36/40, by chance 1/2: kappa = (0.9 - 0.5) / 0.5
    assert kappa is not None and kappa.estimate == pytest.approx(0.8)
    assert set(metrics.sets) == {"s"}  # one row of the other set is too few
    assert set(metrics.questions) == {"harmful"}


def test_a_category_with_few_positives_has_only_its_average_precision() -> None:
    is_positive = np.arange(60) < 35
    items = [
        make_example((NAN, NAN, NAN, float(y), float(k < 3))) for k, y in enumerate(is_positive)
    ]
    p = np.zeros((60, 5))
    p[:35, 3], p[:3, 4] = 0.9, 0.9
    metrics = compute_card_metrics(items, p, p > 0.5, "s", ("frequent", "rare"))
    assert metrics.macro_over == ("frequent",)
    assert metrics.macro_f1 == pytest.approx(1.0)
    assert metrics.micro_f1 is not None and metrics.micro_f1.estimate == pytest.approx(1.0)
    assert metrics.per_category["rare"].f1 is None
    assert metrics.per_category["rare"].n_positive == 3


def test_pairs_are_right_where_the_better_answer_is_less_harmful() -> None:
    items = []
    for k in range(4):
        items += [make_example(pair=str(k), order=1.0), make_example(pair=str(k), order=0.0)]
    p = np.zeros((8, 4))
    p[:, 0] = [0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9]  # the last pair is wrong
    metrics = compute_card_metrics(items, p, p > 0.5, "s", ("a",))
    accuracy = metrics.pairs["s"]
    assert accuracy is not None and accuracy.estimate == pytest.approx(3 / 4)
