"""Adjudication: which items are disputes, who may decide, and that the ratings stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.annotation.test_agreement import add_rated_items
from tests.annotation.test_queue import CONVERSATION, add_queue_item

from truing.annotation.adjudication import decode_grades, list_disputes, save_adjudication
from truing.annotation.queue import Assessment
from truing.annotation.store import RequestRejected, Store, Transaction
from truing.annotation.study import Study
from truing.annotation.tables import Adjudication, Rating


def test_the_widest_split_comes_first_and_ratings_stay(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    items = add_rated_items(store, study, add_person, [[1, 1, 2], [1, 3, 1], [1, 5, 1], [3, 5, 3]])
    judge, other_judge = add_person("judge", "adjudicator"), add_person("other", "adjudicator")
    disputes = store.read(lambda tx: list_disputes(tx))
    assert [(d.item_id, d.split, d.spread) for d in disputes] == [
        (items[2], True, 4),
        (items[1], True, 2),
        (items[3], False, 2),
    ]

    def decide(person_id: str, grade: int) -> None:
        assessment = Assessment(grades=(grade,), note="as the guide says")
        store.write(lambda tx: save_adjudication(tx, items[2], person_id, assessment, study))

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


def test_authors_and_raters_cannot_decide(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    items = add_rated_items(store, study, add_person, [[1, 5, 1]])

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


def test_grades_are_decoded_in_order() -> None:
    assert decode_grades("[3, 1, 5]") == (3, 1, 5)
