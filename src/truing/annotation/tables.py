"""The database schema as SQLAlchemy 2 models. Times are seconds since 1970, lists JSON text.

A *person* red-teams in *dialogues* of *turns*; each turn has a pair of *answers*. An *item* is what
raters see: a conversation, and the responses in it that they grade. Each item has k *slots*, one
for each rating; a slot is free, leased or done. A *lease* reserves a slot for one person for some
minutes. Tables and columns match `migrations/` (a test compares them).
"""

from __future__ import annotations

from sqlalchemy import Float, ForeignKey, Index, String, Text, UniqueConstraint, false, true
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class TableBase(DeclarativeBase):
    """The declarative base; the tests compare `TableBase.metadata` with the migrations."""


class Setting(TableBase):
    """One value by name: the study as JSON, the server's secret, lineages of models."""

    __tablename__ = "settings"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class Person(TableBase):
    """An account. `roles` is a JSON list of redteamer, rater, adjudicator, admin.

    `blur`: texts are hidden until shown; `unsorted`: agrees to items without a known category. A
    deleted account has no `phrase_hash`.
    """

    __tablename__ = "people"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    pseudonym: Mapped[str] = mapped_column(String(64), unique=True)
    phrase_hash: Mapped[str | None] = mapped_column(String(255))
    roles: Mapped[str] = mapped_column(Text)
    created: Mapped[float] = mapped_column(Float)
    active: Mapped[bool] = mapped_column(server_default=true())
    blur: Mapped[bool] = mapped_column(server_default=true())
    consented: Mapped[float | None] = mapped_column(Float)
    unsorted: Mapped[bool] = mapped_column(server_default=false())
    break_until: Mapped[float] = mapped_column(Float, server_default="0")
    points_since_break: Mapped[float] = mapped_column(Float, server_default="0")


class Demographic(TableBase):
    """One optional answer to a demographic question; shown only as counts."""

    __tablename__ = "demographics"
    person_id: Mapped[str] = mapped_column(
        ForeignKey("people.id", ondelete="CASCADE"), primary_key=True
    )
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[str] = mapped_column(String(64))


class OptOut(TableBase):
    """A category that a person has not agreed to see."""

    __tablename__ = "opt_outs"
    person_id: Mapped[str] = mapped_column(
        ForeignKey("people.id", ondelete="CASCADE"), primary_key=True
    )
    category: Mapped[str] = mapped_column(String(128), primary_key=True)


class Exposure(TableBase):
    """Exposure points of a person at one time."""

    __tablename__ = "exposures"
    __table_args__ = (Index("ix_exposures_person_at", "person_id", "at"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    at: Mapped[float] = mapped_column(Float)
    points: Mapped[float] = mapped_column(Float)


class Invitation(TableBase):
    """A link that creates one account, or sets the pass phrase of `person_id`."""

    __tablename__ = "invitations"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    roles: Mapped[str] = mapped_column(Text)
    note: Mapped[str] = mapped_column(String(200), server_default="")
    created_by: Mapped[str | None] = mapped_column(String(32))
    created: Mapped[float] = mapped_column(Float)
    expires: Mapped[float] = mapped_column(Float)
    used_by: Mapped[str | None] = mapped_column(String(32))
    used: Mapped[float | None] = mapped_column(Float)
    revoked: Mapped[bool] = mapped_column(server_default=false())
    misuses: Mapped[int] = mapped_column(server_default="0")
    person_id: Mapped[str | None] = mapped_column(String(32))


class Login(TableBase):
    """A signed-in browser. Only the SHA-256 of its cookie is stored."""

    __tablename__ = "logins"
    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), index=True)
    created: Mapped[float] = mapped_column(Float)
    expires: Mapped[float] = mapped_column(Float)


class SignInAttempt(TableBase):
    """Number of guesses of one kind until `expires`; `bucket` is a keyed hash (sign_in_limits)."""

    __tablename__ = "sign_in_attempts"
    bucket: Mapped[str] = mapped_column(String(64), primary_key=True)
    n: Mapped[int] = mapped_column()
    expires: Mapped[float] = mapped_column(Float, index=True)


