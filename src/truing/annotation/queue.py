"""The review queue: exclusive leases that expire, ratings, gold items.

Each item has k slots; a slot is leased to one person at a time. An expired lease may still be
submitted as long as nobody else has the slot; after that the rating is stored but not counted, and
its author is told. So no item gets more than k counted ratings, and no work is thrown away.
"""

from __future__ import annotations

import json
from typing import Literal

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Executable, and_, exists, func, or_, select

from truing.annotation import wellbeing
from truing.annotation.people import add_audit_entry, raise_flag
from truing.annotation.review_items import GoldRange, Target, decode_targets
from truing.annotation.store import RequestRejected, Transaction
from truing.annotation.study import Study, clean_text, new_id
from truing.annotation.tables import (
    ItemHarm,
    Lease,
    OptOut,
    Person,
    Rating,
    ReviewItem,
    Skip,
    Slot,
)
from truing.core.types import Conversation

COUNT_LIMIT = 1000
_EXPIRED_AT_ONCE = 20  # leases that one claim marks as expired
SubmitOutcome = Literal["done", "late", "again"]
# SELECT ... FOR NO KEY UPDATE (PostgreSQL): a plain FOR UPDATE would also block inserts of rows
# that refer to this one by a foreign key.
_NO_KEY_LOCK = {"key_share": True}


class Assessment(Struct, frozen=True, kw_only=True):
    """What a rater or adjudicator submits: a grade of 1 to 5 for each response, categories, a note.

    `success` is how far the red-teamer came, 0 to 4, if the rater can tell.
    """

    grades: tuple[int, ...]
    categories: tuple[str, ...] = ()
    success: int | None = None
    note: str = ""


class LeasedItem(Struct, frozen=True, kw_only=True):
    """An item as its lease holder sees it; without author and gold range."""

    token: str
    item_id: str
    conversation: Conversation
    targets: tuple[Target, ...]
    expires: float
    dialogue: bool


def _is_suitable(person: Person) -> ColumnElement[bool]:
    """Returns the SQL condition that an open item suits a person.

    That is: not written, held, rated or skipped by them, and in no category that they opted out of.
    """
    item_id = ReviewItem.id
    has_slot = exists().where(Slot.item_id == item_id, Slot.person_id == person.id)
    has_rated = exists().where(Rating.item_id == item_id, Rating.person_id == person.id)
    has_skipped = exists().where(Skip.item_id == item_id, Skip.person_id == person.id)
    opted_out = exists().where(
        ItemHarm.item_id == item_id,
        OptOut.category == ItemHarm.category,
        OptOut.person_id == person.id,
    )
    excluded = (e.correlate(ReviewItem) for e in (has_slot, has_rated, has_skipped, opted_out))
    not_author = or_(ReviewItem.author_id.is_(None), ReviewItem.author_id != person.id)
    suitable = and_(ReviewItem.open, *(~e for e in excluded), not_author)
    return suitable if person.unsorted else and_(suitable, ReviewItem.sorted)


def _is_claimable(tx: Transaction) -> ColumnElement[bool]:
    """Returns the SQL condition that a slot is free or that its lease has expired."""
    return or_(Slot.state == "free", and_(Slot.state == "leased", Slot.expires < tx.now))


def claim_item(tx: Transaction, person_id: str, study: Study) -> LeasedItem | None:
    """Returns the item that a person holds, its lease renewed, or leases the next suitable one.

    A held item in a category that they have opted out of since goes back to the queue. Returns None
    if nothing is suitable. Raises RequestRejected without consent, during a break or past the
    exposure budget.
    """
    # The lock serialises two claims of one person (a double click), so they get one item.
    person = tx.session.get(Person, person_id, with_for_update=_NO_KEY_LOCK)
    if person is None or not person.active:
        raise RequestRejected("missing", "There is no such account.")
    wellbeing.check_admission(tx, person, study)
    _mark_expired_leases(tx, person_id)
    leased = tx.session.scalar(
        select(Slot).where(Slot.person_id == person_id, Slot.state == "leased")
    )
    if leased is not None:
        review_item = tx.session.get_one(ReviewItem, leased.item_id)
        if not _is_unwanted(tx, review_item, person):
            leased.expires = tx.now + study.lease_minutes * 60
            _mark_held(tx, leased)
            return _to_leased_item(review_item, leased)
        # Another rater has since added a category that this person opted out of.
        _end_held_lease(tx, leased, "released")
        _free_slot(leased)
    slot = _add_gold_slot(tx, person, study) or _find_next_slot(tx, person)
    if slot is None:
        return None
    _end_held_lease(tx, slot, "expired")  # of whoever had the slot before
    slot.state, slot.person_id, slot.lease = "leased", person_id, new_id() + new_id()
    slot.expires = tx.now + study.lease_minutes * 60
    tx.session.add(
        Lease(
            token=slot.lease,
            slot_id=slot.id,
            item_id=slot.item_id,
            person_id=person_id,
            granted=tx.now,
            outcome="held",
        )
    )
    tx.session.flush()
    return _to_leased_item(tx.session.get_one(ReviewItem, slot.item_id), slot)


