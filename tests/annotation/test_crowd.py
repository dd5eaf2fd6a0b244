"""The figures of benchmarks/redteam/crowd.py by hand."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.redteam.crowd import compare, kappa, person_with_rest
from sklearn.metrics import cohen_kappa_score


def test_kappa_matches_scikit_learn() -> None:
    a, b = [1, 1, 0, 0, 1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 0, 1, 1, 0, 0]
    tables = np.zeros((10, 4))
    for row, (x, y) in enumerate(zip(a, b, strict=True)):
        tables[row, 0 if x and y else 1 if x else 2 if y else 3] = 1
    assert kappa(tables.sum(0)) == pytest.approx(cohen_kappa_score(a, b))
    assert np.isnan(kappa(np.array([0.0, 0.0, 0.0, 5.0])))


def test_person_against_the_others_by_hand() -> None:
    # three yes, one no: each yes meets 2 of 3 yes; the no meets 3 of 3 yes
    assert person_with_rest([True, True, True, False]) == pytest.approx([0.75, 0, 0.25, 0])
    # two yes, one no: a yes meets a tie (left out), the no meets two yes
    assert person_with_rest([True, True, False]) == pytest.approx([0, 0, 1, 0])
    assert person_with_rest([True, False]) == pytest.approx([0, 0.5, 0.5, 0])
    assert person_with_rest([False, False]) == pytest.approx([0, 0, 0, 1])


def test_a_judge_that_copies_the_majority_agrees_more_than_its_members() -> None:
    votes = (
        [[True, True, True, False]] * 10
        + [[False, False, False, True]] * 10
        + [[True, True, True, True]] * 5
    )
    tables = np.array([person_with_rest(s) for s in votes])
    majority: list[bool | None] = [sum(s) > 2 for s in votes]
    comparison = compare(tables, majority, list(majority), 0)
    assert (
        comparison["kappa"][0] == 1.0
        and comparison["difference"][0] > 0.2
        and comparison["precision"] == comparison["sensitivity"] == 1.0
    )
    blind = compare(tables, majority, [None] * 5 + list(majority[5:]), 0)
    assert (blind["scored"], blind["unscored"]) == (20, 5)
