"""Indexes to count by: a tenant's jobs by their states, how far an index that is built has come, how fast it
goes and what is in its way.

Made in the migration's transaction, as those of 0011: who writes waits meanwhile.
"""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEXES = {
    "jobs_counted": "jobs (tenant, state) WHERE generation IS NULL AND error IS NULL",
    "jobs_built": "jobs (generation, finished_at) WHERE state = 'succeeded' AND generation IS NOT NULL",
    "jobs_unbuilt": "jobs (generation, seq) WHERE error IS NOT NULL AND generation IS NOT NULL",
}
OF_GENERATION = "visibility_of_generation ON visibility (generation, tenant, document_id)"


def upgrade() -> None:
    for name, what in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON {what}")
    op.execute("DROP INDEX visibility_of_generation")
    op.execute(f"CREATE INDEX {OF_GENERATION} INCLUDE (version, chunks)")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
    op.execute("DROP INDEX visibility_of_generation")
    op.execute(f"CREATE INDEX {OF_GENERATION}")
