"""Accounts: invitation links, pass phrases (argon2id), sign-in, roles, deletion, and the audit log.

A link works once and expires. Tokens are stored as SHA-256 only, so a stolen database opens no
account. Opening a used link raises a flag, because a stranger may have used it first. No real names
are stored.
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

from truing.annotation.store import RequestRejected, Transaction
from truing.annotation.study import clean_text, decode_list, new_id
from truing.annotation.tables import (
    Adjudication,
    Audit,
    Demographic,
    Dialogue,
    Exposure,
    Flag,
    Invitation,
    Lease,
    Login,
    OptOut,
    Person,
    Rating,
    ReviewItem,
    Skip,
    Slot,
    Submission,
)

ROLES = ("redteamer", "rater", "adjudicator", "admin")
LOGIN_SECONDS = 14 * 86400.0
LOCK_SECONDS, LOCK_AFTER = 900.0, 10
# The argon2id parameters that OWASP recommends: 19 MiB of memory, two passes, one thread.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
# Verified where there is no account, so that an unknown name takes as long as a wrong phrase.
_DUMMY_HASH = _HASHER.hash(secrets.token_hex(16))
_ADJECTIVES = (
    "amber brisk calm clear deft early fair gentle keen level mild noble plain quiet ready steady "
    "vivid warm wise"
)
_BIRDS = (
    "avocet bittern crane dunlin egret finch grebe heron ibis jay kestrel lark merlin osprey pipit "
    "swift wren"
)


def hash_token(token: str) -> str:
    """Returns the SHA-256 of a token, which is what the database stores."""
    return hashlib.sha256(token.encode()).hexdigest()


def suggest_pseudonym() -> str:
    """Returns a random pseudonym such as `calm-heron-417`."""
    adjective, bird = (secrets.choice(words.split()) for words in (_ADJECTIVES, _BIRDS))
    return f"{adjective}-{bird}-{secrets.randbelow(900) + 100}"


def hash_phrase(phrase: str) -> str:
    """Returns the argon2id hash of a pass phrase of 10 to 200 characters.

    It is slow by design, so never call it inside a transaction: SQLite has one writer.
    """
    if not 10 <= len(phrase) <= 200:
        raise RequestRejected("invalid", "A pass phrase has 10 to 200 characters.")
    return _HASHER.hash(phrase)


def check_phrase(stored: str | None, phrase: str) -> bool:
    """Returns whether the phrase matches; `stored` none (no account) takes the same time."""
    try:
        return _HASHER.verify(stored or _DUMMY_HASH, phrase[:200]) and stored is not None
    except (VerificationError, InvalidHashError):
        return False


def add_audit_entry(
    tx: Transaction, person_id: str | None, action: str, object_: str = "", detail: str = ""
) -> None:
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


def raise_flag(
    tx: Transaction, kind: str, object_: str, detail: str, person_id: str | None = None
) -> None:
    """Adds a flag to the administrators' list."""
    tx.session.add(
        Flag(id=new_id(), kind=kind, object=object_, detail=detail, person_id=person_id, at=tx.now)
    )


def create_invitation(
    tx: Transaction, roles: Iterable[str], *, by: str | None, note: str = "", days: float = 7.0
) -> str:
    """Creates an invitation and returns its token, which is stored nowhere else."""
    known_roles = [r for r in ROLES if r in set(roles)]
    if not known_roles:
        raise RequestRejected("invalid", "Choose at least one role.")
    token = secrets.token_urlsafe(24)
    invitation = Invitation(
        id=new_id(),
        token_hash=hash_token(token),
        roles=json.dumps(known_roles),
        note=clean_text(note)[:200],
        created_by=by,
        created=tx.now,
        expires=tx.now + days * 86400,
    )
    tx.session.add(invitation)
    add_audit_entry(tx, by, "invite", invitation.id, ",".join(known_roles))
    return token


def create_phrase_reset(
    tx: Transaction, pseudonym: str, *, by: str | None, days: float = 1.0
) -> str:
    """Creates a link by which a person sets a new pass phrase; returns its token."""
    person = tx.session.scalar(
        select(Person).where(Person.pseudonym == pseudonym.strip().lower(), Person.active)
    )
    if person is None or person.phrase_hash is None:
        raise RequestRejected("missing", "There is no such person.")
    token = create_invitation(
        tx, decode_list(person.roles), by=by, note="new pass phrase", days=days
    )
    find_invitation(tx, token).person_id = person.id
    return token


