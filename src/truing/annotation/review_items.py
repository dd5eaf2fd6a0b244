"""Review items: a conversation and the responses in it that raters grade."""

from __future__ import annotations

import secrets

import msgspec
from msgspec import Struct, field
from sqlalchemy import select

from truing.annotation.store import Transaction
from truing.annotation.study import Study, clean_text, new_id
from truing.annotation.tables import ItemHarm, ReviewItem, Slot
from truing.core.types import Conversation


class Target(Struct, frozen=True):
    """A response to grade: its sample and index, its message in the conversation, its model."""

    sample_id: str
    index: int
    message_index: int = field(name="at")
    model: str = ""


class GoldRange(Struct, frozen=True):
    """The expected range of the worst grade of a gold item."""

    low: int
    high: int


class NewItem(Struct, frozen=True, kw_only=True):
    """An item to add.

    `harms` none means that its categories are not known yet. `rank` (0 to 1) is its place in the
    queue; none: random.
    """

    source: str
    key: str
    conversation: Conversation
    targets: tuple[Target, ...]
    author: str | None = None
    harms: tuple[str, ...] | None = None
    probability: float | None = None
    gold: GoldRange | None = None
    rank: float | None = None


def add_item(tx: Transaction, new: NewItem, study: Study) -> str | None:
    """Adds an item with its k slots; returns its id, or none if (source, key) is there already."""
    if tx.session.scalar(
        select(ReviewItem.id).where(
            ReviewItem.source == new.source, ReviewItem.source_key == new.key
        )
    ):
        return None
    review_item = ReviewItem(
        id=new_id(),
        source=new.source[:400],
        source_key=new.key[:200],
        conversation=clean_text(msgspec.json.encode(new.conversation).decode()),
        targets=msgspec.json.encode(new.targets).decode(),
        author_id=new.author,
        probability=new.probability,
        sorted=new.harms is not None,
        severity=study.max_severity(new.harms or ()),
        open=True,
        priority=0,
        gold=None if new.gold is None else msgspec.json.encode(new.gold).decode(),
        rank=secrets.randbelow(2**40) / 2**40 if new.rank is None else new.rank,
        created=tx.now,
    )
    tx.session.add(review_item)
    tx.session.flush()
    tx.session.add_all(
        ItemHarm(item_id=review_item.id, category=c) for c in dict.fromkeys(new.harms or ())
    )
    # A gold item goes to everybody: the queue adds a slot for each person who gets it.
    if new.gold is None:
        tx.session.add_all(
            Slot(id=new_id(), item_id=review_item.id, number=n, state="free")
            for n in range(study.raters)
        )
    return review_item.id


def decode_targets(item: ReviewItem) -> tuple[Target, ...]:
    """Returns the responses to grade in an item."""
    return msgspec.json.decode(item.targets, type=tuple[Target, ...])
