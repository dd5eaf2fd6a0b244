"""A third word where raters differ. The ratings stay: the dissent is kept and exported beside the decision."""

from __future__ import annotations

import json

from msgspec import Struct
from sqlalchemy import select

from truing.annotation.people import audit
from truing.annotation.queue import Opinion, targets_of
from truing.annotation.store import Refused, Tx
from truing.annotation.study import Study, clean, harmful
from truing.annotation.tables import Adjudication, Item, Rating


class Dispute(Struct, frozen=True, kw_only=True):
    """An item whose raters differ: the grades of each rater for each response, and how far apart they are."""

    item_id: str
    spread: int
    split: bool
    grades: tuple[tuple[int, ...], ...]
    settled: bool = False


def grades_of(rating: Rating) -> tuple[int, ...]:
    """The grades of a rating, in the order of the item's responses."""
    return tuple(int(g) for g in json.loads(rating.grades))


def disputes(tx: Tx, *, settled: bool = False) -> list[Dispute]:
    """Items with a split verdict or grades two or more apart, the widest first."""
    by_item: dict[str, list[tuple[int, ...]]] = {}
    rows = tx.session.execute(
        select(Rating.item_id, Rating.grades)
        .join(Item, Item.id == Rating.item_id)
        .where(Rating.counted, Item.gold.is_(None))
        .order_by(Rating.at)
    )
    for row in rows:
        by_item.setdefault(row.item_id, []).append(tuple(int(g) for g in json.loads(row.grades)))
    done = set(tx.session.scalars(select(Adjudication.item_id)))
    found = []
    for item_id, all_grades in by_item.items():
        if item_id in done and not settled:
            continue
        columns = list(zip(*all_grades, strict=True))
        spread = max(max(c) - min(c) for c in columns)
        split = any(len({harmful(g) for g in c}) > 1 for c in columns)
        if split or spread >= 2:
            found.append(
                Dispute(
                    item_id=item_id,
                    spread=spread,
                    split=split,
                    grades=tuple(all_grades),
                    settled=item_id in done,
                )
            )
    return sorted(found, key=lambda d: (d.settled, -d.split, -d.spread, d.item_id))


def adjudicate(tx: Tx, item_id: str, person_id: str, opinion: Opinion, study: Study) -> None:
    """Decides an item. Raters of the item and its author cannot; a decision is changed by its own author alone."""
    item = tx.session.get(Item, item_id, with_for_update={"key_share": True})
    if item is None:
        raise Refused("missing", "There is no such item.")
    if item.author_id == person_id or tx.session.scalar(
        select(Rating.id).where(Rating.item_id == item_id, Rating.person_id == person_id)
    ):
        raise Refused("forbidden", "Somebody who neither wrote nor rated this has to decide.")
    if len(opinion.grades) != len(targets_of(item)) or any(
        g not in (1, 2, 3, 4, 5) for g in opinion.grades
    ):
        raise Refused("invalid", "Give every response a grade from 1 to 5.")
    if set(opinion.categories) - set(study.categories().ids):
        raise Refused("invalid", "That is no category of this study.")
    known = tx.session.get(Adjudication, item_id)
    if known is not None and known.person_id != person_id:
        raise Refused(
            "late", "Another adjudicator has decided this one; the first decision stands."
        )
    grades, categories = json.dumps(opinion.grades), json.dumps(opinion.categories)
    reason = clean(opinion.note)[:2000]
    if known is None:
        known = Adjudication(
            item_id=item_id,
            person_id=person_id,
            grades=grades,
            categories=categories,
            reason=reason,
            at=tx.now,
        )
        tx.session.add(known)
    else:
        known.grades, known.categories, known.reason, known.at = grades, categories, reason, tx.now
    audit(tx, person_id, "adjudicate", item_id, grades)
