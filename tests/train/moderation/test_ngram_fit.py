"""The n-gram model's fit against scikit-learn."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from truing.judges.moderation.inputs import EncodedInput
from truing.judges.moderation.ngrams import NgramModel, quantise_columns
from truing.train.moderation.ngram_fit import (
    fit_ngram_regression,
    inverse_document_frequency,
    ngram_matrix,
    tfidf_rows,
)


def random_rows(n: int) -> list[EncodedInput]:
    rng = random.Random(0)
    return [
        EncodedInput((1, *(rng.randrange(5, 40) for _ in range(8)), 2), (0,) * 10) for _ in range(n)
    ]


def test_the_fit_is_that_of_scikit_learn_without_the_missing_labels() -> None:
    rows = random_rows(300)
    x = ngram_matrix(rows, 10)
    y = np.array([float(7 in row.ids or 9 in row.ids) for row in rows])
    y[:40] = math.nan
    ours = fit_ngram_regression(x, y[:, None], np.ones((300, 1)), strength=3.0, steps=500)
    features = tfidf_rows(x, ours.idf)
    theirs = LogisticRegression(C=3.0, tol=1e-8, max_iter=2000).fit(features[40:], y[40:])
    assert ours.logits(x)[:, 0] == pytest.approx(theirs.decision_function(features), abs=2e-2)


def test_an_output_with_one_label_alone_gets_no_weights() -> None:
    x = ngram_matrix(random_rows(300), 10)
    fitted = fit_ngram_regression(x, np.full((300, 1), 1.0), np.ones((300, 1)))
    assert not fitted.weight.any() and not fitted.bias.any()


def test_rows_have_length_1_and_idf_by_hand() -> None:
    x = ngram_matrix([EncodedInput((1, 5, 2), (0, 0, 0)), EncodedInput((1, 5, 6, 2), (0,) * 4)], 8)
    idf = inverse_document_frequency(x)
    in_both = np.asarray(x.sum(0)).ravel() == 2
    assert idf[in_both] == pytest.approx(math.log(3 / 3) + 1)
    assert idf[np.asarray(x.sum(0)).ravel() == 1] == pytest.approx(math.log(3 / 2) + 1)
    norms = np.sqrt(np.asarray(tfidf_rows(x, idf).power(2).sum(1)).ravel())
    assert norms == pytest.approx([1.0, 1.0])


def test_the_quantised_model_gives_the_fitted_logits() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(256, 4)).astype(np.float32)
    idf = rng.random(256).astype(np.float32) + 1
    row = EncodedInput((1, 5, 6, 7, 2, 8, 9, 2), (0, 0, 0, 0, 0, 1, 1, 1))
    logits = NgramModel(*quantise_columns(weight), idf).logits([row])
    exact = tfidf_rows(ngram_matrix([row], 8), idf) @ weight
    assert logits[0] == pytest.approx(exact[0], abs=0.05)
