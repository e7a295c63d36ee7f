"""The service's own tables in the ledger's database: keys, releases, the pointer to the champion, trials of
releases, what came of their requests, feedback, audit, what embedders behind a URL were at first.

Nothing here holds the text of a document, a question or an answer, or a key's secret. `transaction` is the
one way in: it bounds the wait and says `LedgerUnavailable` for every way in which PostgreSQL can be out of
reach.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ingestion.postgres import reaching_ledger

WAIT = 5.0
"""Seconds that a transaction on these tables may take, connecting included."""

metadata = MetaData()

tenants = Table(
    "tenants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

embedders = Table(
    "embedders",
    metadata,
    Column("name", Text, primary_key=True),
    Column("tokenizer", Text, nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("vectors", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

keys = Table(
    "keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant", Text, ForeignKey("tenants.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("prefix", Text, nullable=False),
    Column("last4", Text, nullable=False),
    Column("groups", ARRAY(Text), nullable=True),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("revoked_at", DateTime(timezone=True), nullable=True),
    Column("expires_at", DateTime(timezone=True), nullable=True),
    Column("used_at", DateTime(timezone=True), nullable=True),
)

releases = Table(
    "releases",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("fingerprint", Text, nullable=False, unique=True),
    Column("canonical", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("bootstrap", Boolean, nullable=False, server_default="false"),
    Column("evidence", JSONB, nullable=True),
    Column("forced", Text, nullable=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint(
        "state IN ('draft', 'evaluated', 'shadow', 'canary', 'champion', 'soaking', 'retired')",
        name="releases_state",
    ),
    Index("releases_name", "name"),
)

pointers = Table(
    "pointers",
    metadata,
    Column("name", Text, primary_key=True),
    Column("release_id", Text, ForeignKey("releases.id"), nullable=False),
    Column("moved_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

trials = Table(
    "trials",
    metadata,
    Column("id", UUID(as_uuid=False), primary_key=True, server_default=func.gen_random_uuid()),
    Column("kind", Text, nullable=False),
    Column("release_id", Text, ForeignKey("releases.id"), nullable=False),
    Column("control_id", Text, ForeignKey("releases.id"), nullable=False),
    Column("state", Text, nullable=False, server_default="running"),
    Column("plan", JSONB, nullable=False),
    Column("step", Integer, nullable=False, server_default=text("0")),
    Column("share", Double, nullable=False, server_default=text("0")),
    Column("lease_until", DateTime(timezone=True), nullable=True),
    Column("evidence", JSONB, nullable=False, server_default="{}"),
    Column("decision", JSONB, nullable=True),
    Column("who", Text, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("step_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("ended_at", DateTime(timezone=True), nullable=True),
    CheckConstraint("kind IN ('shadow', 'canary')", name="trials_kind"),
    CheckConstraint(
        "state IN ('running', 'passed', 'failed', 'stopped', 'promoted', 'rolled_back')", name="trials_state"
    ),
    Index("trials_running", "kind", unique=True, postgresql_where=text("ended_at IS NULL")),
    Index("trials_of_release", "release_id", "started_at"),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("trial", UUID(as_uuid=False), ForeignKey("trials.id", ondelete="CASCADE"), nullable=False),
    Column("candidate", Boolean, nullable=False),
    Column("counted", Boolean, nullable=False),
    Column("kind", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("propensity", Double, nullable=False),
    Column("answer", Text, nullable=False),
    Column("facts", JSONB, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("outcomes_of_trial", "trial", "id"),
    Index("outcomes_of_answer", "answer"),
)

pairs = Table(
    "pairs",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("trial", UUID(as_uuid=False), ForeignKey("trials.id", ondelete="CASCADE"), nullable=False),
    Column("counted", Boolean, nullable=False),
    Column("kind", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("champion", JSONB, nullable=False),
    Column("candidate", JSONB, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index("pairs_of_trial", "trial", "id"),
)

feedback = Table(
    "feedback",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("answer", Text, primary_key=True),
    Column("rating", Text, nullable=False),
    Column("reason", Text, nullable=True),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("rating IN ('up', 'down')", name="feedback_rating"),
    Index("feedback_at", "at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", UUID(as_uuid=False), primary_key=True, server_default=func.gen_random_uuid()),
    Column("at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("who", Text, nullable=False),
    Column("what", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("evidence", JSONB, nullable=False, server_default="{}"),
    Index("audit_at", "at"),
    Index("audit_of_subject", "subject", "at"),
)


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Raises `LedgerUnavailable` when PostgreSQL is away, or does not come to an end within `WAIT`."""
    with reaching_ledger():
        async with asyncio.timeout(WAIT), engine.begin() as connection:
            yield connection
