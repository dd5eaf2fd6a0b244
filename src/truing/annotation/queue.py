"""The review queue: items with k slots, exclusive leases that end, ratings, gold items.

A slot belongs to one person at a time. A lease that ran out is still good as long as nobody else took the slot; after
that the rating is kept, marked as not counted, and its author is told. So no item gets more than k counted ratings, and
no work is thrown away.
"""

from __future__ import annotations

import json
import secrets
from typing import Literal

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from truing.annotation import wellbeing
from truing.annotation.people import audit, flag
from truing.annotation.store import Refused, Tx
from truing.annotation.study import Study, clean, new_id
from truing.annotation.tables import Item, ItemHarm, Lease, OptOut, Person, Rating, Skip, Slot
from truing.core.types import Conversation


class Target(Struct, frozen=True):
    """A response inside an item: its sample and index, its model, and where in the conversation it stands."""

    sample_id: str
    index: int
    at: int
    model: str = ""


class Gold(Struct, frozen=True):
    """What the worst grade of a gold item should be, from `low` to `high`."""

    low: int
    high: int


class NewItem(Struct, frozen=True, kw_only=True):
    """An item to add. `harms` none means that nobody knows yet what it is about; `rank` (0 to 1) its place, or random."""

    source: str
    key: str
    conversation: Conversation
    targets: tuple[Target, ...]
    author: str | None = None
    harms: tuple[str, ...] | None = None
    probability: float | None = None
    gold: Gold | None = None
    rank: float | None = None


class Opinion(Struct, frozen=True, kw_only=True):
    """What a rater says: a grade of 1 to 5 for each response, categories, optionally the attack's success 0 to 4."""

    grades: tuple[int, ...]
    categories: tuple[str, ...] = ()
    success: int | None = None
    note: str = ""


class Held(Struct, frozen=True, kw_only=True):
    """An item in somebody's hands."""

    token: str
    item_id: str
    conversation: Conversation
    targets: tuple[Target, ...]
    expires: float
    dialogue: bool


def renew(tx: Tx, person_id: str, token: str, study: Study) -> float:
    """Lengthens a lease that is still held; gives its new end."""
    hold(tx, person_id, token)
    slot = tx.session.get_one(Slot, tx.session.get_one(Lease, token).slot_id, with_for_update=True)
    if slot.lease != token or slot.state != "leased":
        raise Refused(
            "late", "This item is no longer in your hands. Nothing is wrong; take the next one."
        )
    slot.expires = tx.now + study.lease_minutes * 60
    return slot.expires


MOST_COUNTED = 1000
Outcome = Literal["done", "late", "again"]
# FOR NO KEY UPDATE: rows that point here by a foreign key may still be added meanwhile.
_ROW = {"key_share": True}


def add_item(tx: Tx, new: NewItem, study: Study) -> str | None:
    """Adds an item with its k slots; none if the same (source, key) is there already."""
    if tx.session.scalar(
        select(Item.id).where(Item.source == new.source, Item.source_key == new.key)
    ):
        return None
    item = Item(
        id=new_id(),
        source=new.source[:400],
        source_key=new.key[:200],
        conversation=clean(msgspec.json.encode(new.conversation).decode()),
        targets=msgspec.json.encode(new.targets).decode(),
        author_id=new.author,
        probability=new.probability,
        sorted=new.harms is not None,
        severity=study.weight(new.harms or ()),
        open=True,
        priority=0,
        gold=None if new.gold is None else msgspec.json.encode(new.gold).decode(),
        rank=secrets.randbelow(2**40) / 2**40 if new.rank is None else new.rank,
        created=tx.now,
    )
    tx.session.add(item)
    tx.session.flush()
    tx.session.add_all(
        ItemHarm(item_id=item.id, category=c) for c in dict.fromkeys(new.harms or ())
    )
    if new.gold is None:
        tx.session.add_all(
            Slot(id=new_id(), item_id=item.id, number=n, state="free") for n in range(study.raters)
        )
    return item.id


def _suitable(person: Person) -> ColumnElement[bool]:
    """That an open item suits a person: not theirs, not seen before, nothing they opted out of."""
    mine = exists().where(Slot.item_id == Item.id, Slot.person_id == person.id).correlate(Item)
    said = exists().where(Rating.item_id == Item.id, Rating.person_id == person.id).correlate(Item)
    passed = exists().where(Skip.item_id == Item.id, Skip.person_id == person.id).correlate(Item)
    unwanted = (
        exists().where(
            ItemHarm.item_id == Item.id,
            OptOut.category == ItemHarm.category,
            OptOut.person_id == person.id,
        )
    ).correlate(Item)
    others = or_(Item.author_id.is_(None), Item.author_id != person.id)
    fits = and_(Item.open, ~mine, ~said, ~passed, ~unwanted, others)
    return fits if person.unsorted else and_(fits, Item.sorted)


