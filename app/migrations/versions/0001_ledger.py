"""The ledger: documents, versions, revisions, visibility, jobs, generations."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "idempotency",
    "generations",
    "jobs",
    "visibility",
    "revisions",
    "versions",
    "documents",
    "collections",
)
SEQUENCES = ("version_numbers", "revision_numbers")
STATEMENTS = (
    "CREATE SEQUENCE version_numbers AS BIGINT",
    "CREATE SEQUENCE revision_numbers AS BIGINT",
    """
    CREATE TABLE collections (
        tenant TEXT COLLATE "C" NOT NULL,
        name TEXT COLLATE "C" NOT NULL,
        epoch BIGINT DEFAULT 0 NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (tenant, name)
    )
    """,
    """
    CREATE TABLE documents (
        tenant TEXT COLLATE "C" NOT NULL,
        id TEXT COLLATE "C" NOT NULL,
        collection TEXT COLLATE "C" NOT NULL,
        newest_version BIGINT NOT NULL,
        deleted BOOLEAN DEFAULT false NOT NULL,
        title TEXT,
        filename TEXT,
        media_type TEXT NOT NULL,
        size BIGINT NOT NULL,
        content_hash TEXT NOT NULL,
        metadata JSONB NOT NULL,
        groups TEXT[] NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (tenant, id)
    )
    """,
    "CREATE INDEX documents_of_collection ON documents (tenant, collection, id)",
    """
    CREATE TABLE versions (
        version BIGINT NOT NULL,
        tenant TEXT COLLATE "C" NOT NULL,
        document_id TEXT COLLATE "C" NOT NULL,
        deleted BOOLEAN DEFAULT false NOT NULL,
        content_hash TEXT,
        size BIGINT,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (version)
    )
    """,
    "CREATE INDEX versions_of_document ON versions (tenant, document_id)",
    """
    CREATE TABLE revisions (
        revision BIGINT NOT NULL,
        tenant TEXT COLLATE "C" NOT NULL,
        document_id TEXT COLLATE "C" NOT NULL,
        version BIGINT NOT NULL,
        job_id UUID NOT NULL,
        fence BIGINT NOT NULL,
        state TEXT NOT NULL,
        chunks INTEGER DEFAULT 0 NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        retired_at TIMESTAMP WITH TIME ZONE,
        look_at TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (revision),
        CONSTRAINT revisions_state CHECK (state IN ('writing', 'visible', 'retired', 'swept'))
    )
    """,
    "CREATE INDEX revisions_live ON revisions (tenant, document_id) WHERE state IN ('writing', 'visible')",
    "CREATE INDEX revisions_retired ON revisions (look_at) WHERE state = 'retired'",
    "CREATE INDEX revisions_writing ON revisions (job_id) WHERE state = 'writing'",
    """
    CREATE TABLE visibility (
        tenant TEXT COLLATE "C" NOT NULL,
        document_id TEXT COLLATE "C" NOT NULL,
        generation TEXT COLLATE "C" NOT NULL,
        revision BIGINT NOT NULL,
        collection TEXT COLLATE "C" NOT NULL,
        groups TEXT[] NOT NULL,
        PRIMARY KEY (tenant, document_id, generation)
    )
    """,
    "CREATE INDEX visibility_of_revision ON visibility (revision)",
    """
    CREATE TABLE jobs (
        id UUID NOT NULL,
        seq BIGINT GENERATED ALWAYS AS IDENTITY,
        tenant TEXT COLLATE "C" NOT NULL,
        document_id TEXT COLLATE "C" NOT NULL,
        version BIGINT NOT NULL,
        state TEXT DEFAULT 'queued' NOT NULL,
        stage TEXT DEFAULT 'waiting' NOT NULL,
        done INTEGER DEFAULT 0 NOT NULL,
        total INTEGER DEFAULT 0 NOT NULL,
        attempts INTEGER DEFAULT 0 NOT NULL,
        losses INTEGER DEFAULT 0 NOT NULL,
        fence BIGINT DEFAULT 0 NOT NULL,
        lease_until TIMESTAMP WITH TIME ZONE,
        worker TEXT,
        run_after TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        priority SMALLINT DEFAULT 0 NOT NULL,
        error JSONB,
        traceparent TEXT,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE,
        finished_at TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (id),
        CONSTRAINT jobs_state
            CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'quarantined', 'cancelled'))
    )
    """,
    "CREATE INDEX jobs_finished ON jobs (finished_at) WHERE state = 'succeeded'",
    "CREATE INDEX jobs_leases ON jobs (lease_until) WHERE state = 'running'",
    "CREATE INDEX jobs_newest ON jobs (tenant, seq)",
    "CREATE INDEX jobs_of_document ON jobs (tenant, document_id)",
    "CREATE INDEX jobs_queue ON jobs (tenant, priority, seq) WHERE state = 'queued'",
    """
    CREATE TABLE generations (
        id TEXT COLLATE "C" NOT NULL,
        spec JSONB NOT NULL,
        state TEXT NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (id),
        CONSTRAINT generations_state CHECK (state IN ('building', 'serving', 'rollback', 'retired'))
    )
    """,
    """
    CREATE TABLE idempotency (
        tenant TEXT COLLATE "C" NOT NULL,
        key TEXT NOT NULL,
        request_hash TEXT NOT NULL,
        job_ids UUID[] NOT NULL,
        created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (tenant, key)
    )
    """,
    "CREATE INDEX idempotency_age ON idempotency (created_at)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE {table}")
    for sequence in SEQUENCES:
        op.execute(f"DROP SEQUENCE {sequence}")
