"""The title that a document's passages go by."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE visibility ADD COLUMN called TEXT")


def downgrade() -> None:
    op.execute("ALTER TABLE visibility DROP COLUMN called")
