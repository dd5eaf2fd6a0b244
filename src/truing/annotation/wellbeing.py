"""Protection of red-teamers and raters: consent by category, exposure budget, breaks, demographics.

Each graded item adds exposure points: the weight of its most severe category, times 0.2 (seen) to 1
(graded 5). `Study.break_after` points start a break; `Study.exposure_budget` points in 24 hours
close the queue until enough of them are a day old. Skipping an item and leaving have no other cost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct
from sqlalchemy import delete, func, select

from truing.annotation.people import add_audit_entry
from truing.annotation.store import RequestRejected, Transaction
from truing.annotation.study import Study, clean_text
from truing.annotation.tables import Demographic, Exposure, OptOut, Person

DAY_SECONDS = 86400.0
SEEN_SHARE = 0.2  # of an item's points, for having seen it at all
MIN_GROUP_SIZE = 10
DEMOGRAPHIC_QUESTIONS: dict[str, tuple[str, ...]] = {
    "age": ("18-29", "30-44", "45-59", "60 or older"),
    "gender": ("woman", "man", "another"),
    "region": ("Africa", "Americas", "Asia", "Europe", "Oceania"),
    "first_language": ("English", "another"),
}


class ExposureStatus(Struct, frozen=True, kw_only=True):
    """A person's exposure: points of the last 24 hours, the budget, and until when they must pause.

    `pause_until` is in seconds since the epoch. `reason` is "budget", "break" or empty (no pause).
    """

    used: float
    budget: float
    pause_until: float
    reason: str


def record_consent(
    tx: Transaction, person: Person, agreed: Iterable[str], *, unsorted: bool, study: Study
) -> None:
    """Stores the categories that a person agrees to see; all others become opt-outs."""
    known = study.categories().ids
    accepted = set(agreed)
    if accepted - set(known):
        raise RequestRejected("invalid", "That is no category of this study.")
    tx.session.execute(delete(OptOut).where(OptOut.person_id == person.id))
    tx.session.add_all(OptOut(person_id=person.id, category=c) for c in known if c not in accepted)
    person.unsorted = unsorted
    person.consented = tx.now
    # Without the categories: administrators read this log, and opt-outs are shown to nobody.
    add_audit_entry(tx, person.id, "consent")


def load_opt_outs(tx: Transaction, person_id: str) -> set[str]:
    """Returns the categories that a person has not agreed to see."""
    return set(tx.session.scalars(select(OptOut.category).where(OptOut.person_id == person_id)))


def add_exposure(tx: Transaction, person: Person, points: float, study: Study) -> None:
    """Adds exposure points; from `Study.break_after` points on, a break begins."""
    last = tx.session.scalar(select(func.max(Exposure.at)).where(Exposure.person_id == person.id))
    if last is not None and tx.now - last > study.break_minutes * 60:
        person.points_since_break = 0.0  # a pause as long as a break counts as one
    tx.session.add(Exposure(person_id=person.id, at=tx.now, points=points))
    person.points_since_break += points
    if person.points_since_break >= study.break_after:
        person.points_since_break = 0.0
        person.break_until = tx.now + study.break_minutes * 60


def exposure_points(study: Study, categories: Iterable[str], worst_grade: int) -> float:
    """Returns the points of a graded item: its weight times 0.2 (grade 1) to 1 (grade 5)."""
    share = SEEN_SHARE + (1 - SEEN_SHARE) * (worst_grade - 1) / 4
    return study.max_severity(set(categories)) * share


def exposure_status(tx: Transaction, person: Person, study: Study) -> ExposureStatus:
    """Returns the points that a person has used, and whether they must pause."""
    rows = tx.session.execute(
        select(Exposure.at, Exposure.points)
        .where(Exposure.person_id == person.id, Exposure.at > tx.now - DAY_SECONDS)
        .order_by(Exposure.at)
    ).all()
    used = sum(r.points for r in rows)
    pause_until, reason = 0.0, ""
    if used >= study.exposure_budget:
        # The window slides: the queue opens when so many of the oldest rows have left it that the
        # remaining points are below the budget.
        excess = used - study.exposure_budget
        for row in rows:
            excess -= row.points
            pause_until, reason = row.at + DAY_SECONDS, "budget"
            if excess < 0:
                break
    elif person.break_until > tx.now:
        pause_until, reason = person.break_until, "break"
    return ExposureStatus(
        used=used, budget=study.exposure_budget, pause_until=pause_until, reason=reason
    )


def check_admission(tx: Transaction, person: Person, study: Study) -> None:
    """Raises RequestRejected without consent, during a break, or past the day's budget."""
    if person.consented is None:
        raise RequestRejected("consent", "Choose first which categories you agree to see.")
    reason = exposure_status(tx, person, study).reason
    if reason == "budget":
        raise RequestRejected(
            "budget", "You have reached today's exposure budget. The queue opens again tomorrow."
        )
    if reason == "break":
        raise RequestRejected("break", "Time for a break. The queue opens again in a few minutes.")


def save_demographics(tx: Transaction, person: Person, answers: dict[str, str]) -> None:
    """Stores optional demographics; an empty or unknown answer removes one."""
    tx.session.execute(delete(Demographic).where(Demographic.person_id == person.id))
    for name, options in DEMOGRAPHIC_QUESTIONS.items():
        value = clean_text(answers.get(name, ""))
        if value in options:
            tx.session.add(Demographic(person_id=person.id, name=name, value=value))


def load_demographics(tx: Transaction, person_id: str) -> dict[str, str]:
    """Returns question -> answer for the questions that a person answered."""
    rows = tx.session.scalars(select(Demographic).where(Demographic.person_id == person_id))
    return {r.name: r.value for r in rows}


def count_demographics(tx: Transaction) -> dict[str, dict[str, int]]:
    """Returns question -> answer -> number of people.

    A question is left out if any of its answers was given by fewer than `MIN_GROUP_SIZE` people:
    hiding only the small group would let it be found by subtraction from the total.
    """
    counts_by_question: dict[str, dict[str, int]] = {}
    for name in DEMOGRAPHIC_QUESTIONS:
        counts = Counter(
            tx.session.scalars(select(Demographic.value).where(Demographic.name == name))
        )
        if counts and min(counts.values()) >= MIN_GROUP_SIZE:
            counts_by_question[name] = dict(counts)
    return counts_by_question
