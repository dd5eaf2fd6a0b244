"""Alembic's environment: runs the migrations on the engine that `store.migrate` passes in."""

from __future__ import annotations

from alembic import context

from truing.annotation.tables import TableBase

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    context.configure(
        connection=connection, target_metadata=TableBase.metadata, render_as_batch=True
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
