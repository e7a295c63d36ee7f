"""Rules of collections: what is asked of documents, what broke it, which paragraphs are known."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

UPGRADE = (
    "ALTER TABLE documents ADD COLUMN warnings JSONB NOT NULL DEFAULT '[]'",
    "ALTER TABLE jobs ADD COLUMN warnings JSONB NOT NULL DEFAULT '[]'",
    """
    CREATE TABLE collection_rules (
        tenant TEXT COLLATE "C" NOT NULL,
        collection TEXT COLLATE "C" NOT NULL,
        rules JSONB NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant, collection)
    )
    """,
    """
    CREATE TABLE paragraphs (
        tenant TEXT COLLATE "C" NOT NULL,
        hash BIGINT NOT NULL,
        document_id TEXT COLLATE "C" NOT NULL,
        PRIMARY KEY (tenant, hash, document_id)
    )
    """,
    "CREATE INDEX paragraphs_of_document ON paragraphs (tenant, document_id)",
)
DOWNGRADE = (
    "DROP TABLE paragraphs",
    "DROP TABLE collection_rules",
    "ALTER TABLE jobs DROP COLUMN warnings",
    "ALTER TABLE documents DROP COLUMN warnings",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
