"""Care for people: consent by category, opt-outs, the exposure budget, breaks, optional demographics.

Skipping and leaving cost nothing. Exposure is weighted by severity: each graded item adds the weight of its worst
category times 0.2 (seen) to 1 (graded 5). Past a number of points comes a break; past the day's budget, tomorrow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from msgspec import Struct
from sqlalchemy import delete, func, select

from truing.annotation.people import audit
from truing.annotation.store import Refused, Tx
from truing.annotation.study import Study, clean
from truing.annotation.tables import Demographic, Exposure, OptOut, Person

DAY = 86400.0
SMALLEST_SLICE = 10
QUESTIONS: dict[str, tuple[str, ...]] = {
    "age": ("18-29", "30-44", "45-59", "60 or older"),
    "gender": ("woman", "man", "another"),
    "region": ("Africa", "Americas", "Asia", "Europe", "Oceania"),
    "first_language": ("English", "another"),
}


class Standing(Struct, frozen=True, kw_only=True):
    """Where a person stands: points used of the day's budget, and until when they pause."""

    used: float
    budget: float
    pause_until: float
    reason: str


def consent(tx: Tx, person: Person, agreed: Iterable[str], *, unsorted: bool, study: Study) -> None:
    """Records the categories that a person agrees to see; all others are opt-outs, from now on."""
    known = study.categories().ids
    wanted = set(agreed)
    if wanted - set(known):
        raise Refused("invalid", "That is no category of this study.")
    tx.session.execute(delete(OptOut).where(OptOut.person_id == person.id))
    tx.session.add_all(OptOut(person_id=person.id, category=c) for c in known if c not in wanted)
    person.unsorted = unsorted
    person.consented = tx.now
    audit(tx, person.id, "consent")  # not which: administrators read this log


def opted_out(tx: Tx, person_id: str) -> set[str]:
    """The categories that a person does not want to see."""
    return set(tx.session.scalars(select(OptOut.category).where(OptOut.person_id == person_id)))


def expose(tx: Tx, person: Person, points: float, study: Study) -> None:
    """Adds points of exposure; past `break_after` a break begins."""
    last = tx.session.scalar(select(func.max(Exposure.at)).where(Exposure.person_id == person.id))
    if last is not None and tx.now - last > study.break_minutes * 60:
        person.points_since_break = 0.0  # a pause of their own counts as one
    tx.session.add(Exposure(person_id=person.id, at=tx.now, points=points))
    person.points_since_break += points
    if person.points_since_break >= study.break_after:
        person.points_since_break = 0.0
        person.break_until = tx.now + study.break_minutes * 60


def points(study: Study, categories: Iterable[str], worst: int) -> float:
    """Points of an item: its weight times 0.2 for having seen it, up to 1 for a grade of 5."""
    return study.weight(set(categories)) * (0.2 + 0.8 * (worst - 1) / 4)


def standing(tx: Tx, person: Person, study: Study) -> Standing:
    """The budget and the pause of a person."""
    rows = tx.session.execute(
        select(Exposure.at, Exposure.points)
        .where(Exposure.person_id == person.id, Exposure.at > tx.now - DAY)
        .order_by(Exposure.at)
    ).all()
    used = sum(r.points for r in rows)
    pause, reason = 0.0, ""
    if used >= study.exposure_budget:
        over = used - study.exposure_budget
        for row in rows:  # when enough of it is a day old
            over -= row.points
            pause, reason = row.at + DAY, "budget"
            if over < 0:
                break
    elif person.break_until > tx.now:
        pause, reason = person.break_until, "break"
    return Standing(used=used, budget=study.exposure_budget, pause_until=pause, reason=reason)


def admit(tx: Tx, person: Person, study: Study) -> None:
    """Refused unless the person has consented and is not on a break or past the day's budget."""
    if person.consented is None:
        raise Refused("consent", "Say first which categories you agree to see.")
    now = standing(tx, person, study)
    if now.reason == "budget":
        raise Refused(
            "budget", "That is enough for today. Thank you; the rest can wait until tomorrow."
        )
    if now.reason == "break":
        raise Refused("break", "Time for a break. The queue opens again in a few minutes.")


def describe(tx: Tx, person: Person, answers: dict[str, str]) -> None:
    """Stores optional demographics; an empty answer removes one."""
    tx.session.execute(delete(Demographic).where(Demographic.person_id == person.id))
    for name, options in QUESTIONS.items():
        value = clean(answers.get(name, ""))
        if value in options:
            tx.session.add(Demographic(person_id=person.id, name=name, value=value))


def described(tx: Tx, person_id: str) -> dict[str, str]:
    """What a person gave."""
    rows = tx.session.scalars(select(Demographic).where(Demographic.person_id == person_id))
    return {r.name: r.value for r in rows}


def slices(tx: Tx) -> dict[str, dict[str, int]]:
    """Question -> answer -> number of people, without any question that has a slice under ten."""
    shown: dict[str, dict[str, int]] = {}
    for name in QUESTIONS:
        counts = Counter(
            tx.session.scalars(select(Demographic.value).where(Demographic.name == name))
        )
        if counts and min(counts.values()) >= SMALLEST_SLICE:
            shown[name] = dict(counts)
    return shown
