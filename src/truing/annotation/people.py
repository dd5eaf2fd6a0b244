"""Accounts: invitation links, pass phrases (argon2id), sign-in, roles, and the audit log.

A link works once and expires. Tokens are stored as SHA-256 only, so a stolen database opens no
account. Opening a used link raises a flag, because a stranger may have used it first. No real names
are stored.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Struct
from sqlalchemy import delete, select, update

from truing.annotation.sign_in_limits import (
    find_known_browser,
    make_browser_token,
    normalise_name,
    release_guess,
)
from truing.annotation.store import RequestRejected, Transaction
from truing.annotation.study import clean_text, decode_list, new_id
from truing.annotation.tables import (
    Audit,
    Flag,
    Invitation,
    Lease,
    Login,
    Person,
    Slot,
    Submission,
)

ROLES = ("redteamer", "rater", "adjudicator", "admin")
LOGIN_SECONDS = 14 * 86400.0
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
    """Creates a link by which a person sets a new pass phrase; returns its token.

    Earlier links of the person that were not used end with it.
    """
    # Locked, so that of two links that are created at once only one stays.
    person = tx.session.scalar(
        select(Person)
        .where(Person.pseudonym == normalise_name(pseudonym), Person.active)
        .with_for_update(key_share=True)
    )
    if person is None or person.phrase_hash is None:
        raise RequestRejected("missing", "There is no such person.")
    revoke_phrase_resets(tx, person.id)
    token = create_invitation(
        tx, decode_list(person.roles), by=by, note="new pass phrase", days=days
    )
    find_invitation(tx, token).person_id = person.id
    return token


def revoke_phrase_resets(tx: Transaction, person_id: str) -> None:
    """Revokes the unused links that set a new pass phrase of a person."""
    tx.session.execute(
        update(Invitation)
        .where(Invitation.person_id == person_id, Invitation.used.is_(None))
        .values(revoked=True)
    )


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
    name = normalise_name(pseudonym)
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
    _set_phrase(tx, person, phrase_hash)
    add_audit_entry(tx, person_id, "phrase", invitation.id)
    return person_id


class Credentials(Struct, frozen=True, kw_only=True):
    """What is stored for a name that somebody wants to sign in with; none without an account.

    `known_browser`: the browser has signed in with this account before.
    """

    person_id: str | None = None
    phrase_hash: str | None = None
    known_browser: str | None = None


def find_credentials(tx: Transaction, pseudonym: str, browser_token: str = "") -> Credentials:
    """Returns the credentials of an active account; empty ones if there is none."""
    name = normalise_name(pseudonym)
    person = tx.session.scalar(select(Person).where(Person.pseudonym == name, Person.active))
    if person is None:
        return Credentials()
    known = find_known_browser(tx, browser_token, person.id, person.phrase_hash)
    return Credentials(person_id=person.id, phrase_hash=person.phrase_hash, known_browser=known)


class NewLogin(Struct, frozen=True, kw_only=True):
    """The values of the two cookies of a new login.

    `token` opens the account until the login ends; `browser_token` only makes the browser known.
    """

    token: str
    browser_token: str


def complete_sign_in(
    tx: Transaction,
    credentials: Credentials,
    matches: bool,
    guess: tuple[str, ...],
    replaced_token: str = "",
) -> NewLogin | None:
    """Signs in after the phrase was checked; returns the login, or none if the phrase was wrong.

    `guess` is the reservation of the guess: it stays counted if the phrase was wrong. The login of
    `replaced_token`, which the same browser had before, ends.
    """
    person_id = credentials.person_id
    person = None
    if person_id is not None:
        # Locked and checked again: the account may have been suspended, or its phrase changed,
        # meanwhile, and such a change ends all logins.
        person = tx.session.get(Person, person_id, with_for_update={"key_share": True})
    unchanged = (
        person is not None and person.active and person.phrase_hash == credentials.phrase_hash
    )
    if not matches or person is None or not unchanged:
        # Not the typed name: it may be a pass phrase in the wrong field.
        add_audit_entry(tx, person_id, "sign-in-failed")
        return None
    release_guess(tx, guess)
    sign_out(tx, replaced_token)
    return sign_in(tx, person.id)


def sign_in(tx: Transaction, person_id: str) -> NewLogin:
    """Creates a login."""
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
    phrase_hash = tx.session.get_one(Person, person_id).phrase_hash or ""
    return NewLogin(token=token, browser_token=make_browser_token(tx, person_id, phrase_hash))


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


def _set_phrase(tx: Transaction, person: Person, phrase_hash: str) -> None:
    """Sets a pass phrase; ends every login, known browser and unused link of the person."""
    person.phrase_hash = phrase_hash  # known browsers end with the old one
    tx.session.flush()
    _end_logins(tx, person.id)
    revoke_phrase_resets(tx, person.id)


def change_phrase(tx: Transaction, person_id: str, phrase_hash: str) -> NewLogin:
    """Sets a new pass phrase and ends every login; returns a new one."""
    _set_phrase(tx, tx.session.get_one(Person, person_id), phrase_hash)
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
        revoke_phrase_resets(tx, person_id)
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
