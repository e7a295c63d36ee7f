"""Indexes for a ledger of a million documents: what a look at a collection, a document's revisions, errors,
open erasures and a release's audit cost grows with what is looked for, not with all there is.

Made in the migration's transaction: who writes waits meanwhile (about 15 s for a million documents), who
reads does not.
"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

INDEXES = {
    "visibility_of_collection": "visibility (generation, tenant, collection, document_id)",
    "documents_open": "documents (tenant, collection) WHERE NOT deleted AND groups = '{}'::text[]",
    "documents_grouped": "documents (tenant, collection) WHERE NOT deleted AND groups <> '{}'::text[]",
    "revisions_of_document": "revisions (tenant, document_id)",
    "jobs_with_error": "jobs (tenant, seq) WHERE error IS NOT NULL AND generation IS NULL",
    "erasures_open": "erasures (asked_at) WHERE state <> 'finished'",
    "audit_of_subject": "audit (subject, at)",
}


def upgrade() -> None:
    for name, what in INDEXES.items():
        op.execute(f"CREATE INDEX {name} ON {what}")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX {name}")
