"""Accounts: invitation links, pass phrases (argon2), sign-in, roles, deletion, and the audit log.

A link works once and ends; only the SHA-256 of a token is stored, so that a stolen database opens no account. A link
that is opened again after its use raises a flag, because a stranger may have been the first. No real names anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Sequence

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, func, select, update

from truing.annotation.store import Refused, Tx
from truing.annotation.study import as_list, clean, new_id
from truing.annotation.tables import (
    Adjudication,
    Audit,
    Demographic,
    Dialogue,
    Exposure,
    Flag,
    Invitation,
    Item,
    Lease,
    Login,
    OptOut,
    Person,
    Rating,
    Skip,
    Slot,
    Submission,
)

ROLES = ("redteamer", "rater", "adjudicator", "admin")
LOGIN_SECONDS = 14 * 86400.0
LOCK_SECONDS, LOCK_AFTER = 900.0, 10
_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)  # OWASP's argon2id figures
_NOBODY = _HASHER.hash(secrets.token_hex(16))
_CALM = "amber brisk calm clear deft early fair gentle keen level mild noble plain quiet ready steady vivid warm wise"
_BIRDS = "avocet bittern crane dunlin egret finch grebe heron ibis jay kestrel lark merlin osprey pipit swift wren"


def token_hash(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def suggest_pseudonym() -> str:
    """Two plain words and a number."""
    return f"{secrets.choice(_CALM.split())}-{secrets.choice(_BIRDS.split())}-{secrets.randbelow(900) + 100}"


def hash_phrase(phrase: str) -> str:
    """The argon2id hash of a pass phrase of 10 characters or more; slow on purpose, so never inside a transaction."""
    if not 10 <= len(phrase) <= 200:
        raise Refused("invalid", "A pass phrase has 10 to 200 characters.")
    return _HASHER.hash(phrase)


def check_phrase(stored: str | None, phrase: str) -> bool:
    """Whether the phrase is right; takes the same time where there is no such account."""
    try:
        return _HASHER.verify(stored or _NOBODY, phrase[:200]) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def audit(tx: Tx, person_id: str | None, action: str, object_: str = "", detail: str = "") -> None:
    """Adds a line to the audit log."""
    tx.session.add(
        Audit(
            at=tx.now,
            person_id=person_id,
            action=action,
            object=object_[:200],
            detail=detail[:2000],
        )
    )


def flag(tx: Tx, kind: str, object_: str, detail: str, person_id: str | None = None) -> None:
    """Puts something on the desk of an administrator."""
    tx.session.add(
        Flag(id=new_id(), kind=kind, object=object_, detail=detail, person_id=person_id, at=tx.now)
    )


def invite(
    tx: Tx, roles: Iterable[str], *, by: str | None, note: str = "", days: float = 7.0
) -> str:
    """A new invitation; gives its token, which is nowhere else."""
    wanted = [r for r in ROLES if r in set(roles)]
    if not wanted:
        raise Refused("invalid", "Choose at least one role.")
    token = secrets.token_urlsafe(24)
    made = Invitation(
        id=new_id(),
        token_hash=token_hash(token),
        roles=json.dumps(wanted),
        note=clean(note)[:200],
        created_by=by,
        created=tx.now,
        expires=tx.now + days * 86400,
    )
    tx.session.add(made)
    audit(tx, by, "invite", made.id, ",".join(wanted))
    return token


def renewal(tx: Tx, pseudonym: str, *, by: str | None, days: float = 1.0) -> str:
    """A link by which a person who has forgotten the pass phrase sets a new one; gives its token."""
    person = tx.session.scalar(
        select(Person).where(Person.pseudonym == pseudonym.strip().lower(), Person.active)
    )
    if person is None or person.phrase_hash is None:
        raise Refused("missing", "There is no such person.")
    token = invite(tx, as_list(person.roles), by=by, note="new pass phrase", days=days)
    invitation(tx, token).person_id = person.id
    return token


def invitation(tx: Tx, token: str) -> Invitation:
    """The invitation of a token; Refused if it is unknown, ended, taken back or used."""
    found = tx.session.scalar(
        select(Invitation).where(Invitation.token_hash == token_hash(token)).with_for_update()
    )
    if found is None:
        raise Refused("missing", "This invitation link is not valid.")
    if found.revoked:
        raise Refused("gone", "This invitation was taken back.")
    if found.used is not None:
        raise Refused(
            "used",
            "This invitation link was used already. If that was not you, tell whoever sent it.",
        )
    if found.expires < tx.now:
        raise Refused("gone", "This invitation link has ended. Ask for a new one.")
    return found


def note_misuse(tx: Tx, token: str) -> None:
    """Records that a used link was opened again: perhaps somebody else had it first."""
    found = tx.session.scalar(
        select(Invitation).where(Invitation.token_hash == token_hash(token)).with_for_update()
    )
    if found is None or found.used is None:
        return
    found.misuses += 1
    audit(tx, None, "invite-reused", found.id)
    if found.misuses == 1:
        flag(
            tx,
            "link used twice",
            found.id,
            "The invitation was opened again after its use.",
            found.used_by,
        )


def accept(tx: Tx, token: str, pseudonym: str, phrase_hash: str) -> str:
    """Makes the account of an invitation (or sets a new phrase) and uses the link up; gives the person's id."""
    found = invitation(tx, token)
    if found.person_id is not None:
        return _renew(tx, found, found.person_id, phrase_hash)
    name = pseudonym.strip().lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{2,31}", name):
        raise Refused("invalid", "A pseudonym has 3 to 32 letters, digits or hyphens.")
    if tx.session.scalar(select(Person.id).where(Person.pseudonym == name)):
        raise Refused("invalid", "That pseudonym is taken.")
    person = Person(
        id=new_id(), pseudonym=name, phrase_hash=phrase_hash, roles=found.roles, created=tx.now
    )
    tx.session.add(person)
    found.used, found.used_by = tx.now, person.id
    audit(tx, person.id, "accept", found.id)
    tx.session.flush()
    return person.id


