"""Review items: slots, duplicates, the stored form of targets."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import select
from tests.annotation.test_queue import CONVERSATION, add_queue_item

from truing.annotation.review_items import GoldRange, NewItem, Target, add_item, decode_targets
from truing.annotation.store import Store
from truing.annotation.study import Study
from truing.annotation.tables import ItemHarm, ReviewItem, Slot


def test_adding_the_same_row_twice_adds_one_item(store: Store, study: Study) -> None:
    add_queue_item(store, study, "k")
    again = NewItem(
        source="run:x", key="k", conversation=CONVERSATION, targets=(Target("s", 0, 1),)
    )
    assert store.write(lambda tx: add_item(tx, again, study)) is None
    assert len(store.read(lambda tx: tx.session.scalars(select(Slot.id)).all())) == study.raters


def test_targets_are_stored_with_the_key_at(store: Store, study: Study) -> None:
    # Databases and exports of earlier versions hold `at`, whatever the attribute is called.
    target = Target("s1", 2, 5, "m")
    assert msgspec.json.decode(msgspec.json.encode(target)) == {
        "sample_id": "s1",
        "index": 2,
        "at": 5,
        "model": "m",
    }
    item_id = add_queue_item(store, study, "k", targets=(target,))
    item = store.read(lambda tx: tx.session.get_one(ReviewItem, item_id))
    assert decode_targets(item) == (target,)


def test_severity_is_that_of_the_most_severe_category(store: Store, study: Study) -> None:
    harms = ("animal_abuse", "self_harm", "animal_abuse")
    item_id = add_queue_item(store, study, "k", harms=harms)
    item = store.read(lambda tx: tx.session.get_one(ReviewItem, item_id))
    assert item.severity == pytest.approx(2.5)
    stored = store.read(lambda tx: set(tx.session.scalars(select(ItemHarm.category))))
    assert stored == {"animal_abuse", "self_harm"}


def test_a_gold_item_has_no_slots_of_its_own(store: Store, study: Study) -> None:
    add_queue_item(store, study, "g", source="gold", gold=GoldRange(1, 2))
    assert store.read(lambda tx: tx.session.scalars(select(Slot.id)).all()) == []