def claim(tx: Tx, person_id: str, study: Study) -> Held | None:
    """The item that a person holds, or the next one for them; none if nothing suits. Refused on a break."""
    person = tx.session.get(Person, person_id, with_for_update=_ROW)
    if person is None or not person.active:
        raise Refused("missing", "There is no such account.")
    wellbeing.admit(tx, person, study)
    held = tx.session.scalar(
        select(Slot).where(Slot.person_id == person_id, Slot.state == "leased")
    )
    if held is not None:
        item = tx.session.get_one(Item, held.item_id)
        if not _unwanted(tx, item, person):
            held.expires = tx.now + study.lease_minutes * 60
            return _held(item, held)
        _free(held)
    slot = _gold_slot(tx, person, study) or _next_slot(tx, person)
    if slot is None:
        return None
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
    return _held(tx.session.get_one(Item, slot.item_id), slot)


def _unwanted(tx: Tx, item: Item, person: Person) -> bool:
    about = set(tx.session.scalars(select(ItemHarm.category).where(ItemHarm.item_id == item.id)))
    return bool(about & wellbeing.opted_out(tx, person.id)) or (
        not item.sorted and not person.unsorted
    )


def _takeable(tx: Tx) -> ColumnElement[bool]:
    return or_(Slot.state == "free", and_(Slot.state == "leased", Slot.expires < tx.now))


def _next_slot(tx: Tx, person: Person) -> Slot | None:
    """A free slot of the first item that suits; an item whose slots others are taking just now is passed over."""
    free = exists().where(Slot.item_id == Item.id, _takeable(tx)).correlate(Item)
    passed: list[str] = []
    while True:
        # The index of open items gives the order, so that this looks at few of them however long the queue is.
        first = select(Item.id).where(
            _suitable(person), Item.gold.is_(None), free, Item.id.not_in(passed)
        )
        item = tx.session.scalar(first.order_by(Item.priority, Item.rank).limit(1))
        if item is None:
            return None
        slots = (
            select(Slot).where(Slot.item_id == item, _takeable(tx)).order_by(Slot.number).limit(1)
        )
        slot = tx.session.scalar(slots.with_for_update(skip_locked=True))
        if slot is not None:
            return slot
        passed.append(item)


def _gold_slot(tx: Tx, person: Person, study: Study) -> Slot | None:
    if study.gold_every < 1:
        return None
    count = rated_by(tx, person.id)
    if count % study.gold_every != study.gold_every // 2:
        return None
    gold = (
        select(Item).where(_suitable(person), Item.gold.is_not(None)).order_by(Item.rank).limit(1)
    )
    item = tx.session.scalar(gold)
    if item is None:
        return None
    item = tx.session.get_one(Item, item.id, with_for_update=_ROW)
    number = (
        tx.session.scalar(select(func.count()).select_from(Slot).where(Slot.item_id == item.id))
        or 0
    )
    slot = Slot(id=new_id(), item_id=item.id, number=number, state="free", expires=0.0)
    tx.session.add(slot)
    return slot


def _held(item: Item, slot: Slot) -> Held:
    return Held(
        token=str(slot.lease),
        item_id=item.id,
        expires=slot.expires,
        dialogue=item.source == "dialogue",
        conversation=msgspec.json.decode(item.conversation, type=Conversation),
        targets=targets_of(item),
    )


def targets_of(item: Item) -> tuple[Target, ...]:
    """The responses of an item."""
    return msgspec.json.decode(item.targets, type=tuple[Target, ...])


def hold(tx: Tx, person_id: str, token: str) -> Held:
    """The item of a lease, for its holder alone; Refused for everybody else."""
    lease = tx.session.get(Lease, token)
    if lease is None or lease.person_id != person_id:
        raise Refused("missing", "There is no such page for you.")
    slot = tx.session.get(Slot, lease.slot_id)
    if slot is None or slot.lease != token or slot.state != "leased":
        raise Refused(
            "late", "This item is no longer in your hands. Nothing is wrong; take the next one."
        )
    return _held(tx.session.get_one(Item, lease.item_id), slot)


def submit(tx: Tx, person_id: str, token: str, opinion: Opinion, study: Study) -> Outcome:
    """Takes a rating: ``done``, ``late`` (the slot had gone to somebody else) or ``again`` (it was taken before)."""
    person = tx.session.get(Person, person_id, with_for_update=_ROW)
    lease = tx.session.get(Lease, token, with_for_update=True)
    if person is None or lease is None or lease.person_id != person_id:
        raise Refused("missing", "There is no such page for you.")
    if tx.session.scalar(
        select(Rating.id).where(Rating.item_id == lease.item_id, Rating.person_id == person_id)
    ):
        return "again"
    item = tx.session.get_one(Item, lease.item_id, with_for_update=_ROW)
    _check(opinion, len(targets_of(item)), study)
    slot = tx.session.get(Slot, lease.slot_id, with_for_update=True)
    mine = slot is not None and (
        slot.state == "free" or (slot.state == "leased" and slot.lease == token)
    )
    tx.session.add(
        Rating(
            id=new_id(),
            item_id=item.id,
            person_id=person_id,
            lease=token,
            at=tx.now,
            success=opinion.success,
            grades=json.dumps(opinion.grades),
            categories=json.dumps(opinion.categories),
            counted=mine,
            note=clean(opinion.note)[:2000],
            seconds=tx.now - lease.granted,
        )
    )
    lease.outcome = "done" if mine else "late"
    if slot is not None and mine:
        slot.state, slot.person_id, slot.lease = "done", person_id, token
    _learn(tx, item, opinion.categories)
    _settle(tx, item)
    wellbeing.expose(
        tx, person, wellbeing.points(study, opinion.categories, max(opinion.grades)), study
    )
    _check_gold(tx, item, person_id, opinion)
    audit(tx, person_id, "rate", item.id, lease.outcome)
    return "done" if mine else "late"