def _is_unwanted(tx: Transaction, item: ReviewItem, person: Person) -> bool:
    categories = set(
        tx.session.scalars(select(ItemHarm.category).where(ItemHarm.item_id == item.id))
    )
    return bool(categories & wellbeing.load_opt_outs(tx, person.id)) or (
        not item.sorted and not person.unsorted
    )


def _find_next_slot(tx: Transaction, person: Person) -> Slot | None:
    """Returns (locked) a claimable slot of the first suitable item.

    On PostgreSQL, slots that other transactions are claiming are locked; they are skipped, not
    waited for.
    """
    claimable = (
        exists().where(Slot.item_id == ReviewItem.id, _is_claimable(tx)).correlate(ReviewItem)
    )
    contended: list[str] = []  # items all of whose claimable slots are locked
    while True:
        # ix_items_open gives the order, so the query reads few items however long the queue is.
        suitable = select(ReviewItem.id).where(
            _is_suitable(person),
            ReviewItem.gold.is_(None),
            claimable,
            ReviewItem.id.not_in(contended),
        )
        item_id = tx.session.scalar(
            suitable.order_by(ReviewItem.priority, ReviewItem.rank).limit(1)
        )
        if item_id is None:
            return None
        slots = (
            select(Slot)
            .where(Slot.item_id == item_id, _is_claimable(tx))
            .order_by(Slot.number)
            .limit(1)
        )
        slot = tx.session.scalar(slots.with_for_update(skip_locked=True))
        if slot is not None:
            return slot
        contended.append(item_id)


def _add_gold_slot(tx: Transaction, person: Person, study: Study) -> Slot | None:
    """Returns a new slot of a gold item if one is due: every `gold_every` ratings of a person."""
    if study.gold_every < 1:
        return None
    # Half an interval in, so that nobody starts with a gold item.
    if count_ratings(tx, person.id) % study.gold_every != study.gold_every // 2:
        return None
    gold_items = (
        select(ReviewItem)
        .where(_is_suitable(person), ReviewItem.gold.is_not(None))
        .order_by(ReviewItem.rank)
        .limit(1)
    )
    gold_item = tx.session.scalar(gold_items)
    if gold_item is None:
        return None
    # Locked before counting: (item_id, number) is unique.
    gold_item = tx.session.get_one(ReviewItem, gold_item.id, with_for_update=_NO_KEY_LOCK)
    n_slots = tx.session.scalar(
        select(func.count()).select_from(Slot).where(Slot.item_id == gold_item.id)
    )
    slot = Slot(id=new_id(), item_id=gold_item.id, number=n_slots or 0, state="free", expires=0.0)
    tx.session.add(slot)
    return slot


def _to_leased_item(review_item: ReviewItem, slot: Slot) -> LeasedItem:
    return LeasedItem(
        token=str(slot.lease),
        item_id=review_item.id,
        expires=slot.expires,
        dialogue=review_item.source == "dialogue",
        conversation=msgspec.json.decode(review_item.conversation, type=Conversation),
        targets=decode_targets(review_item),
    )


def _not_your_page() -> RequestRejected:
    return RequestRejected("missing", "This page does not exist, or is not yours.")


def _lease_lost() -> RequestRejected:
    return RequestRejected(
        "late", "This item is no longer reserved for you. You may simply take the next one."
    )


def find_leased_item(tx: Transaction, person_id: str, token: str) -> LeasedItem:
    """Returns the item of a lease; raises RequestRejected for everybody but its holder."""
    lease = tx.session.get(Lease, token)
    if lease is None or lease.person_id != person_id:
        raise _not_your_page()
    slot = tx.session.get(Slot, lease.slot_id)
    if slot is None or slot.lease != token or slot.state != "leased":
        raise _lease_lost()
    return _to_leased_item(tx.session.get_one(ReviewItem, lease.item_id), slot)


