"""Adjudication: a decision on items where raters differ; the ratings stay as they are."""

from __future__ import annotations

import json

from msgspec import Struct
from sqlalchemy import select

from truing.annotation.people import add_audit_entry
from truing.annotation.queue import Assessment
from truing.annotation.review_items import decode_targets
from truing.annotation.store import RequestRejected, Transaction
from truing.annotation.study import Study, clean_text, is_harmful
from truing.annotation.tables import Adjudication, Rating, ReviewItem

MIN_SPREAD = 2  # grades this far apart are a dispute even if the verdicts agree


class Dispute(Struct, frozen=True, kw_only=True):
    """An item whose raters differ.

    `grades`: one tuple a rater, one grade a response. `spread`: largest difference of grades for
    one response. `split`: some raters call a response harmful and others do not. `settled`:
    adjudicated.
    """

    item_id: str
    spread: int
    split: bool
    grades: tuple[tuple[int, ...], ...]
    settled: bool = False


def decode_grades(text: str) -> tuple[int, ...]:
    """Decodes the stored grades of a rating or a decision, in the order of the item's responses."""
    return tuple(int(g) for g in json.loads(text))


def list_disputes(tx: Transaction, *, include_settled: bool = False) -> list[Dispute]:
    """Returns items with a split verdict or grades two or more apart: open first, widest first."""
    grades_by_item: dict[str, list[tuple[int, ...]]] = {}
    ratings = tx.session.execute(
        select(Rating.item_id, Rating.grades)
        .join(ReviewItem, ReviewItem.id == Rating.item_id)
        .where(Rating.counted, ReviewItem.gold.is_(None))
        .order_by(Rating.at)
    )
    for rating in ratings:
        grades_by_item.setdefault(rating.item_id, []).append(decode_grades(rating.grades))
    settled = set(tx.session.scalars(select(Adjudication.item_id)))
    disputes = []
    for item_id, rater_grades in grades_by_item.items():
        if item_id in settled and not include_settled:
            continue
        responses = list(zip(*rater_grades, strict=True))  # the grades of each response
        spread = max(max(grades) - min(grades) for grades in responses)
        split = any(len({is_harmful(g) for g in grades}) > 1 for grades in responses)
        if split or spread >= MIN_SPREAD:
            disputes.append(
                Dispute(
                    item_id=item_id,
                    spread=spread,
                    split=split,
                    grades=tuple(rater_grades),
                    settled=item_id in settled,
                )
            )
    return sorted(disputes, key=lambda d: (d.settled, -d.split, -d.spread, d.item_id))


def save_adjudication(
    tx: Transaction, item_id: str, person_id: str, assessment: Assessment, study: Study
) -> None:
    """Stores a decision on an item, or changes the person's own earlier one.

    Raises RequestRejected for the item's author and raters, and if another adjudicator decided it.
    """
    review_item = tx.session.get(ReviewItem, item_id, with_for_update={"key_share": True})
    if review_item is None:
        raise RequestRejected("missing", "There is no such item.")
    if review_item.author_id == person_id or tx.session.scalar(
        select(Rating.id).where(Rating.item_id == item_id, Rating.person_id == person_id)
    ):
        raise RequestRejected(
            "forbidden", "Somebody who neither wrote nor rated this has to decide."
        )
    if len(assessment.grades) != len(decode_targets(review_item)) or any(
        g not in (1, 2, 3, 4, 5) for g in assessment.grades
    ):
        raise RequestRejected("invalid", "Give every response a grade from 1 to 5.")
    if set(assessment.categories) - set(study.categories().ids):
        raise RequestRejected("invalid", "That is no category of this study.")
    decision = tx.session.get(Adjudication, item_id)
    if decision is None:
        decision = Adjudication(item_id=item_id, person_id=person_id)
        tx.session.add(decision)
    elif decision.person_id != person_id:
        raise RequestRejected(
            "late", "Another adjudicator has decided this one; the first decision stands."
        )
    decision.grades = json.dumps(assessment.grades)
    decision.categories = json.dumps(assessment.categories)
    decision.reason = clean_text(assessment.note)[:2000]
    decision.at = tx.now
    add_audit_entry(tx, person_id, "adjudicate", item_id, decision.grades)
