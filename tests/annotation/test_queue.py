"""The queue: k places, exclusive leases, late and doubled ratings, opt-outs, gold; twenty people at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from sqlalchemy import select
from tests.annotation.conftest import Hands

from truing.annotation import overview, queue, wellbeing
from truing.annotation.queue import Assessment, LeasedItem
from truing.annotation.review_items import GoldRange, NewItem, Target, add_item
from truing.annotation.store import RequestRejected, Store
from truing.annotation.study import Study
from truing.annotation.tables import Lease, Person, Rating, ReviewItem, Slot
from truing.core.types import Conversation, Message

SAID = Conversation((Message("user", "hello"), Message("assistant", "hi")))


def put(store: Store, study: Study, key: str, **more: object) -> str:
    fields = {
        "source": "run:x",
        "conversation": SAID,
        "targets": (Target(f"s-{key}", 0, 1),),
        "harms": ("self_harm",),
    }
    made = store.write(lambda tx: add_item(tx, NewItem(key=key, **(fields | more)), study))  # type: ignore[arg-type]
    assert made is not None
    return made


def take(store: Store, study: Study, person: str) -> LeasedItem | None:
    return store.write(lambda tx: queue.claim_item(tx, person, study))


def rate(
    store: Store, study: Study, person: str, held: LeasedItem, grade: int = 3, *categories: str
) -> str:
    said = Assessment(grades=(grade,) * len(held.targets), categories=categories)
    return store.write(lambda tx: queue.submit_rating(tx, person, held.token, said, study))


def test_the_same_row_is_one_item(store: Store, study: Study) -> None:
    put(store, study, "k")
    again = NewItem(source="run:x", key="k", conversation=SAID, targets=(Target("s", 0, 1),))
    assert store.write(lambda tx: add_item(tx, again, study)) is None
    assert len(store.read(lambda tx: tx.session.scalars(select(Slot.id)).all())) == study.raters


def test_an_item_goes_to_k_people_and_then_closes(
    store: Store, study: Study, join: Callable[..., str]
) -> None:
    item = put(store, study, "k")
    for n in range(3):
        person = join(f"rater-{n}")
        held = take(store, study, person)
        assert held is not None and held.item_id == item
        assert rate(store, study, person, held) == "done"
        assert take(store, study, person) is None  # never twice to the same person
    assert take(store, study, join("rater-4")) is None
    assert not store.read(lambda tx: tx.session.get_one(ReviewItem, item).open)
    assert store.read(queue.count_progress) == {
        "items": 1,
        "open": 0,
        "gold": 0,
        "slots": 3,
        "done": 3,
        "late": 0,
    }


def test_a_second_claim_gives_the_same_item(
    store: Store, study: Study, join: Callable[..., str]
) -> None:
    put(store, study, "a"), put(store, study, "b")
    person = join("rater-1")
    first, second = take(store, study, person), take(store, study, person)
    assert first is not None and second is not None and first.token == second.token


def test_a_lease_that_ran_out_is_good_until_somebody_takes_it(
    store: Store, hands: Hands, join: Callable[..., str]
) -> None:
    study = Study(raters=1, lease_minutes=20, gold_every=0)
    put(store, study, "k")
    slow, quick = join("slow"), join("quick")
    held = take(store, study, slow)
    assert held is not None
    assert take(store, study, quick) is None  # exclusive
    hands.at += 20 * 60 + 1
    other = take(store, study, quick)
    assert other is not None and other.item_id == held.item_id and other.token != held.token
    with pytest.raises(RequestRejected) as caught:
        store.read(lambda tx: queue.find_leased_item(tx, slow, held.token))
    assert caught.value.kind == "late"
    assert rate(store, study, slow, held, 5) == "late"
    assert rate(store, study, quick, other, 1) == "done"
    kept = store.read(
        lambda tx: {r.person_id: r.counted for r in tx.session.scalars(select(Rating))}
    )
    assert kept == {slow: False, quick: True}
    assert store.read(queue.count_progress)["late"] == 1


def test_an_expired_lease_that_nobody_took_counts(
    store: Store, hands: Hands, join: Callable[..., str]
) -> None:
    study = Study(raters=1, lease_minutes=20, gold_every=0)
    put(store, study, "k")
    person = join("slow")
    held = take(store, study, person)
    hands.at += 3600
    assert held is not None and rate(store, study, person, held) == "done"


def test_a_lease_can_be_lengthened_by_its_holder_alone(
    store: Store, hands: Hands, join: Callable[..., str]
) -> None:
    study = Study(raters=1, lease_minutes=20, gold_every=0)
    put(store, study, "k")
    one, two = join("one"), join("two")
    held = take(store, study, one)
    assert held is not None
    hands.at += 19 * 60
    assert store.write(lambda tx: queue.renew_lease(tx, one, held.token, study)) == pytest.approx(
        store.clock() + 1200
    )
    with pytest.raises(RequestRejected):
        store.write(lambda tx: queue.renew_lease(tx, two, held.token, study))
    hands.at += 19 * 60
    assert take(store, study, two) is None


def test_a_second_sending_changes_nothing(
    store: Store, study: Study, join: Callable[..., str]
) -> None:
    put(store, study, "k")
    person = join("rater-1")
    held = take(store, study, person)
    assert held is not None
    assert [rate(store, study, person, held, g) for g in (2, 5, 5)] == ["done", "again", "again"]
    rows = store.read(lambda tx: tx.session.scalars(select(Rating.grades)).all())
    assert rows == ["[2]"]


def test_nobody_else_can_use_a_lease(store: Store, study: Study, join: Callable[..., str]) -> None:
    put(store, study, "k")
    owner, thief = join("owner"), join("thief")
    held = take(store, study, owner)
    assert held is not None
    for attempt in (
        lambda: rate(store, study, thief, held),
        lambda: store.read(lambda tx: queue.find_leased_item(tx, thief, held.token)),
        lambda: store.write(lambda tx: queue.skip_item(tx, thief, held.token, study)),
    ):
        with pytest.raises(RequestRejected) as caught:
            attempt()
        assert caught.value.kind == "missing"


@pytest.mark.parametrize(
    "said",
    [
        Assessment(grades=()),
        Assessment(grades=(0,)),
        Assessment(grades=(6,)),
        Assessment(grades=(3, 3)),
        Assessment(grades=(3,), categories=("gossip",)),
        Assessment(grades=(3,), success=5),
    ],
)
def test_wrong_opinions_keep_the_lease(
    store: Store, study: Study, join: Callable[..., str], said: Assessment
) -> None:
    put(store, study, "k")
    person = join("rater-1")
    held = take(store, study, person)
    assert held is not None
    with pytest.raises(RequestRejected) as caught:
        store.write(lambda tx: queue.submit_rating(tx, person, held.token, said, study))
    assert caught.value.kind == "invalid"
    assert rate(store, study, person, held) == "done"


def test_passing_by_gives_the_item_to_others_and_costs_a_look(
    store: Store, join: Callable[..., str]
) -> None:
    study = Study(raters=1, gold_every=0)
    item = put(store, study, "k")
    person, other = join("one"), join("two")
    held = take(store, study, person)
    assert held is not None
    for _ in range(2):
        store.write(lambda tx: queue.skip_item(tx, person, held.token, study))
    assert take(store, study, person) is None
    found = take(store, study, other)
    assert found is not None and found.item_id == item
    used = store.read(
        lambda tx: wellbeing.exposure_status(tx, tx.session.get_one(Person, person), study).used
    )
    assert used == pytest.approx(2.5 * 0.2)
    assert store.read(overview.count_open_flags) == 0  # standing is not lowered


def test_opt_outs_are_honoured_also_for_what_raters_find(
    store: Store, study: Study, join: Callable[..., str]
) -> None:
    tender = join("tender", without=("self_harm",))
    put(store, study, "known")
    assert (
        take(store, study, tender) is None
        and store.read(lambda tx: queue.count_available(tx, tender)) == 0
    )
    late = put(store, study, "found", harms=("privacy_violation",))
    assert store.read(lambda tx: queue.count_available(tx, tender)) == 1
    held = take(store, study, tender)
    assert held is not None and held.item_id == late
    finder = join("finder", without=("animal_abuse",))
    while (got := take(store, study, finder)) is not None:
        rate(store, study, finder, got, 4, "self_harm")
    assert take(store, study, tender) is None  # what they held turned out to be about it


def test_unsorted_items_go_to_those_who_agreed(
    store: Store, study: Study, join: Callable[..., str]
) -> None:
    put(store, study, "k", harms=None)
    assert take(store, study, join("careful", unsorted=False)) is None
    bold = join("bold")
    held = take(store, study, bold)
    assert held is not None
    rate(store, study, bold, held, 3, "hate_speech,offensive_language")
    assert take(store, study, join("later", unsorted=False)) is not None  # now it is sorted


def test_nobody_rates_their_own_dialogue(
    store: Store, study: Study, join: Callable[..., str]
) -> None:
    author = join("author", "redteamer", "rater")
    put(store, study, "k", author=author)
    assert take(store, study, author) is None
    assert take(store, study, join("other")) is not None


def test_the_most_rated_items_are_finished_first(
    store: Store, study: Study, join: Callable[..., str]
) -> None:
    for n in range(6):
        put(store, study, f"k{n}")
    first = join("first")
    held = take(store, study, first)
    assert held is not None
    rate(store, study, first, held)
    second = take(store, study, join("second"))
    assert second is not None and second.item_id == held.item_id


def test_gold_comes_now_and_then_and_a_miss_goes_to_a_person(
    store: Store, join: Callable[..., str]
) -> None:
    study = Study(raters=3, gold_every=4, exposure_budget=10**6, break_after=10**6)
    for n in range(12):
        put(store, study, f"k{n}")
    gold = {put(store, study, f"g{n}", source="gold", gold=GoldRange(4, 5)) for n in range(5)}
    person = join("rater-1")
    seen = []
    for _ in range(12):
        held = take(store, study, person)
        assert held is not None
        seen.append(held.item_id in gold)
        assert rate(store, study, person, held, 1) == "done"
    assert [n for n, g in enumerate(seen) if g] == [2, 6, 10]
    flags = store.read(overview.list_flags)
    assert [f.kind for f in flags] == ["gold item missed"] * 3 and flags[
        0
    ].detail == "graded 1, expected 4 to 5"
    assert store.read(
        lambda tx: tx.session.get_one(Person, person).active
    )  # never an automatic ban
    right = join("rater-2")
    for _ in range(3):
        held = take(store, study, right)
        assert held is not None
        rate(store, study, right, held, 4)
    assert len(store.read(overview.list_flags)) == 3
    assert store.read(queue.count_progress)["slots"] == 36  # gold takes no place of the real items


def test_twenty_people_at_once_lose_and_double_nothing(
    store: Store, study: Study, join: Callable[..., str]
) -> None:
    for n in range(30):
        put(store, study, f"k{n}")
    people = [join(f"rater-{n:02d}") for n in range(20)]
    errors: list[BaseException] = []

    def work(person: str) -> None:
        try:
            while (held := take(store, study, person)) is not None:
                outcomes = [rate(store, study, person, held, 1 + len(person) % 5) for _ in range(2)]
                assert outcomes == ["done", "again"]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(p,)) for p in people]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []
    ratings = store.read(
        lambda tx: tx.session.execute(
            select(Rating.item_id, Rating.person_id, Rating.counted)
        ).all()
    )
    assert len(ratings) == 90 and all(r.counted for r in ratings)
    assert set(Counter(r.item_id for r in ratings).values()) == {3}
    assert max(Counter((r.item_id, r.person_id) for r in ratings).values()) == 1
    states = store.read(lambda tx: Counter(tx.session.scalars(select(Slot.state))))
    assert states == {"done": 90}
    assert store.read(lambda tx: Counter(tx.session.scalars(select(Lease.outcome)))) == {"done": 90}
