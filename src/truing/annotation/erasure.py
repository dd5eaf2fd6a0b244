"""Deletion of an account: the name and what identifies the person go, from every table and file.

Ratings, decisions and dialogues stay without a name, or go as well if the person withdraws them.
Rows refer to people by id, so a pseudonym stands in one column. It can also stand in texts: in
those that administrators write about people, and in the person's own dialogues and notes. A name
that somebody else's study text happens to contain is left there: otherwise an account named after
a common word could, by its deletion, change the work of others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, func, select, true, update
from sqlalchemy.orm import InstrumentedAttribute

from truing.annotation.people import add_audit_entry, release_leases, revoke_phrase_resets
from truing.annotation.store import Transaction, request_erasure
from truing.annotation.study import new_id
from truing.annotation.tables import (
    Adjudication,
    Audit,
    Demographic,
    Dialogue,
    DialogueTurn,
    Exposure,
    Flag,
    Invitation,
    Login,
    OptOut,
    Person,
    Rating,
    ReviewItem,
    Skip,
    Slot,
    StoredAnswer,
    Submission,
)

NAME_REPLACEMENT = "[deleted]"
_Text = InstrumentedAttribute[str]


def delete_account(tx: Transaction, person_id: str, *, withdraw: bool) -> None:
    """Deletes an account. Its work stays, without a name; with `withdraw` it is deleted too.

    The bytes of what was deleted are still in the database's files until `finish_erasure`, which
    the caller runs after the commit.
    """
    person = tx.session.get(Person, person_id, with_for_update={"key_share": True})
    if person is None or person.phrase_hash is None:
        return
    release_leases(tx, person_id)
    revoke_phrase_resets(tx, person_id)
    if withdraw:
        _withdraw_work(tx, person_id)
    _erase_notes(tx, person_id)
    for column, condition in _texts_with_names(person_id):
        _replace_name(tx, person.pseudonym, column, condition)
    for table in (Login, OptOut, Demographic, Exposure, Submission, Flag):
        tx.session.execute(delete(table).where(table.person_id == person_id))
    # The row stays, because ratings and audit entries refer to its id.
    person.pseudonym, person.phrase_hash, person.active = f"deleted-{new_id()}", None, False
    person.roles = "[]"
    add_audit_entry(tx, person_id, "delete", "", "withdrawn" if withdraw else "kept without a name")
    request_erasure(tx)


def _erase_notes(tx: Transaction, person_id: str) -> None:
    """Erases what administrators wrote about the person: notes of invitations, closed flags."""
    of_person = (Invitation.used_by == person_id) | (Invitation.person_id == person_id)
    tx.session.execute(update(Invitation).where(of_person).values(note=""))
    flags = select(Flag.id).where(Flag.person_id == person_id)
    resolved = (Audit.action == "resolve", Audit.object.in_(flags))
    tx.session.execute(update(Audit).where(*resolved).values(detail=""))


def _texts_with_names(person_id: str) -> tuple[tuple[_Text, ColumnElement[bool]], ...]:
    """Returns the columns of free text in which a pseudonym is replaced, and in which rows."""
    own_turns = select(DialogueTurn.id).join(Dialogue).where(Dialogue.person_id == person_id)
    return (
        # Texts about people, by administrators.
        (Invitation.note, true()),
        (Flag.resolution, true()),
        (Audit.detail, Audit.action == "resolve"),
        # The person's own texts, and what the models answered to them.
        (Dialogue.goal, Dialogue.person_id == person_id),
        (DialogueTurn.message, DialogueTurn.id.in_(own_turns)),
        (StoredAnswer.text, StoredAnswer.turn_id.in_(own_turns)),
        (ReviewItem.conversation, ReviewItem.author_id == person_id),
        (Rating.note, Rating.person_id == person_id),
        (Adjudication.reason, Adjudication.person_id == person_id),
    )


def _replace_name(
    tx: Transaction, name: str, column: _Text, condition: ColumnElement[bool]
) -> None:
    """Replaces a name, as a whole word in any case, in the rows that meet a condition."""
    # In a conversation, which is JSON, a name is spelled as it is: it has no character to escape.
    pattern = re.compile(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", re.IGNORECASE | re.ASCII)
    table: Any = column.class_
    rows: Sequence[Any] = tx.session.scalars(
        select(table).where(condition, func.lower(column).contains(name, autoescape=True))
    ).all()
    for row in rows:
        setattr(row, column.key, pattern.sub(NAME_REPLACEMENT, getattr(row, column.key)))


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
