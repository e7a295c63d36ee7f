"""Releases on trial: shadows and canaries, what their requests came to, feedback."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UPGRADE = (
    "UPDATE releases SET state = 'evaluated' WHERE state = 'draft' AND (evidence->>'passed')::boolean",
    "ALTER TABLE releases ADD COLUMN forced TEXT",
    """
    ALTER TABLE releases ADD CONSTRAINT releases_state CHECK
        (state IN ('draft', 'evaluated', 'shadow', 'canary', 'champion', 'soaking', 'retired'))
    """,
    """
    CREATE TABLE trials (
        id UUID NOT NULL DEFAULT gen_random_uuid(),
        kind TEXT NOT NULL,
        release_id TEXT NOT NULL REFERENCES releases (id),
        control_id TEXT NOT NULL REFERENCES releases (id),
        state TEXT NOT NULL DEFAULT 'running',
        plan JSONB NOT NULL,
        step INTEGER NOT NULL DEFAULT 0,
        share DOUBLE PRECISION NOT NULL DEFAULT 0,
        lease_until TIMESTAMP WITH TIME ZONE,
        evidence JSONB NOT NULL DEFAULT '{}',
        decision JSONB,
        who TEXT NOT NULL,
        started_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        step_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        ended_at TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (id),
        CONSTRAINT trials_kind CHECK (kind IN ('shadow', 'canary')),
        CONSTRAINT trials_state CHECK
            (state IN ('running', 'passed', 'failed', 'stopped', 'promoted', 'rolled_back'))
    )
    """,
    "CREATE UNIQUE INDEX trials_running ON trials (kind) WHERE ended_at IS NULL",
    "CREATE INDEX trials_of_release ON trials (release_id, started_at)",
    """
    CREATE TABLE outcomes (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        trial UUID NOT NULL REFERENCES trials (id) ON DELETE CASCADE,
        candidate BOOLEAN NOT NULL,
        counted BOOLEAN NOT NULL,
        kind TEXT NOT NULL,
        tenant TEXT NOT NULL,
        unit TEXT NOT NULL,
        propensity DOUBLE PRECISION NOT NULL,
        answer TEXT NOT NULL,
        facts JSONB NOT NULL,
        at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        PRIMARY KEY (id)
    )
    """,
    "CREATE INDEX outcomes_of_trial ON outcomes (trial, id)",
    "CREATE INDEX outcomes_of_answer ON outcomes (answer)",
    """
    CREATE TABLE pairs (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        trial UUID NOT NULL REFERENCES trials (id) ON DELETE CASCADE,
        counted BOOLEAN NOT NULL,
        kind TEXT NOT NULL,
        tenant TEXT NOT NULL,
        answer TEXT NOT NULL,
        champion JSONB NOT NULL,
        candidate JSONB NOT NULL,
        at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        PRIMARY KEY (id)
    )
    """,
    "CREATE INDEX pairs_of_trial ON pairs (trial, id)",
    """
    CREATE TABLE feedback (
        tenant TEXT NOT NULL,
        answer TEXT NOT NULL,
        rating TEXT NOT NULL,
        reason TEXT,
        at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now(),
        PRIMARY KEY (tenant, answer),
        CONSTRAINT feedback_rating CHECK (rating IN ('up', 'down'))
    )
    """,
    "CREATE INDEX feedback_at ON feedback (at)",
)
DOWNGRADE = (
    "DROP TABLE feedback",
    "DROP TABLE pairs",
    "DROP TABLE outcomes",
    "DROP TABLE trials",
    "ALTER TABLE releases DROP CONSTRAINT releases_state",
    "UPDATE releases SET state = 'draft' WHERE state IN ('evaluated', 'shadow', 'canary')",
    "UPDATE releases SET state = 'retired' WHERE state = 'soaking'",
    "ALTER TABLE releases DROP COLUMN forced",
)


def upgrade() -> None:
    for statement in UPGRADE:
        op.execute(statement)


def downgrade() -> None:
    for statement in DOWNGRADE:
        op.execute(statement)