def _invitation_by_token(tx: Transaction, token: str) -> Invitation | None:
    return tx.session.scalar(
        select(Invitation).where(Invitation.token_hash == hash_token(token)).with_for_update()
    )


def find_invitation(tx: Transaction, token: str) -> Invitation:
    """Returns the invitation of a token; raises RequestRejected if it is not usable."""
    invitation = _invitation_by_token(tx, token)
    if invitation is None:
        raise RequestRejected("missing", "This invitation link is not valid.")
    if invitation.revoked:
        raise RequestRejected("gone", "This invitation was revoked.")
    if invitation.used is not None:
        raise RequestRejected(
            "used",
            "This invitation link was used already. If that was not you, tell whoever sent it.",
        )
    if invitation.expires < tx.now:
        raise RequestRejected("gone", "This invitation link has expired. Ask for a new one.")
    return invitation


def record_link_reuse(tx: Transaction, token: str) -> None:
    """Records that a used link was opened again; the first time raises a flag."""
    invitation = _invitation_by_token(tx, token)
    if invitation is None or invitation.used is None:
        return
    invitation.misuses += 1
    add_audit_entry(tx, None, "invite-reused", invitation.id)
    if invitation.misuses == 1:
        raise_flag(
            tx,
            "link used twice",
            invitation.id,
            "The invitation was opened again after its use.",
            invitation.used_by,
        )


def accept_invitation(tx: Transaction, token: str, pseudonym: str, phrase_hash: str) -> str:
    """Creates the account of an invitation, or sets a new phrase; returns the person's id.

    The invitation cannot be used again.
    """
    invitation = find_invitation(tx, token)
    if invitation.person_id is not None:
        return _reset_phrase(tx, invitation, invitation.person_id, phrase_hash)
    name = pseudonym.strip().lower()
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{2,31}", name):
        raise RequestRejected("invalid", "A pseudonym has 3 to 32 letters, digits or hyphens.")
    if tx.session.scalar(select(Person.id).where(Person.pseudonym == name)):
        raise RequestRejected("invalid", "That pseudonym is taken.")
    person = Person(
        id=new_id(),
        pseudonym=name,
        phrase_hash=phrase_hash,
        roles=invitation.roles,
        created=tx.now,
    )
    tx.session.add(person)
    # `find_invitation` locked the row, so of two that accept it at once the second is rejected.
    invitation.used, invitation.used_by = tx.now, person.id
    add_audit_entry(tx, person.id, "accept", invitation.id)
    tx.session.flush()
    return person.id


def _reset_phrase(tx: Transaction, invitation: Invitation, person_id: str, phrase_hash: str) -> str:
    person = tx.session.get_one(Person, person_id)
    if not person.active:
        raise RequestRejected("gone", "This invitation was revoked.")
    invitation.used, invitation.used_by = tx.now, person_id
    person.phrase_hash = phrase_hash
    _end_logins(tx, person_id)
    add_audit_entry(tx, person_id, "phrase", invitation.id)
    return person_id


def find_phrase_hash(tx: Transaction, pseudonym: str) -> tuple[str | None, str | None]:
    """Returns (person's id, stored hash) of a pseudonym; (None, None) if there is no such account.

    Raises RequestRejected after `LOCK_AFTER` failed sign-ins within `LOCK_SECONDS`.
    """
    name = pseudonym.strip().lower()[:64]
    n_failed = tx.session.scalar(
        select(func.count())
        .select_from(Audit)
        .where(
            Audit.at > tx.now - LOCK_SECONDS, Audit.action == "sign-in-failed", Audit.object == name
        )
    )
    if (n_failed or 0) >= LOCK_AFTER:
        raise RequestRejected("slow", "Too many attempts for this name. Try again in 15 minutes.")
    person = tx.session.scalar(select(Person).where(Person.pseudonym == name, Person.active))
    return (person.id, person.phrase_hash) if person else (None, None)


def sign_in(tx: Transaction, person_id: str) -> str:
    """Creates a login and returns the token for its cookie."""
    token = secrets.token_urlsafe(32)
    tx.session.execute(delete(Login).where(Login.expires < tx.now))
    tx.session.add(
        Login(
            token_hash=hash_token(token),
            person_id=person_id,
            created=tx.now,
            expires=tx.now + LOGIN_SECONDS,
        )
    )
    add_audit_entry(tx, person_id, "sign-in")
    return token


