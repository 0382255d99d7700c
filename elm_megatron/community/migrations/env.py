"""Alembic's entry: the connection comes from `community.database.upgrade`."""

from __future__ import annotations

from alembic import context

from elm_megatron.community.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
