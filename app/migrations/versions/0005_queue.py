"""The queue: shares by work, pauses, workers that tell of themselves, what a job costs and when it got on."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UPGRADE = (
    """
    ALTER TABLE jobs ADD COLUMN leased_at TIMESTAMP WITH TIME ZONE,
        ADD COLUMN moved_at TIMESTAMP WITH TIME ZONE, ADD COLUMN part TEXT,
        ADD COLUMN media_type TEXT NOT NULL DEFAULT '', ADD COLUMN size BIGINT NOT NULL DEFAULT 0,
        ADD COLUMN work DOUBLE PRECISION NOT NULL DEFAULT 0
    """,
    """
    UPDATE jobs j SET media_type = d.media_type, size = d.size FROM documents d
    WHERE d.tenant = j.tenant AND d.id = j.document_id AND d.newest_version = j.version AND NOT d.deleted
      AND j.generation IS NULL
    """,
    "UPDATE jobs SET leased_at = started_at, moved_at = started_at WHERE state = 'running'",
    # Behind whatever somebody waits for, low priority included.
    "UPDATE jobs SET priority = 11 WHERE priority = 1",
    "DROP INDEX jobs_finished",
    "CREATE INDEX jobs_finished ON jobs (finished_at) WHERE state = 'succeeded' AND generation IS NULL",
    """
    CREATE INDEX jobs_troubled ON jobs (tenant, state, seq)
    WHERE state IN ('failed', 'quarantined') AND generation IS NULL
    """,
    "CREATE INDEX jobs_waiting ON jobs (tenant, seq) WHERE state = 'queued' AND generation IS NULL",
    """
    CREATE TABLE shares (
        tenant TEXT COLLATE "C" NOT NULL,
        start DOUBLE PRECISION NOT NULL,
        finish DOUBLE PRECISION NOT NULL,
        taken BIGINT NOT NULL DEFAULT 0,
        at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant)
    )
    """,
    "CREATE INDEX shares_start ON shares (start)",
    """
    CREATE TABLE pauses (
        tenant TEXT COLLATE "C" NOT NULL,
        mode TEXT NOT NULL,
        reason TEXT NOT NULL,
        who TEXT NOT NULL,
        since TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant),
        CONSTRAINT pauses_mode CHECK (mode IN ('paused', 'draining'))
    )
    """,
    """
    CREATE TABLE workers (
        name TEXT COLLATE "C" NOT NULL,
        host TEXT NOT NULL,
        pid INTEGER NOT NULL,
        version TEXT NOT NULL,
        lease DOUBLE PRECISION NOT NULL,
        stopping BOOLEAN NOT NULL DEFAULT false,
        started_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        beat_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        PRIMARY KEY (name)
    )
    """,
)
DOWNGRADE = (
    "DROP TABLE workers",
    "DROP TABLE pauses",
    "DROP TABLE shares",
    "DROP INDEX jobs_waiting",
    "DROP INDEX jobs_troubled",
    "DROP INDEX jobs_finished",
    "CREATE INDEX jobs_finished ON jobs (finished_at) WHERE state = 'succeeded'",
    "UPDATE jobs SET priority = 1 WHERE priority = 11",
    """
    ALTER TABLE jobs DROP COLUMN leased_at, DROP COLUMN moved_at, DROP COLUMN part, DROP COLUMN media_type,
        DROP COLUMN size, DROP COLUMN work
    """,
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