def _check(opinion: Opinion, count: int, study: Study) -> None:
    if len(opinion.grades) != count or any(g not in (1, 2, 3, 4, 5) for g in opinion.grades):
        raise Refused("invalid", "Give every response a grade from 1 to 5.")
    if opinion.success is not None and opinion.success not in (0, 1, 2, 3, 4):
        raise Refused("invalid", "Success goes from 0 to 4.")
    if set(opinion.categories) - set(study.categories().ids):
        raise Refused("invalid", "That is no category of this study.")


def _learn(tx: Tx, item: Item, categories: tuple[str, ...]) -> None:
    """What one rater found is honoured by the queue for the next."""
    known = set(tx.session.scalars(select(ItemHarm.category).where(ItemHarm.item_id == item.id)))
    tx.session.add_all(
        ItemHarm(item_id=item.id, category=c) for c in dict.fromkeys(categories) if c not in known
    )
    item.sorted = item.sorted or bool(categories)


def _settle(tx: Tx, item: Item) -> None:
    if item.gold is not None:
        return
    tx.session.flush()
    states = tx.session.scalars(select(Slot.state).where(Slot.item_id == item.id)).all()
    item.priority = -states.count("done")
    item.open = any(s != "done" for s in states)


def _check_gold(tx: Tx, item: Item, person_id: str, opinion: Opinion) -> None:
    if item.gold is None:
        return
    gold = msgspec.json.decode(item.gold, type=Gold)
    worst = max(opinion.grades)
    if not gold.low <= worst <= gold.high:
        flag(
            tx,
            "gold item missed",
            item.id,
            f"graded {worst}, expected {gold.low} to {gold.high}",
            person_id,
        )


def _free(slot: Slot) -> None:
    slot.state, slot.person_id, slot.lease, slot.expires = "free", None, None, 0.0


def skip(tx: Tx, person_id: str, token: str, study: Study) -> None:
    """Passes an item by; it goes to somebody else and does not come back. Costs nothing but having seen it."""
    lease = tx.session.get(Lease, token, with_for_update=True)
    if lease is None or lease.person_id != person_id:
        raise Refused("missing", "There is no such page for you.")
    if lease.outcome != "held":
        return
    lease.outcome = "skipped"
    if tx.session.get(Skip, (lease.item_id, person_id)) is None:
        tx.session.add(Skip(item_id=lease.item_id, person_id=person_id, at=tx.now))
    slot = tx.session.get(Slot, lease.slot_id, with_for_update=True)
    if slot is not None and slot.lease == token and slot.state == "leased":
        _free(slot)
    item = tx.session.get_one(Item, lease.item_id)
    wellbeing.expose(tx, tx.session.get_one(Person, person_id), item.severity * 0.2, study)
    audit(tx, person_id, "skip", item.id)


def progress(tx: Tx) -> dict[str, int]:
    """Items, slots and ratings, counted."""
    count = func.count()
    real = Item.gold.is_(None)
    slots = select(count).select_from(Slot).join(Item, Item.id == Slot.item_id).where(real)
    return {
        "items": tx.session.scalar(select(count).select_from(Item).where(real)) or 0,
        "open": tx.session.scalar(select(count).select_from(Item).where(real, Item.open)) or 0,
        "gold": tx.session.scalar(select(count).select_from(Item).where(Item.gold.is_not(None)))
        or 0,
        "slots": tx.session.scalar(slots) or 0,
        "done": tx.session.scalar(slots.where(Slot.state == "done")) or 0,
        "late": tx.session.scalar(select(count).select_from(Rating).where(~Rating.counted)) or 0,
    }


def left_for(tx: Tx, person_id: str) -> int:
    """How many items this person could take now, counted up to `MOST_COUNTED`."""
    person = tx.session.get_one(Person, person_id)
    takeable = exists().where(Slot.item_id == Item.id, _takeable(tx)).correlate(Item)
    found = (
        select(Item.id)
        .where(_suitable(person), Item.gold.is_(None), takeable)
        .limit(MOST_COUNTED)
        .subquery()
    )
    return tx.session.scalar(select(func.count()).select_from(found)) or 0


def rated_by(tx: Tx, person_id: str) -> int:
    """How many ratings a person gave."""
    return (
        tx.session.scalar(
            select(func.count()).select_from(Rating).where(Rating.person_id == person_id)
        )
        or 0
    )
