"""The administrator's desk: flags, people and how far they are, invitations, the audit log."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy import func, select

from truing.annotation.people import audit
from truing.annotation.store import Refused, Tx
from truing.annotation.study import as_list, clean
from truing.annotation.tables import Audit, Dialogue, Flag, Invitation, Person, Rating


class FlagView(Struct, frozen=True, kw_only=True):
    """Something that waits for a person's look."""

    id: str
    kind: str
    pseudonym: str
    detail: str
    at: float


class PersonView(Struct, frozen=True, kw_only=True):
    """An account as the administrator sees it: no category that they opted out of, no demographics."""

    id: str
    pseudonym: str
    roles: tuple[str, ...]
    active: bool
    created: float
    ratings: int
    dialogues: int


class InvitationView(Struct, frozen=True, kw_only=True):
    """An invitation and its state: open, used, taken back, ended."""

    id: str
    roles: tuple[str, ...]
    note: str
    expires: float
    state: str


class LogLine(Struct, frozen=True, kw_only=True):
    """A line of the audit log."""

    id: int
    at: float
    pseudonym: str
    action: str
    object: str
    detail: str


def open_flags(tx: Tx) -> int:
    """How many flags nobody has looked at."""
    return (
        tx.session.scalar(select(func.count()).select_from(Flag).where(Flag.resolved.is_(None)))
        or 0
    )


def flags(tx: Tx) -> list[FlagView]:
    """The open flags, oldest first."""
    rows = tx.session.execute(
        select(Flag, Person.pseudonym)
        .outerjoin(Person, Person.id == Flag.person_id)
        .where(Flag.resolved.is_(None))
        .order_by(Flag.at)
        .limit(200)
    )
    return [
        FlagView(id=f.id, kind=f.kind, pseudonym=name or "", detail=f.detail, at=f.at)
        for f, name in rows
    ]


def resolve(tx: Tx, flag_id: str, resolution: str, *, by: str) -> None:
    """Closes a flag; the word on what was done is kept."""
    found = tx.session.get(Flag, flag_id, with_for_update=True)
    if found is None:
        raise Refused("missing", "There is no such flag.")
    if found.resolved is None:
        found.resolved, found.resolution = tx.now, clean(resolution).strip()[:500] or "seen"
        audit(tx, by, "resolve", flag_id, found.resolution)


def folk(tx: Tx) -> list[PersonView]:
    """Everybody who is not deleted, by name."""
    count = func.count()
    rated = dict(
        tx.session.execute(select(Rating.person_id, count).group_by(Rating.person_id))
        .tuples()
        .all()
    )
    talked = dict(
        tx.session.execute(
            select(Dialogue.person_id, count)
            .where(Dialogue.state == "finished")
            .group_by(Dialogue.person_id)
        )
        .tuples()
        .all()
    )
    rows = tx.session.scalars(
        select(Person).where(Person.phrase_hash.is_not(None)).order_by(Person.pseudonym)
    )
    return [
        PersonView(
            id=p.id,
            pseudonym=p.pseudonym,
            roles=tuple(as_list(p.roles)),
            active=p.active,
            created=p.created,
            ratings=rated.get(p.id, 0),
            dialogues=talked.get(p.id, 0),
        )
        for p in rows
    ]


def invitations(tx: Tx) -> list[InvitationView]:
    """The newest invitations first."""
    rows = tx.session.scalars(select(Invitation).order_by(Invitation.created.desc()).limit(100))
    return [
        InvitationView(
            id=i.id,
            roles=tuple(as_list(i.roles)),
            note=i.note,
            expires=i.expires,
            state="taken back"
            if i.revoked
            else "used"
            if i.used is not None
            else "ended"
            if i.expires < tx.now
            else "open",
        )
        for i in rows
    ]


def revoke(tx: Tx, invitation_id: str, *, by: str) -> None:
    """Takes an unused invitation back."""
    found = tx.session.get(Invitation, invitation_id, with_for_update=True)
    if found is None:
        raise Refused("missing", "There is no such invitation.")
    if found.used is None and not found.revoked:
        found.revoked = True
        audit(tx, by, "revoke", invitation_id)


def has_admin(tx: Tx) -> bool:
    """Whether anybody can administer this database."""
    active = select(Person.roles).where(Person.active, Person.phrase_hash.is_not(None))
    return any("admin" in as_list(roles) for roles in tx.session.scalars(active))


def log(tx: Tx, before: int | None, most: int) -> list[LogLine]:
    """Lines of the audit log older than `before`, newest first."""
    query = select(Audit, Person.pseudonym).outerjoin(Person, Person.id == Audit.person_id)
    if before is not None:
        query = query.where(Audit.id < before)
    rows = tx.session.execute(query.order_by(Audit.id.desc()).limit(most))
    return [
        LogLine(
            id=a.id,
            at=a.at,
            pseudonym=name or "",
            action=a.action,
            object=a.object,
            detail=a.detail,
        )
        for a, name in rows
    ]