def renew_lease(tx: Transaction, person_id: str, token: str, study: Study) -> float:
    """Extends a lease by a full term; returns its new end."""
    find_leased_item(tx, person_id, token)
    slot = tx.session.get_one(Slot, tx.session.get_one(Lease, token).slot_id, with_for_update=True)
    # Checked again: somebody may have claimed the slot before it was locked.
    if slot.lease != token or slot.state != "leased":
        raise _lease_lost()
    slot.expires = tx.now + study.lease_minutes * 60
    _mark_held(tx, slot)
    return slot.expires


def submit_rating(
    tx: Transaction, person_id: str, token: str, assessment: Assessment, study: Study
) -> SubmitOutcome:
    """Stores a rating.

    Returns "done", "late" (the slot had been leased to somebody else: stored but not counted) or
    "again" (this person has rated the item already; nothing changes).
    """
    person = tx.session.get(Person, person_id, with_for_update=_NO_KEY_LOCK)
    lease = tx.session.get(Lease, token, with_for_update=True)
    if person is None or lease is None or lease.person_id != person_id:
        raise _not_your_page()
    if tx.session.scalar(
        select(Rating.id).where(Rating.item_id == lease.item_id, Rating.person_id == person_id)
    ):
        return "again"
    review_item = tx.session.get_one(ReviewItem, lease.item_id, with_for_update=_NO_KEY_LOCK)
    _check_assessment(assessment, len(decode_targets(review_item)), study)
    slot = tx.session.get(Slot, lease.slot_id, with_for_update=True)
    # A free slot counts too: the lease was released or expired, and nobody took it since.
    counted = slot is not None and (
        slot.state == "free" or (slot.state == "leased" and slot.lease == token)
    )
    tx.session.add(
        Rating(
            id=new_id(),
            item_id=review_item.id,
            person_id=person_id,
            lease=token,
            at=tx.now,
            success=assessment.success,
            grades=json.dumps(assessment.grades),
            categories=json.dumps(assessment.categories),
            counted=counted,
            note=clean_text(assessment.note)[:2000],
            seconds=tx.now - lease.granted,
        )
    )
    lease.outcome = "done" if counted else "late"
    if slot is not None and counted:
        slot.state, slot.person_id, slot.lease = "done", person_id, token
    _add_categories(tx, review_item, assessment.categories)
    _update_progress(tx, review_item)
    points = wellbeing.exposure_points(study, assessment.categories, max(assessment.grades))
    wellbeing.add_exposure(tx, person, points, study)
    _check_gold(tx, review_item, person_id, assessment)
    add_audit_entry(tx, person_id, "rate", review_item.id, lease.outcome)
    return "done" if counted else "late"


def _check_assessment(assessment: Assessment, n_targets: int, study: Study) -> None:
    if len(assessment.grades) != n_targets or any(
        g not in (1, 2, 3, 4, 5) for g in assessment.grades
    ):
        raise RequestRejected("invalid", "Give every response a grade from 1 to 5.")
    if assessment.success is not None and assessment.success not in (0, 1, 2, 3, 4):
        raise RequestRejected("invalid", "Success goes from 0 to 4.")
    if set(assessment.categories) - set(study.categories().ids):
        raise RequestRejected("invalid", "That is no category of this study.")


def _add_categories(tx: Transaction, item: ReviewItem, categories: tuple[str, ...]) -> None:
    """Adds a rater's categories to the item, so that opt-outs of later raters apply to them."""
    known = set(tx.session.scalars(select(ItemHarm.category).where(ItemHarm.item_id == item.id)))
    tx.session.add_all(
        ItemHarm(item_id=item.id, category=c) for c in dict.fromkeys(categories) if c not in known
    )
    item.sorted = item.sorted or bool(categories)


def _update_progress(tx: Transaction, review_item: ReviewItem) -> None:
    """Closes an item with k ratings; the more ratings an open one has, the earlier it is served."""
    if review_item.gold is not None:
        return
    tx.session.flush()
    states = tx.session.scalars(select(Slot.state).where(Slot.item_id == review_item.id)).all()
    review_item.priority = -states.count("done")
    review_item.open = any(s != "done" for s in states)


def _check_gold(
    tx: Transaction, review_item: ReviewItem, person_id: str, assessment: Assessment
) -> None:
    if review_item.gold is None:
        return
    gold = msgspec.json.decode(review_item.gold, type=GoldRange)
    worst = max(assessment.grades)
    if not gold.low <= worst <= gold.high:
        raise_flag(
            tx,
            "gold item missed",
            review_item.id,
            f"graded {worst}, expected {gold.low} to {gold.high}",
            person_id,
        )


