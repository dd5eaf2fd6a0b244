"""Counts of sign-in attempts; no name that somebody typed stays in the audit log.

Failed sign-ins used to be recorded under the typed name: the pseudonym of an account, which then
outlived the account's deletion, or anything else, such as a pass phrase in the wrong field. They
now refer to the account, as every other line does.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Upgrades the schema to this revision."""
    op.create_table(
        "sign_in_attempts",
        sa.Column("bucket", sa.String(64), primary_key=True),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
    )
    op.create_index("ix_sign_in_attempts_expires", "sign_in_attempts", ["expires"])
    op.execute(
        "UPDATE audit SET person_id = "
        "(SELECT people.id FROM people WHERE people.pseudonym = audit.object) "
        "WHERE action = 'sign-in-failed' AND object <> ''"
    )
    op.execute("UPDATE audit SET object = '' WHERE action = 'sign-in-failed'")
    # Of two links that set a new pass phrase, only the newest works.
    op.execute(
        "UPDATE invitations SET revoked = (1 = 1) WHERE person_id IS NOT NULL AND used IS NULL "
        "AND EXISTS (SELECT 1 FROM invitations AS newer WHERE newer.created > invitations.created "
        "AND newer.person_id = invitations.person_id)"
    )
    # The old rows' bytes are still in the file: `open_store` erases them.
    op.execute("INSERT INTO settings (name, value) VALUES ('erasure_pending', '1')")


def downgrade() -> None:
    """Downgrades the schema to the previous revision."""
    op.drop_table("sign_in_attempts")