def _renew(tx: Tx, found: Invitation, person_id: str, phrase_hash: str) -> str:
    person = tx.session.get_one(Person, person_id)
    if not person.active:
        raise Refused("gone", "This invitation was taken back.")
    found.used, found.used_by = tx.now, person_id
    person.phrase_hash = phrase_hash
    tx.session.execute(delete(Login).where(Login.person_id == person_id))
    audit(tx, person_id, "phrase", found.id)
    return person_id


def stored_phrase(tx: Tx, pseudonym: str) -> tuple[str | None, str | None]:
    """(person's id, stored hash) of a pseudonym; Refused while too many attempts failed."""
    name = pseudonym.strip().lower()[:64]
    failed = tx.session.scalar(
        select(func.count())
        .select_from(Audit)
        .where(
            Audit.at > tx.now - LOCK_SECONDS, Audit.action == "sign-in-failed", Audit.object == name
        )
    )
    if (failed or 0) >= LOCK_AFTER:
        raise Refused("slow", "Too many attempts for this name. Wait a quarter of an hour.")
    person = tx.session.scalar(select(Person).where(Person.pseudonym == name, Person.active))
    return (person.id, person.phrase_hash) if person else (None, None)


def sign_in(tx: Tx, person_id: str) -> str:
    """Opens a login; gives the cookie's token."""
    token = secrets.token_urlsafe(32)
    tx.session.execute(delete(Login).where(Login.expires < tx.now))
    tx.session.add(
        Login(
            token_hash=token_hash(token),
            person_id=person_id,
            created=tx.now,
            expires=tx.now + LOGIN_SECONDS,
        )
    )
    audit(tx, person_id, "sign-in")
    return token


def who(tx: Tx, token: str) -> Person | None:
    """The active person of a cookie."""
    return tx.session.scalar(
        select(Person)
        .join(Login, Login.person_id == Person.id)
        .where(Login.token_hash == token_hash(token), Login.expires > tx.now, Person.active)
    )


