"""The queue: leases, late and repeated ratings, opt-outs, gold items, concurrent raters."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

import pytest
from msgspec import structs
from sqlalchemy import select
from tests.annotation.conftest import ManualClock

from truing.annotation import overview, queue, wellbeing
from truing.annotation.queue import Assessment, LeasedItem
from truing.annotation.review_items import GoldRange, NewItem, Target, add_item
from truing.annotation.store import RequestRejected, Store
from truing.annotation.study import Study
from truing.annotation.tables import Lease, Person, Rating, ReviewItem, Slot
from truing.core.types import Conversation, Message

CONVERSATION = Conversation((Message("user", "hello"), Message("assistant", "hi")))


def add_queue_item(store: Store, study: Study, key: str, **overrides: object) -> str:
    fields = {
        "source": "run:x",
        "conversation": CONVERSATION,
        "targets": (Target(f"s-{key}", 0, 1),),
        "harms": ("self_harm",),
    }
    item_id = store.write(lambda tx: add_item(tx, NewItem(key=key, **(fields | overrides)), study))  # type: ignore[arg-type]
    assert item_id is not None
    return item_id


def claim(store: Store, study: Study, person: str) -> LeasedItem | None:
    return store.write(lambda tx: queue.claim_item(tx, person, study))


def submit(
    store: Store, study: Study, person: str, leased: LeasedItem, grade: int = 3, *categories: str
) -> str:
    assessment = Assessment(grades=(grade,) * len(leased.targets), categories=categories)
    return store.write(lambda tx: queue.submit_rating(tx, person, leased.token, assessment, study))


def test_an_item_closes_after_k_ratings(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    item = add_queue_item(store, study, "k")
    for n in range(3):
        person = add_person(f"rater-{n}")
        leased = claim(store, study, person)
        assert leased is not None and leased.item_id == item
        assert submit(store, study, person, leased) == "done"
        assert claim(store, study, person) is None  # never twice to the same person
    assert claim(store, study, add_person("rater-4")) is None
    assert not store.read(lambda tx: tx.session.get_one(ReviewItem, item).open)
    assert store.read(queue.count_progress) == {
        "items": 1,
        "open": 0,
        "gold": 0,
        "slots": 3,
        "done": 3,
        "late": 0,
    }


def test_a_second_claim_returns_the_same_item(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    add_queue_item(store, study, "a"), add_queue_item(store, study, "b")
    person = add_person("rater-1")
    first, second = claim(store, study, person), claim(store, study, person)
    assert first is not None and second is not None and first.token == second.token


def test_an_expired_lease_is_lost_when_somebody_else_claims_the_item(
    store: Store, manual_clock: ManualClock, add_person: Callable[..., str]
) -> None:
    study = Study(raters=1, lease_minutes=20, gold_every=0)
    add_queue_item(store, study, "k")
    slow, quick = add_person("slow"), add_person("quick")
    leased = claim(store, study, slow)
    assert leased is not None
    assert claim(store, study, quick) is None  # exclusive
    manual_clock.seconds += 20 * 60 + 1
    second_lease = claim(store, study, quick)
    assert (
        second_lease is not None
        and second_lease.item_id == leased.item_id
        and second_lease.token != leased.token
    )
    with pytest.raises(RequestRejected) as caught:
        store.read(lambda tx: queue.find_leased_item(tx, slow, leased.token))
    assert caught.value.kind == "late"
    assert submit(store, study, slow, leased, 5) == "late"
    assert submit(store, study, quick, second_lease, 1) == "done"
    counted = store.read(
        lambda tx: {r.person_id: r.counted for r in tx.session.scalars(select(Rating))}
    )
    assert counted == {slow: False, quick: True}
    assert store.read(queue.count_progress)["late"] == 1


def test_an_expired_lease_counts_if_nobody_else_claimed_the_item(
    store: Store, manual_clock: ManualClock, add_person: Callable[..., str]
) -> None:
    study = Study(raters=1, lease_minutes=20, gold_every=0)
    add_queue_item(store, study, "k")
    person = add_person("slow")
    leased = claim(store, study, person)
    manual_clock.seconds += 3600
    assert leased is not None and submit(store, study, person, leased) == "done"


def test_the_outcome_of_a_lease_says_how_it_ended(
    store: Store, study: Study, manual_clock: ManualClock, add_person: Callable[..., str]
) -> None:
    study = structs.replace(study, raters=1)
    add_queue_item(store, study, "k")
    slow, quick = add_person("slow-one"), add_person("quick-one")
    bystander = add_person("by-stander", without=("self_harm",))
    term = study.lease_minutes * 60 + 1

    def outcome(leased: LeasedItem | None) -> str:
        assert leased is not None
        return store.read(lambda tx: tx.session.get_one(Lease, leased.token).outcome)

    first = claim(store, study, slow)
    assert first is not None and outcome(first) == "held"
    manual_clock.seconds += term
    second = claim(store, study, quick)  # takes the slot over
    assert second is not None and (outcome(first), outcome(second)) == ("expired", "held")
    manual_clock.seconds += term
    assert claim(store, study, bystander) is None
    assert outcome(second) == "expired"  # though nobody took the slot over
    again = claim(store, study, quick)
    assert again is not None and again.token == second.token and outcome(second) == "held"
    assert submit(store, study, quick, again) == "done" and outcome(second) == "done"
    assert submit(store, study, slow, first) == "late" and outcome(first) == "late"


def test_only_the_holder_can_renew_a_lease(
    store: Store, manual_clock: ManualClock, add_person: Callable[..., str]
) -> None:
    study = Study(raters=1, lease_minutes=20, gold_every=0)
    add_queue_item(store, study, "k")
    one, two = add_person("one"), add_person("two")
    leased = claim(store, study, one)
    assert leased is not None
    manual_clock.seconds += 19 * 60
    assert store.write(lambda tx: queue.renew_lease(tx, one, leased.token, study)) == pytest.approx(
        store.clock() + 1200
    )
    with pytest.raises(RequestRejected):
        store.write(lambda tx: queue.renew_lease(tx, two, leased.token, study))
    manual_clock.seconds += 19 * 60
    assert claim(store, study, two) is None


def test_a_repeated_submission_changes_nothing(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    add_queue_item(store, study, "k")
    person = add_person("rater-1")
    leased = claim(store, study, person)
    assert leased is not None
    assert [submit(store, study, person, leased, g) for g in (2, 5, 5)] == [
        "done",
        "again",
        "again",
    ]
    rows = store.read(lambda tx: tx.session.scalars(select(Rating.grades)).all())
    assert rows == ["[2]"]


def test_only_the_holder_can_use_a_lease(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    add_queue_item(store, study, "k")
    owner, thief = add_person("owner"), add_person("thief")
    leased = claim(store, study, owner)
    assert leased is not None
    for attempt in (
        lambda: submit(store, study, thief, leased),
        lambda: store.read(lambda tx: queue.find_leased_item(tx, thief, leased.token)),
        lambda: store.write(lambda tx: queue.skip_item(tx, thief, leased.token, study)),
    ):
        with pytest.raises(RequestRejected) as caught:
            attempt()
        assert caught.value.kind == "missing"


@pytest.mark.parametrize(
    "assessment",
    [
        Assessment(grades=()),
        Assessment(grades=(0,)),
        Assessment(grades=(6,)),
        Assessment(grades=(3, 3)),
        Assessment(grades=(3,), categories=("gossip",)),
        Assessment(grades=(3,), success=5),
    ],
)
def test_an_invalid_assessment_keeps_the_lease(
    store: Store, study: Study, add_person: Callable[..., str], assessment: Assessment
) -> None:
    add_queue_item(store, study, "k")
    person = add_person("rater-1")
    leased = claim(store, study, person)
    assert leased is not None
    with pytest.raises(RequestRejected) as caught:
        store.write(lambda tx: queue.submit_rating(tx, person, leased.token, assessment, study))
    assert caught.value.kind == "invalid"
    assert submit(store, study, person, leased) == "done"


def test_a_skipped_item_goes_to_others_and_adds_seen_exposure(
    store: Store, add_person: Callable[..., str]
) -> None:
    study = Study(raters=1, gold_every=0)
    item = add_queue_item(store, study, "k")
    person, second_lease = add_person("one"), add_person("two")
    leased = claim(store, study, person)
    assert leased is not None
    for _ in range(2):
        store.write(lambda tx: queue.skip_item(tx, person, leased.token, study))
    assert claim(store, study, person) is None
    claimed = claim(store, study, second_lease)
    assert claimed is not None and claimed.item_id == item
    used = store.read(
        lambda tx: wellbeing.exposure_status(tx, tx.session.get_one(Person, person), study).used
    )
    assert used == pytest.approx(2.5 * 0.2)
    assert store.read(overview.count_open_flags) == 0  # a skip has no other consequence


def test_opt_outs_apply_to_categories_that_raters_add(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    opted_out_rater = add_person("tender", without=("self_harm",))
    add_queue_item(store, study, "known")
    assert (
        claim(store, study, opted_out_rater) is None
        and store.read(lambda tx: queue.count_available(tx, opted_out_rater)) == 0
    )
    later_item = add_queue_item(store, study, "found", harms=("privacy_violation",))
    assert store.read(lambda tx: queue.count_available(tx, opted_out_rater)) == 1
    leased = claim(store, study, opted_out_rater)
    assert leased is not None and leased.item_id == later_item
    finder = add_person("finder", without=("animal_abuse",))
    while (claimed := claim(store, study, finder)) is not None:
        submit(store, study, finder, claimed, 4, "self_harm")
    assert (
        claim(store, study, opted_out_rater) is None
    )  # the item leased to them has the category now


def test_uncategorised_items_need_consent(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    add_queue_item(store, study, "k", harms=None)
    assert claim(store, study, add_person("careful", unsorted=False)) is None
    willing = add_person("bold")
    leased = claim(store, study, willing)
    assert leased is not None
    submit(store, study, willing, leased, 3, "hate_speech,offensive_language")
    assert claim(store, study, add_person("later", unsorted=False)) is not None  # now it is sorted


def test_authors_do_not_rate_their_own_dialogue(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    author = add_person("author", "redteamer", "rater")
    add_queue_item(store, study, "k", author=author)
    assert claim(store, study, author) is None
    assert claim(store, study, add_person("other")) is not None


def test_the_most_rated_items_are_served_first(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    for n in range(6):
        add_queue_item(store, study, f"k{n}")
    first = add_person("first")
    leased = claim(store, study, first)
    assert leased is not None
    submit(store, study, first, leased)
    second = claim(store, study, add_person("second"))
    assert second is not None and second.item_id == leased.item_id


def test_gold_items_come_at_intervals_and_a_miss_raises_a_flag(
    store: Store, add_person: Callable[..., str]
) -> None:
    study = Study(raters=3, gold_every=4, exposure_budget=10**6, break_after=10**6)
    for n in range(12):
        add_queue_item(store, study, f"k{n}")
    gold = {
        add_queue_item(store, study, f"g{n}", source="gold", gold=GoldRange(4, 5)) for n in range(5)
    }
    person = add_person("rater-1")
    was_gold = []
    for _ in range(12):
        leased = claim(store, study, person)
        assert leased is not None
        was_gold.append(leased.item_id in gold)
        assert submit(store, study, person, leased, 1) == "done"
    assert [n for n, g in enumerate(was_gold) if g] == [2, 6, 10]
    flags = store.read(overview.list_flags)
    assert [f.kind for f in flags] == ["gold item missed"] * 3 and flags[
        0
    ].detail == "graded 1, expected 4 to 5"
    assert store.read(
        lambda tx: tx.session.get_one(Person, person).active
    )  # never an automatic ban
    careful_rater = add_person("rater-2")
    for _ in range(3):
        leased = claim(store, study, careful_rater)
        assert leased is not None
        submit(store, study, careful_rater, leased, 4)
    assert len(store.read(overview.list_flags)) == 3
    assert store.read(queue.count_progress)["slots"] == 36  # gold items use no slots of other items


def test_twenty_concurrent_raters_lose_and_duplicate_nothing(
    store: Store, study: Study, add_person: Callable[..., str]
) -> None:
    for n in range(30):
        add_queue_item(store, study, f"k{n}")
    rater_ids = [add_person(f"rater-{n:02d}") for n in range(20)]
    errors: list[BaseException] = []

    def work(person: str) -> None:
        try:
            while (leased := claim(store, study, person)) is not None:
                outcomes = [
                    submit(store, study, person, leased, 1 + len(person) % 5) for _ in range(2)
                ]
                assert outcomes == ["done", "again"]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(p,)) for p in rater_ids]
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
