"""Links by which a person sets a new pass phrase: an invitation that names its person."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward."""
    op.add_column("invitations", sa.Column("person_id", sa.String(32)))


def downgrade() -> None:
    """Back."""
    with op.batch_alter_table("invitations") as table:
        table.drop_column("person_id")
