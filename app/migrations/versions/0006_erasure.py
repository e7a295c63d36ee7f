"""Erasing: files that nobody needs, erasures under way; collections that were deleted; vectors used again."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

UPGRADE = (
    "ALTER TABLE collections ADD COLUMN deleted BOOLEAN NOT NULL DEFAULT false",
    "ALTER TABLE jobs ADD COLUMN reused INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE generations ADD COLUMN reused BIGINT NOT NULL DEFAULT 0",
    "CREATE INDEX documents_of_content ON documents (tenant, content_hash) WHERE NOT deleted",
    "CREATE INDEX visibility_of_content ON visibility (tenant, content_hash)",
    """
    CREATE TABLE loose_files (
        tenant TEXT COLLATE "C" NOT NULL,
        content_hash TEXT COLLATE "C" NOT NULL,
        since TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        gone BOOLEAN NOT NULL DEFAULT false,
        PRIMARY KEY (tenant, content_hash)
    )
    """,
    "CREATE INDEX loose_files_since ON loose_files (since)",
    # What earlier versions replaced and deleted was left behind.
    """
    INSERT INTO loose_files (tenant, content_hash)
    SELECT DISTINCT v.tenant, v.content_hash FROM versions v WHERE v.content_hash IS NOT NULL
      AND NOT EXISTS (SELECT FROM documents d WHERE d.tenant = v.tenant AND d.content_hash = v.content_hash
                      AND NOT d.deleted)
    """,
    """
    CREATE TABLE erasures (
        id UUID NOT NULL,
        tenant TEXT COLLATE "C" NOT NULL,
        scope TEXT NOT NULL,
        who TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'selecting',
        documents INTEGER NOT NULL DEFAULT 0,
        stores JSONB NOT NULL DEFAULT '{}',
        asked_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        touched_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        finished_at TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (id),
        CONSTRAINT erasures_scope CHECK (scope IN ('documents', 'filter', 'collection', 'tenant')),
        CONSTRAINT erasures_state CHECK (state IN ('selecting', 'erasing', 'finished'))
    )
    """,
    "CREATE INDEX erasures_of_tenant ON erasures (tenant, asked_at)",
    """
    CREATE TABLE erased (
        erasure UUID NOT NULL,
        document_id TEXT COLLATE "C" NOT NULL,
        tenant TEXT COLLATE "C" NOT NULL,
        version BIGINT NOT NULL,
        words TEXT[] NOT NULL,
        PRIMARY KEY (erasure, document_id)
    )
    """,
)
DOWNGRADE = (
    "DROP TABLE erased",
    "DROP TABLE erasures",
    "DROP TABLE loose_files",
    "DROP INDEX visibility_of_content",
    "DROP INDEX documents_of_content",
    "ALTER TABLE generations DROP COLUMN reused",
    "ALTER TABLE jobs DROP COLUMN reused",
    "ALTER TABLE collections DROP COLUMN deleted",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
