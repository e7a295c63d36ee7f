"""Keys may end by themselves, and tell when they were last used."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE keys ADD expires_at timestamptz, ADD used_at timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE keys DROP expires_at, DROP used_at")
