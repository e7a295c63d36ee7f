"""Alembic's entry point. It runs on the connection that `app.migrate` hands it, inside its transaction."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