def _mark_expired_leases(tx: Transaction, person_id: str) -> None:
    """Records "expired" for leases of other people whose time has run out, some at a time."""
    expired = (
        select(Lease)
        .join(Slot, Slot.lease == Lease.token)
        .where(Slot.state == "leased", Slot.expires < tx.now, Lease.outcome == "held")
        .where(Lease.person_id != person_id)
        .limit(_EXPIRED_AT_ONCE)
    )
    # A lease under which a rating is being submitted is locked, and skipped.
    for lease in tx.session.scalars(expired.with_for_update(skip_locked=True, of=Lease)):
        lease.outcome = "expired"


def _mark_held(tx: Transaction, slot: Slot) -> None:
    lease = tx.session.get(Lease, slot.lease)
    if lease is not None and lease.outcome == "expired":
        lease.outcome = "held"


def _end_held_lease(tx: Transaction, slot: Slot, outcome: str) -> None:
    """Records how the lease that a slot still names has ended, if nothing is recorded yet.

    A rating that is being submitted under it has it locked, and will record "late" itself.
    """
    held_lease = select(Lease).where(Lease.token == slot.lease, Lease.outcome == "held")
    lease = tx.session.scalar(held_lease.with_for_update(skip_locked=True))
    if lease is not None:
        lease.outcome = outcome


def _free_slot(slot: Slot) -> None:
    slot.state, slot.person_id, slot.lease, slot.expires = "free", None, None, 0.0


def skip_item(tx: Transaction, person_id: str, token: str, study: Study) -> None:
    """Returns a leased item to the queue; it is not offered to this person again.

    The person gets the exposure points of having seen it.
    """
    lease = tx.session.get(Lease, token, with_for_update=True)
    if lease is None or lease.person_id != person_id:
        raise _not_your_page()
    if lease.outcome not in ("held", "expired"):
        return
    lease.outcome = "skipped"
    if tx.session.get(Skip, (lease.item_id, person_id)) is None:
        tx.session.add(Skip(item_id=lease.item_id, person_id=person_id, at=tx.now))
    slot = tx.session.get(Slot, lease.slot_id, with_for_update=True)
    if slot is not None and slot.lease == token and slot.state == "leased":
        _free_slot(slot)
    item = tx.session.get_one(ReviewItem, lease.item_id)
    points = item.severity * wellbeing.SEEN_SHARE
    wellbeing.add_exposure(tx, tx.session.get_one(Person, person_id), points, study)
    add_audit_entry(tx, person_id, "skip", item.id)


def count_progress(tx: Transaction) -> dict[str, int]:
    """Returns the numbers of items, open items, gold items, slots, done slots and late ratings."""

    def count(query: Executable) -> int:
        return int(tx.session.scalar(query) or 0)

    row_count = func.count()
    not_gold = ReviewItem.gold.is_(None)
    item_rows = select(row_count).select_from(ReviewItem)
    slots = (
        select(row_count)
        .select_from(Slot)
        .join(ReviewItem, ReviewItem.id == Slot.item_id)
        .where(not_gold)
    )
    return {
        "items": count(item_rows.where(not_gold)),
        "open": count(item_rows.where(not_gold, ReviewItem.open)),
        "gold": count(item_rows.where(ReviewItem.gold.is_not(None))),
        "slots": count(slots),
        "done": count(slots.where(Slot.state == "done")),
        "late": count(select(row_count).select_from(Rating).where(~Rating.counted)),
    }


def count_available(tx: Transaction, person_id: str) -> int:
    """Returns how many items a person could claim now, at most `COUNT_LIMIT`."""
    person = tx.session.get_one(Person, person_id)
    claimable = (
        exists().where(Slot.item_id == ReviewItem.id, _is_claimable(tx)).correlate(ReviewItem)
    )
    available = (
        select(ReviewItem.id)
        .where(_is_suitable(person), ReviewItem.gold.is_(None), claimable)
        .limit(COUNT_LIMIT)
        .subquery()
    )
    return tx.session.scalar(select(func.count()).select_from(available)) or 0


def count_ratings(tx: Transaction, person_id: str) -> int:
    """Returns how many ratings a person has submitted."""
    return (
        tx.session.scalar(
            select(func.count()).select_from(Rating).where(Rating.person_id == person_id)
        )
        or 0
    )
