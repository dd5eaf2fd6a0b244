"""The initial tables: people, dialogues, items, ratings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _people() -> None:
    op.create_table(
        "settings",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text(), nullable=False),
    )
    op.create_table(
        "people",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("pseudonym", sa.String(64), nullable=False, unique=True),
        sa.Column("phrase_hash", sa.String(255)),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("blur", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("consented", sa.Float()),
        sa.Column("unsorted", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("break_until", sa.Float(), nullable=False, server_default="0"),
        sa.Column("points_since_break", sa.Float(), nullable=False, server_default="0"),
    )
    op.create_table(
        "opt_outs",
        sa.Column(
            "person_id",
            sa.String(32),
            sa.ForeignKey("people.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("category", sa.String(128), primary_key=True),
    )
    op.create_table(
        "exposures",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column(
            "person_id",
            sa.String(32),
            sa.ForeignKey("people.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("points", sa.Float(), nullable=False),
    )
    op.create_index("ix_exposures_person_at", "exposures", ["person_id", "at"])


def _accounts() -> None:
    op.create_table(
        "invitations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("note", sa.String(200), nullable=False, server_default=""),
        sa.Column("created_by", sa.String(32)),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.Column("used_by", sa.String(32)),
        sa.Column("used", sa.Float()),
        sa.Column("revoked", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("misuses", sa.Integer(), nullable=False, server_default="0"),
    )
    op.create_table(
        "logins",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column(
            "person_id",
            sa.String(32),
            sa.ForeignKey("people.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
    )
    op.create_index("ix_logins_person_id", "logins", ["person_id"])
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("person_id", sa.String(32)),
        sa.Column("action", sa.String(48), nullable=False),
        sa.Column("object", sa.String(200), nullable=False, server_default=""),
        sa.Column("detail", sa.Text(), nullable=False, server_default=""),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_table(
        "submissions",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("person_id", sa.String(32), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
    )


def _dialogues() -> None:
    op.create_table(
        "dialogues",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("person_id", sa.String(32), nullable=False),
        sa.Column("models", sa.Text(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("started", sa.Float(), nullable=False),
        sa.Column("ended", sa.Float()),
        sa.Column("rating", sa.Integer()),
        sa.Column("goal", sa.Text(), nullable=False, server_default=""),
        sa.Column("categories", sa.Text(), nullable=False, server_default="[]"),
    )
    op.create_index("ix_dialogues_person_id", "dialogues", ["person_id"])
    op.create_table(
        "turns",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column(
            "dialogue_id",
            sa.String(32),
            sa.ForeignKey("dialogues.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("flipped", sa.Boolean(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("picked", sa.Integer()),
        sa.Column("continued", sa.Integer()),
        sa.Column("chosen_at", sa.Float()),
        sa.UniqueConstraint("dialogue_id", "number"),
    )
    op.create_table(
        "answers",
        sa.Column(
            "turn_id",
            sa.String(32),
            sa.ForeignKey("turns.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("slot", sa.Integer(), primary_key=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("finish_reason", sa.String(32), nullable=False),
        sa.Column("failure", sa.Text()),
        sa.Column("grade", sa.Integer()),
    )


def _items() -> None:
    op.create_table(
        "items",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("source", sa.String(400), nullable=False),
        sa.Column("source_key", sa.String(200), nullable=False),
        sa.Column("conversation", sa.Text(), nullable=False),
        sa.Column("targets", sa.Text(), nullable=False),
        sa.Column("author_id", sa.String(32)),
        sa.Column("probability", sa.Float()),
        sa.Column("sorted", sa.Boolean(), nullable=False),
        sa.Column("severity", sa.Float(), nullable=False),
        sa.Column("gold", sa.Text()),
        sa.Column("open", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("rank", sa.Float(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.UniqueConstraint("source", "source_key"),
    )
    op.create_index("ix_items_open", "items", ["open", "priority", "rank"])
    op.create_table(
        "item_harms",
        sa.Column(
            "item_id",
            sa.String(32),
            sa.ForeignKey("items.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("category", sa.String(128), primary_key=True),
    )
    op.create_table(
        "slots",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column(
            "item_id", sa.String(32), sa.ForeignKey("items.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("person_id", sa.String(32)),
        sa.Column("lease", sa.String(32)),
        sa.Column("expires", sa.Float(), nullable=False, server_default="0"),
        sa.UniqueConstraint("item_id", "number"),
        sa.UniqueConstraint("item_id", "person_id"),
    )
    op.create_index("ix_slots_person", "slots", ["person_id", "state"])
    op.create_index("ix_slots_state", "slots", ["state", "expires"])
    op.create_table(
        "leases",
        sa.Column("token", sa.String(32), primary_key=True),
        sa.Column("slot_id", sa.String(32), nullable=False),
        sa.Column(
            "item_id", sa.String(32), sa.ForeignKey("items.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("person_id", sa.String(32), nullable=False),
        sa.Column("granted", sa.Float(), nullable=False),
        sa.Column("outcome", sa.String(12), nullable=False),
    )
    op.create_index("ix_leases_item_id", "leases", ["item_id"])
    op.create_index("ix_leases_slot_id", "leases", ["slot_id"])


def _ratings() -> None:
    op.create_table(
        "skips",
        sa.Column(
            "item_id",
            sa.String(32),
            sa.ForeignKey("items.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("person_id", sa.String(32), primary_key=True),
        sa.Column("at", sa.Float(), nullable=False),
    )
    op.create_table(
        "ratings",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column(
            "item_id", sa.String(32), sa.ForeignKey("items.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("person_id", sa.String(32), nullable=False),
        sa.Column("lease", sa.String(32), nullable=False, unique=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("grades", sa.Text(), nullable=False),
        sa.Column("success", sa.Integer()),
        sa.Column("categories", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False, server_default=""),
        sa.Column("counted", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("seconds", sa.Float(), nullable=False, server_default="0"),
        sa.UniqueConstraint("item_id", "person_id"),
    )
    op.create_index("ix_ratings_person_id", "ratings", ["person_id"])
    op.create_table(
        "flags",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("person_id", sa.String(32)),
        sa.Column("object", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("resolved", sa.Float()),
        sa.Column("resolution", sa.Text(), nullable=False, server_default=""),
    )
    op.create_index("ix_flags_person_id", "flags", ["person_id"])
    op.create_table(
        "adjudications",
        sa.Column(
            "item_id",
            sa.String(32),
            sa.ForeignKey("items.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("person_id", sa.String(32), nullable=False),
        sa.Column("grades", sa.Text(), nullable=False),
        sa.Column("categories", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
    )


def upgrade() -> None:
    """Upgrades the schema to this revision."""
    _people()
    _accounts()
    _dialogues()
    _items()
    _ratings()


def downgrade() -> None:
    """Downgrades the schema to the previous revision."""
    for table in (
        "adjudications",
        "flags",
        "ratings",
        "skips",
        "leases",
        "slots",
        "item_harms",
        "items",
        "answers",
        "turns",
        "dialogues",
        "submissions",
        "audit",
        "logins",
        "invitations",
        "exposures",
        "opt_outs",
        "people",
        "settings",
    ):
        op.drop_table(table)