def find_signed_in(tx: Transaction, token: str) -> Person | None:
    """Returns the active person of a login token, or none."""
    return tx.session.scalar(
        select(Person)
        .join(Login, Login.person_id == Person.id)
        .where(Login.token_hash == hash_token(token), Login.expires > tx.now, Person.active)
    )


def sign_out(tx: Transaction, token: str) -> None:
    """Ends one login."""
    tx.session.execute(delete(Login).where(Login.token_hash == hash_token(token)))


def _end_logins(tx: Transaction, person_id: str) -> None:
    tx.session.execute(delete(Login).where(Login.person_id == person_id))


def change_phrase(tx: Transaction, person_id: str, phrase_hash: str) -> str:
    """Sets a new pass phrase and ends every login; returns the token of a new one."""
    tx.session.get_one(Person, person_id).phrase_hash = phrase_hash
    _end_logins(tx, person_id)
    add_audit_entry(tx, person_id, "phrase")
    return sign_in(tx, person_id)


def roles_of(person: Person) -> frozenset[str]:
    """Returns the roles of a person."""
    return frozenset(decode_list(person.roles))


def set_active(tx: Transaction, person_id: str, active: bool, *, by: str) -> None:
    """Suspends an account (ends every login, releases its leases) or restores it."""
    person = tx.session.get(Person, person_id)
    if person is None:
        raise RequestRejected("missing", "There is no such person.")
    if person_id == by:
        raise RequestRejected("invalid", "You cannot suspend yourself.")
    person.active = active
    if not active:
        _end_logins(tx, person_id)
        release_leases(tx, person_id)
    add_audit_entry(tx, by, "restore" if active else "suspend", person_id)


def release_leases(tx: Transaction, person_id: str) -> None:
    """Puts every item that a person holds back into the queue."""
    leased = update(Slot).where(Slot.person_id == person_id, Slot.state == "leased")
    tx.session.execute(leased.values(state="free", person_id=None, lease=None, expires=0.0))
    tx.session.execute(
        update(Lease)
        .where(Lease.person_id == person_id, Lease.outcome == "held")
        .values(outcome="released")
    )


def find_submission(tx: Transaction, person_id: str, key: str) -> str | None:
    """Returns the stored result of a form that was submitted before with this key, or none."""
    submission = tx.session.get(Submission, key)
    if submission is None:
        return None
    if submission.person_id != person_id:
        raise RequestRejected("missing", "This form belongs to somebody else.")
    return submission.result


def save_submission(tx: Transaction, person_id: str, key: str, result: str) -> None:
    """Stores the result of a form under its key, for `find_submission`."""
    if not 8 <= len(key) <= 64:
        raise RequestRejected("invalid", "The form carries no key; load the page again.")
    tx.session.add(Submission(key=key, person_id=person_id, result=result, at=tx.now))


def delete_account(tx: Transaction, person_id: str, *, withdraw: bool) -> None:
    """Deletes an account. Its work stays, without a name; with `withdraw` it is deleted too."""
    person = tx.session.get(Person, person_id)
    if person is None:
        return
    release_leases(tx, person_id)
    for table in (Login, OptOut, Demographic, Exposure):
        tx.session.execute(delete(table).where(table.person_id == person_id))
    if withdraw:
        _withdraw_work(tx, person_id)
    tx.session.execute(delete(Flag).where(Flag.person_id == person_id))
    # The row stays, because ratings and audit entries refer to its id.
    person.pseudonym, person.phrase_hash, person.active = f"deleted-{new_id()}", None, False
    person.roles = "[]"
    add_audit_entry(tx, person_id, "delete", "", "withdrawn" if withdraw else "kept without a name")


def _withdraw_work(tx: Transaction, person_id: str) -> None:
    """Deletes a person's ratings, decisions and dialogues; items that they rated are open again."""
    rated: Sequence[str] = tx.session.scalars(
        select(Rating.item_id).where(Rating.person_id == person_id)
    ).all()
    tx.session.execute(
        update(Slot)
        .where(Slot.person_id == person_id)
        .values(state="free", person_id=None, lease=None, expires=0.0)
    )
    for table in (Rating, Adjudication, Skip):
        tx.session.execute(delete(table).where(table.person_id == person_id))
    if rated:
        tx.session.execute(update(ReviewItem).where(ReviewItem.id.in_(rated)).values(open=True))
    tx.session.execute(delete(ReviewItem).where(ReviewItem.author_id == person_id))
    tx.session.execute(delete(Dialogue).where(Dialogue.person_id == person_id))
