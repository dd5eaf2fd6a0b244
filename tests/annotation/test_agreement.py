"""Agreement of stored ratings, against another library and by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tests.annotation.test_queue import add_queue_item, claim, submit

from truing.annotation import agreement
from truing.annotation.store import Store
from truing.annotation.study import Study
from truing.stats.agreement import krippendorff_alpha

GRADES = [
    [1, 1, 2],
    [5, 4, 5],
    [3, 1, 2],
    [2, 2, 2],
    [4, 5, 2],
    [1, 1, 1],
    [3, 4, 3],
    [5, 5, 5],
    [2, 3, 1],
    [1, 2, 1],
]


def add_rated_items(
    store: Store, study: Study, add_person: Callable[..., str], grades: list[list[int]]
) -> list[str]:
    """Adds one item for each row of grades, rated by one person for each column."""
    items = [add_queue_item(store, study, f"k{n:02d}") for n in range(len(grades))]
    for r in range(len(grades[0])):
        person = add_person(f"rater-{r}")
        while (leased := claim(store, study, person)) is not None:
            grade = grades[items.index(leased.item_id)][r]
            submit(store, study, person, leased, grade, *(["self_harm"] if grade >= 3 else []))
    return items


def test_alpha_matches_the_krippendorff_package(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    add_rated_items(store, study, add_person, GRADES)
    ratings = store.read(agreement.load_ratings)
    summary = agreement.measure_agreement(ratings, study.categories().ids)
    # alphas of the krippendorff package (0.8), of the grades and of whether they are 3 or more
    expected_alphas = {
        "ordinal": 0.7043257897218292,
        "nominal": 0.2896253602305475,
        "verdict": 0.6063348416289593,
    }
    for name, expected in expected_alphas.items():
        interval = getattr(summary, name)
        assert interval.estimate == pytest.approx(expected), name
        assert interval.lower <= interval.estimate <= interval.upper
    assert (summary.n_ratings, summary.n_units, summary.n_paired, summary.n_raters) == (
        30,
        10,
        10,
        3,
    )
    # ticked exactly where the grade is 3 or more, so the category agrees as the verdict does
    count, alpha = summary.categories["self_harm"]
    assert count == 6 and alpha is not None and summary.verdict is not None
    assert alpha.estimate == pytest.approx(summary.verdict.estimate)
    assert summary.categories["animal_abuse"] == (0, None)


def test_rater_bias_by_hand(store: Store, study: Study, add_person: Callable[..., str]) -> None:
    add_rated_items(store, study, add_person, GRADES)
    summary = agreement.measure_agreement(store.read(agreement.load_ratings), ())
    by_name = {b.rater: b for b in summary.bias}
    for r in range(3):
        other_means = [sum(g[:r] + g[r + 1 :]) / 2 for g in GRADES]
        mean = sum(g[r] - o for g, o in zip(GRADES, other_means, strict=True)) / 10
        bias = by_name[f"rater-{r}"]
        assert bias.difference == pytest.approx(mean) and bias.n == 10
        assert bias.harmful_share == pytest.approx(sum(g[r] >= 3 for g in GRADES) / 10)
        others = np.array([[g[c] for g in GRADES] for c in range(3) if c != r], float)
        assert bias.alpha_without == pytest.approx(krippendorff_alpha(others, "ordinal").estimate)


def test_alpha_without_variation_is_undefined(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    assert (
        agreement.measure_agreement(
            store.read(agreement.load_ratings), study.categories().ids
        ).ordinal
        is None
    )
    add_rated_items(store, study, add_person, [[1, 1, 1], [1, 1, 1]])
    assert agreement.measure_agreement(store.read(agreement.load_ratings), ()).ordinal is None


def test_the_version_changes_with_each_rating(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    before = store.read(agreement.ratings_version)
    assert store.read(agreement.ratings_version) == before
    add_rated_items(store, study, add_person, [[1, 2, 3]])
    assert store.read(agreement.ratings_version) != before
