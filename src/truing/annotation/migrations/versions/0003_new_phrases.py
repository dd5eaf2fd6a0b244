"""`invitations.person_id`: a link that sets a new pass phrase for an existing account."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrades the schema to this revision."""
    op.add_column("invitations", sa.Column("person_id", sa.String(32)))


def downgrade() -> None:
    """Downgrades the schema to the previous revision."""
    with op.batch_alter_table("invitations") as table:
        table.drop_column("person_id")
