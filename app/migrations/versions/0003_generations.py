"""Generations built while others serve: jobs of their own, and visibility that says of which version."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# What was said about a version that a newer one has replaced in `documents` is not known any more but for
# its hash and size; the newer one's is the nearest.
FILL = """
    UPDATE visibility v SET version = r.version, chunks = r.chunks, title = d.title, filename = d.filename,
        media_type = d.media_type, metadata = d.metadata, size = coalesce(n.size, d.size),
        content_hash = coalesce(n.content_hash, d.content_hash)
    FROM revisions r LEFT JOIN versions n ON n.version = r.version, documents d
    WHERE r.revision = v.revision AND d.tenant = v.tenant AND d.id = v.document_id
"""
COLUMNS = ("version", "chunks", "media_type", "size", "content_hash", "metadata")
UPGRADE = (
    """
    ALTER TABLE visibility ADD COLUMN version BIGINT, ADD COLUMN chunks INTEGER, ADD COLUMN title TEXT,
        ADD COLUMN filename TEXT, ADD COLUMN media_type TEXT, ADD COLUMN size BIGINT,
        ADD COLUMN content_hash TEXT, ADD COLUMN metadata JSONB
    """,
    FILL,
    *(f"ALTER TABLE visibility ALTER COLUMN {column} SET NOT NULL" for column in COLUMNS),
    "CREATE INDEX visibility_of_generation ON visibility (generation, tenant, document_id)",
    "ALTER TABLE revisions DROP COLUMN chunks",
    'ALTER TABLE jobs ADD COLUMN generation TEXT COLLATE "C"',
    "DROP INDEX jobs_queue",
    "DROP INDEX jobs_newest",
    """
    CREATE INDEX jobs_queue ON jobs (tenant, priority, seq) WHERE state = 'queued' AND generation IS NULL
    """,
    "CREATE INDEX jobs_newest ON jobs (tenant, seq) WHERE generation IS NULL",
    "CREATE INDEX jobs_of_generation ON jobs (generation, state, seq) WHERE generation IS NOT NULL",
    """
    ALTER TABLE generations ADD COLUMN embedder TEXT NOT NULL DEFAULT '',
        ADD COLUMN tokens BIGINT NOT NULL DEFAULT 0,
        ADD COLUMN embedding_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
        ADD COLUMN joined_until TIMESTAMP WITH TIME ZONE
    """,
    "ALTER TABLE generations ALTER COLUMN embedder DROP DEFAULT",
)
DOWNGRADE = (
    """
    ALTER TABLE generations DROP COLUMN embedder, DROP COLUMN tokens, DROP COLUMN embedding_seconds,
        DROP COLUMN joined_until
    """,
    "DELETE FROM jobs WHERE generation IS NOT NULL",
    "DROP INDEX jobs_of_generation",
    "DROP INDEX jobs_newest",
    "DROP INDEX jobs_queue",
    "ALTER TABLE jobs DROP COLUMN generation",
    "CREATE INDEX jobs_newest ON jobs (tenant, seq)",
    "CREATE INDEX jobs_queue ON jobs (tenant, priority, seq) WHERE state = 'queued'",
    "ALTER TABLE revisions ADD COLUMN chunks INTEGER DEFAULT 0 NOT NULL",
    "UPDATE revisions r SET chunks = v.chunks FROM visibility v WHERE v.revision = r.revision",
    "DROP INDEX visibility_of_generation",
    """
    ALTER TABLE visibility DROP COLUMN version, DROP COLUMN chunks, DROP COLUMN title, DROP COLUMN filename,
        DROP COLUMN media_type, DROP COLUMN size, DROP COLUMN content_hash, DROP COLUMN metadata
    """,
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