class Audit(TableBase):
    """One line of the audit log; never changed, except that a deletion erases names in `detail`.

    People appear as `person_id` only: a pseudonym stands in `people`, and is gone from everywhere
    with that row's.
    """

    __tablename__ = "audit"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[float] = mapped_column(Float, index=True)
    person_id: Mapped[str | None] = mapped_column(String(32))
    action: Mapped[str] = mapped_column(String(48))
    object: Mapped[str] = mapped_column(String(200), server_default="")
    detail: Mapped[str] = mapped_column(Text, server_default="")


class Submission(TableBase):
    """A processed form, by the key in its page; a repeated submission returns the stored result."""

    __tablename__ = "submissions"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[str] = mapped_column(String(32))
    result: Mapped[str] = mapped_column(Text)
    at: Mapped[float] = mapped_column(Float)


class Dialogue(TableBase):
    """One red-teaming dialogue. `rating` is the red-teamer's own success, 0 to 4."""

    __tablename__ = "dialogues"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    person_id: Mapped[str] = mapped_column(String(32), index=True)
    models: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))  # open, finished, abandoned
    started: Mapped[float] = mapped_column(Float)
    ended: Mapped[float | None] = mapped_column(Float)
    rating: Mapped[int | None] = mapped_column()
    goal: Mapped[str] = mapped_column(Text, server_default="")
    categories: Mapped[str] = mapped_column(Text, server_default="[]")


