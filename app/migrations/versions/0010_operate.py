"""The scope `admin` is a tenant's from now on, and `operate` the instance's: whoever had both keeps both."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "UPDATE keys SET scopes = array_append(scopes, 'operate') "
        "WHERE 'admin' = ANY (scopes) AND 'operate' <> ALL (scopes)"
    )


def downgrade() -> None:
    op.execute("UPDATE keys SET scopes = array_remove(scopes, 'operate')")
