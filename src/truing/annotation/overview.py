"""What administrators see: flags, people and their progress, invitations, the audit log."""

from __future__ import annotations

from msgspec import Struct
from sqlalchemy import func, select

from truing.annotation.people import add_audit_entry
from truing.annotation.store import RequestRejected, Transaction
from truing.annotation.study import clean_text, decode_list
from truing.annotation.tables import Audit, Dialogue, Flag, Invitation, Person, Rating


class FlagView(Struct, frozen=True, kw_only=True):
    """An unresolved flag."""

    id: str
    kind: str
    pseudonym: str
    detail: str
    at: float


class PersonView(Struct, frozen=True, kw_only=True):
    """An account as administrators see it: without opt-outs and demographics."""

    id: str
    pseudonym: str
    roles: tuple[str, ...]
    active: bool
    created: float
    ratings: int
    dialogues: int


class InvitationView(Struct, frozen=True, kw_only=True):
    """An invitation with its state: open, used, revoked, expired."""

    id: str
    roles: tuple[str, ...]
    note: str
    expires: float
    state: str


class AuditEntry(Struct, frozen=True, kw_only=True):
    """A line of the audit log."""

    id: int
    at: float
    pseudonym: str
    action: str
    object: str
    detail: str


def count_open_flags(tx: Transaction) -> int:
    """Returns the number of unresolved flags."""
    return (
        tx.session.scalar(select(func.count()).select_from(Flag).where(Flag.resolved.is_(None)))
        or 0
    )


def list_flags(tx: Transaction) -> list[FlagView]:
    """Returns the unresolved flags, oldest first, at most 200."""
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


def resolve_flag(tx: Transaction, flag_id: str, resolution: str, *, by: str) -> None:
    """Closes a flag and stores what was done about it."""
    flag = tx.session.get(Flag, flag_id, with_for_update=True)
    if flag is None:
        raise RequestRejected("missing", "There is no such flag.")
    if flag.resolved is None:
        flag.resolved, flag.resolution = tx.now, clean_text(resolution).strip()[:500] or "seen"
        add_audit_entry(tx, by, "resolve", flag_id, flag.resolution)


def list_people(tx: Transaction) -> list[PersonView]:
    """Returns all accounts that are not deleted, by name."""
    n_ratings = (
        select(Rating.person_id, func.count().label("n")).group_by(Rating.person_id).subquery()
    )
    n_dialogues = (
        select(Dialogue.person_id, func.count().label("n"))
        .where(Dialogue.state == "finished")
        .group_by(Dialogue.person_id)
        .subquery()
    )
    rows = tx.session.execute(
        select(Person, n_ratings.c.n, n_dialogues.c.n)
        .outerjoin(n_ratings, n_ratings.c.person_id == Person.id)
        .outerjoin(n_dialogues, n_dialogues.c.person_id == Person.id)
        .where(Person.phrase_hash.is_not(None))
        .order_by(Person.pseudonym)
    )
    return [
        PersonView(
            id=person.id,
            pseudonym=person.pseudonym,
            roles=tuple(decode_list(person.roles)),
            active=person.active,
            created=person.created,
            ratings=ratings or 0,
            dialogues=dialogues or 0,
        )
        for person, ratings, dialogues in rows
    ]


def list_invitations(tx: Transaction) -> list[InvitationView]:
    """Returns the newest 100 invitations, newest first."""
    rows = tx.session.scalars(select(Invitation).order_by(Invitation.created.desc()).limit(100))
    return [
        InvitationView(
            id=i.id,
            roles=tuple(decode_list(i.roles)),
            note=i.note,
            expires=i.expires,
            state=_invitation_state(i, tx.now),
        )
        for i in rows
    ]


def _invitation_state(invitation: Invitation, now: float) -> str:
    if invitation.revoked:
        return "revoked"
    if invitation.used is not None:
        return "used"
    return "expired" if invitation.expires < now else "open"


def revoke_invitation(tx: Transaction, invitation_id: str, *, by: str) -> None:
    """Revokes an unused invitation."""
    invitation = tx.session.get(Invitation, invitation_id, with_for_update=True)
    if invitation is None:
        raise RequestRejected("missing", "There is no such invitation.")
    if invitation.used is None and not invitation.revoked:
        invitation.revoked = True
        add_audit_entry(tx, by, "revoke", invitation_id)


def has_admin(tx: Transaction) -> bool:
    """Returns whether there is an active administrator."""
    active = select(Person.roles).where(Person.active, Person.phrase_hash.is_not(None))
    return any("admin" in decode_list(roles) for roles in tx.session.scalars(active))


def read_audit_log(tx: Transaction, before: int | None, limit: int) -> list[AuditEntry]:
    """Returns up to `limit` lines of the audit log, newest first, with ids below `before`."""
    query = select(Audit, Person.pseudonym).outerjoin(Person, Person.id == Audit.person_id)
    if before is not None:
        query = query.where(Audit.id < before)
    rows = tx.session.execute(query.order_by(Audit.id.desc()).limit(limit))
    return [
        AuditEntry(
            id=line.id,
            at=line.at,
            pseudonym=name or "",
            action=line.action,
            object=line.object,
            detail=line.detail,
        )
        for line, name in rows
    ]