def sign_out(tx: Tx, token: str) -> None:
    """Ends a login."""
    tx.session.execute(delete(Login).where(Login.token_hash == token_hash(token)))


def change_phrase(tx: Tx, person_id: str, phrase_hash: str) -> str:
    """Sets a new pass phrase, ends every login, and opens one; gives its token."""
    tx.session.get_one(Person, person_id).phrase_hash = phrase_hash
    tx.session.execute(delete(Login).where(Login.person_id == person_id))
    audit(tx, person_id, "phrase")
    return sign_in(tx, person_id)


def roles_of(person: Person) -> frozenset[str]:
    """The roles of a person."""
    return frozenset(as_list(person.roles))


def set_active(tx: Tx, person_id: str, active: bool, *, by: str) -> None:
    """Suspends an account (every login ends, its held items go back) or restores it."""
    person = tx.session.get(Person, person_id)
    if person is None:
        raise Refused("missing", "There is no such person.")
    if person_id == by:
        raise Refused("invalid", "You cannot suspend yourself.")
    person.active = active
    if not active:
        tx.session.execute(delete(Login).where(Login.person_id == person_id))
        release_all(tx, person_id)
    audit(tx, by, "restore" if active else "suspend", person_id)


def release_all(tx: Tx, person_id: str) -> None:
    """Gives back every item that a person holds."""
    held = update(Slot).where(Slot.person_id == person_id, Slot.state == "leased")
    tx.session.execute(held.values(state="free", person_id=None, lease=None, expires=0.0))
    tx.session.execute(
        update(Lease)
        .where(Lease.person_id == person_id, Lease.outcome == "held")
        .values(outcome="released")
    )


def once(tx: Tx, person_id: str, key: str) -> str | None:
    """The result of a form that was taken before under this key, by this person."""
    found = tx.session.get(Submission, key)
    if found is None:
        return None
    if found.person_id != person_id:
        raise Refused("missing", "This form belongs to somebody else.")
    return found.result


def remember(tx: Tx, person_id: str, key: str, result: str) -> None:
    """Notes that a form was taken."""
    if not 8 <= len(key) <= 64:
        raise Refused("invalid", "The form carries no key; load the page again.")
    tx.session.add(Submission(key=key, person_id=person_id, result=result, at=tx.now))


def forget(tx: Tx, person_id: str, *, withdraw: bool) -> None:
    """Deletes an account. Its work stays without a name, or with `withdraw` goes too."""
    person = tx.session.get(Person, person_id)
    if person is None:
        return
    release_all(tx, person_id)
    for table in (Login, OptOut, Demographic, Exposure):
        tx.session.execute(delete(table).where(table.person_id == person_id))
    if withdraw:
        _withdraw(tx, person_id)
    tx.session.execute(delete(Flag).where(Flag.person_id == person_id))
    person.pseudonym, person.phrase_hash, person.active = f"deleted-{new_id()}", None, False
    person.roles = "[]"
    audit(tx, person_id, "delete", "", "withdrawn" if withdraw else "kept without a name")


def _withdraw(tx: Tx, person_id: str) -> None:
    done: Sequence[str] = tx.session.scalars(
        select(Rating.item_id).where(Rating.person_id == person_id)
    ).all()
    tx.session.execute(
        update(Slot)
        .where(Slot.person_id == person_id)
        .values(state="free", person_id=None, lease=None, expires=0.0)
    )
    tx.session.execute(delete(Rating).where(Rating.person_id == person_id))
    tx.session.execute(delete(Adjudication).where(Adjudication.person_id == person_id))
    tx.session.execute(delete(Skip).where(Skip.person_id == person_id))
    if done:
        tx.session.execute(update(Item).where(Item.id.in_(done)).values(open=True))
    tx.session.execute(delete(Item).where(Item.author_id == person_id))
    tx.session.execute(delete(Dialogue).where(Dialogue.person_id == person_id))
