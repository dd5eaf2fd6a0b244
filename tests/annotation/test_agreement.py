"""Agreement of stored ratings against known values and by hand; adjudication keeps the dissent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tests.annotation.test_queue import CONVERSATION, add_queue_item, claim, submit

from truing.annotation import agreement
from truing.annotation.adjudication import list_disputes, save_adjudication
from truing.annotation.queue import Assessment
from truing.annotation.store import RequestRejected, Store, Transaction
from truing.annotation.study import Study
from truing.annotation.tables import Adjudication, Rating
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


def _rated(
    store: Store, study: Study, add_person: Callable[..., str], grades: list[list[int]]
) -> list[str]:
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
    _rated(store, study, add_person, GRADES)
    assessment = store.read(agreement.load_ratings)
    summary = agreement.measure_agreement(assessment, study.categories().ids)
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
    _rated(store, study, add_person, GRADES)
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
    _rated(store, study, add_person, [[1, 1, 1], [1, 1, 1]])
    assert agreement.measure_agreement(store.read(agreement.load_ratings), ()).ordinal is None


def test_the_version_changes_with_each_rating(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    before = store.read(agreement.ratings_version)
    _rated(store, study, add_person, [[1, 2, 3]])
    assert store.read(agreement.ratings_version) != before


def test_the_widest_split_comes_first_and_the_dissent_stays(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    items = _rated(store, study, add_person, [[1, 1, 2], [1, 3, 1], [1, 5, 1], [3, 5, 3]])
    judge, other_judge = add_person("judge", "adjudicator"), add_person("other", "adjudicator")
    summary = store.read(lambda tx: list_disputes(tx))
    assert [(d.item_id, d.split, d.spread) for d in summary] == [
        (items[2], True, 4),
        (items[1], True, 2),
        (items[3], False, 2),
    ]

    def decide(who: str, grade: int) -> None:
        assessment = Assessment(grades=(grade,), note="as the guide says")
        store.write(lambda tx: save_adjudication(tx, items[2], who, assessment, study))

    decide(judge, 5)
    decide(judge, 4)  # may change their own mind
    with pytest.raises(RequestRejected) as caught:
        decide(other_judge, 1)
    assert caught.value.kind == "late"
    decision = store.read(lambda tx: tx.session.get_one(Adjudication, items[2]))
    assert (decision.person_id, decision.grades, decision.reason) == (
        judge,
        "[4]",
        "as the guide says",
    )
    assert store.read(lambda tx: tx.session.query(Rating).count()) == 12
    assert [d.item_id for d in store.read(lambda tx: list_disputes(tx))] == [items[1], items[3]]
    assert store.read(lambda tx: list_disputes(tx, include_settled=True))[-1].settled


def test_who_rated_or_wrote_does_not_decide(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    items = _rated(store, study, add_person, [[1, 5, 1]])

    def rater(tx: Transaction) -> str:
        return tx.session.query(Rating.person_id).filter(Rating.item_id == items[0]).first()[0]  # type: ignore[index]

    first = store.read(rater)
    with pytest.raises(RequestRejected) as caught:
        store.write(
            lambda tx: save_adjudication(tx, items[0], first, Assessment(grades=(3,)), study)
        )
    assert caught.value.kind == "forbidden"
    author = add_person("author", "redteamer", "adjudicator")
    own_item = add_queue_item(store, study, "own", author=author, conversation=CONVERSATION)
    with pytest.raises(RequestRejected, match="neither wrote nor rated"):
        store.write(
            lambda tx: save_adjudication(tx, own_item, author, Assessment(grades=(3,)), study)
        )
    judge = add_person("judge", "adjudicator")
    for invalid in (
        Assessment(grades=()),
        Assessment(grades=(9,)),
        Assessment(grades=(3,), categories=("gossip",)),
    ):
        with pytest.raises(RequestRejected):
            store.write(lambda tx, w=invalid: save_adjudication(tx, items[0], judge, w, study))
    with pytest.raises(RequestRejected, match="no such item"):
        store.write(
            lambda tx: save_adjudication(tx, "nowhere", judge, Assessment(grades=(3,)), study)
        )