class DialogueTurn(TableBase):
    """One message of the red-teamer with its pair of answers.

    `picked` is the slot (0, 1) of the more harmful answer, or 2 for no difference; `continued` is
    the slot that the dialogue continues with; `flipped`: slot 0 is shown as B.
    """

    __tablename__ = "turns"
    __table_args__ = (UniqueConstraint("dialogue_id", "number"),)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    dialogue_id: Mapped[str] = mapped_column(ForeignKey("dialogues.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column()
    message: Mapped[str] = mapped_column(Text)
    flipped: Mapped[bool] = mapped_column()
    seed: Mapped[int] = mapped_column()
    at: Mapped[float] = mapped_column(Float)
    picked: Mapped[int | None] = mapped_column()
    continued: Mapped[int | None] = mapped_column()
    chosen_at: Mapped[float | None] = mapped_column(Float)


class StoredAnswer(TableBase):
    """One answer of a turn's pair; `grade` is the red-teamer's, 1 to 5."""

    __tablename__ = "answers"
    turn_id: Mapped[str] = mapped_column(
        ForeignKey("turns.id", ondelete="CASCADE"), primary_key=True
    )
    slot: Mapped[int] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text)
    text: Mapped[str] = mapped_column(Text)
    finish_reason: Mapped[str] = mapped_column(String(32))
    failure: Mapped[str | None] = mapped_column(Text)
    grade: Mapped[int | None] = mapped_column()


class ReviewItem(TableBase):
    """What raters see.

    `targets` is a JSON list of `review_items.Target`; `probability` is that of the row's draw;
    `sorted`: its categories are known; `gold` is a JSON `review_items.GoldRange`. Open items are
    served by (`priority`, `rank`).
    """

    __tablename__ = "items"
    __table_args__ = (
        Index("ix_items_open", "open", "priority", "rank"),
        UniqueConstraint("source", "source_key"),
    )
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    source: Mapped[str] = mapped_column(String(400))  # "dialogue", or the name of a run
    source_key: Mapped[str] = mapped_column(String(200))
    conversation: Mapped[str] = mapped_column(Text)
    targets: Mapped[str] = mapped_column(Text)
    author_id: Mapped[str | None] = mapped_column(String(32))
    probability: Mapped[float | None] = mapped_column(Float)
    sorted: Mapped[bool] = mapped_column()
    severity: Mapped[float] = mapped_column(Float)
    gold: Mapped[str | None] = mapped_column(Text)
    open: Mapped[bool] = mapped_column(server_default=true())
    priority: Mapped[int] = mapped_column(server_default="0")
    rank: Mapped[float] = mapped_column(Float)
    created: Mapped[float] = mapped_column(Float)


class ItemHarm(TableBase):
    """A category of an item: from its data, its author or an earlier rater."""

    __tablename__ = "item_harms"
    item_id: Mapped[str] = mapped_column(
        ForeignKey("items.id", ondelete="CASCADE"), primary_key=True
    )
    category: Mapped[str] = mapped_column(String(128), primary_key=True)


class Slot(TableBase):
    """One of an item's k rating slots. `lease`: token of the lease that holds or filled it."""

    __tablename__ = "slots"
    __table_args__ = (
        UniqueConstraint("item_id", "number"),
        UniqueConstraint("item_id", "person_id"),
        Index("ix_slots_state", "state", "expires"),
        Index("ix_slots_person", "person_id", "state"),
    )
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id", ondelete="CASCADE"))
    number: Mapped[int] = mapped_column()
    state: Mapped[str] = mapped_column(String(8))  # free, leased, done
    person_id: Mapped[str | None] = mapped_column(String(32))
    lease: Mapped[str | None] = mapped_column(String(32))
    expires: Mapped[float] = mapped_column(Float, server_default="0")


class Lease(TableBase):
    """One reservation of a slot, kept as history.

    Outcome: held, done, late, skipped, released,
    or expired (its time ran out; the holder may still submit).
    """

    __tablename__ = "leases"
    token: Mapped[str] = mapped_column(String(32), primary_key=True)
    slot_id: Mapped[str] = mapped_column(String(32), index=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id", ondelete="CASCADE"), index=True)
    person_id: Mapped[str] = mapped_column(String(32))
    granted: Mapped[float] = mapped_column(Float)
    outcome: Mapped[str] = mapped_column(String(12))


class Skip(TableBase):
    """An item that a person skipped; it is not offered to them again."""

    __tablename__ = "skips"
    item_id: Mapped[str] = mapped_column(
        ForeignKey("items.id", ondelete="CASCADE"), primary_key=True
    )
    person_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    at: Mapped[float] = mapped_column(Float)


class Rating(TableBase):
    """One person's rating of one item. `counted`: false if somebody else had the slot by then."""

    __tablename__ = "ratings"
    __table_args__ = (UniqueConstraint("item_id", "person_id"),)
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    item_id: Mapped[str] = mapped_column(ForeignKey("items.id", ondelete="CASCADE"))
    person_id: Mapped[str] = mapped_column(String(32), index=True)
    lease: Mapped[str] = mapped_column(String(32), unique=True)
    at: Mapped[float] = mapped_column(Float)
    grades: Mapped[str] = mapped_column(Text)
    success: Mapped[int | None] = mapped_column()
    categories: Mapped[str] = mapped_column(Text)
    note: Mapped[str] = mapped_column(Text, server_default="")
    counted: Mapped[bool] = mapped_column(server_default=true())
    seconds: Mapped[float] = mapped_column(Float, server_default="0")


class Flag(TableBase):
    """A note for administrators: a missed gold item, a reused link. It has no effect by itself."""

    __tablename__ = "flags"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    person_id: Mapped[str | None] = mapped_column(String(32), index=True)
    object: Mapped[str] = mapped_column(String(64))
    detail: Mapped[str] = mapped_column(Text)
    at: Mapped[float] = mapped_column(Float)
    resolved: Mapped[float | None] = mapped_column(Float)
    resolution: Mapped[str] = mapped_column(Text, server_default="")


class Adjudication(TableBase):
    """An adjudicator's decision on an item. The ratings stay as they are."""

    __tablename__ = "adjudications"
    item_id: Mapped[str] = mapped_column(
        ForeignKey("items.id", ondelete="CASCADE"), primary_key=True
    )
    person_id: Mapped[str] = mapped_column(String(32))
    grades: Mapped[str] = mapped_column(Text)
    categories: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[float] = mapped_column(Float)
