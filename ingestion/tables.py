"""The ledger's tables: what was accepted, what is worked on, what may be seen. Never a document's text.

Documents and versions say what was accepted; jobs and revisions how it gets into the index; visibility
which revision of a document readers may see in which generation. `app/migrations` must lead to the same
schema. Text columns sort by code point ("C"), so that every lock order and page order is one order.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    MetaData,
    Sequence,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, UUID

metadata = MetaData()

versions_sequence = Sequence("version_numbers", metadata=metadata, data_type=BigInteger())
revisions_sequence = Sequence("revision_numbers", metadata=metadata, data_type=BigInteger())


def _name() -> Text:
    return Text(collation="C")


def _now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=text("now()"))


def _time(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True))


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text("0"))


# A deleted one stays, out of sight, so that its epoch never falls back.
collections = Table(
    "collections",
    metadata,
    Column("tenant", _name(), primary_key=True),
    Column("name", _name(), primary_key=True),
    Column("epoch", BigInteger, nullable=False, server_default=text("0")),
    _now("created_at"),
    Column("deleted", Boolean, nullable=False, server_default=text("false")),
)

# A deleted document's row stays: it holds the version that every job still under way is compared with.
documents = Table(
    "documents",
    metadata,
    Column("tenant", _name(), primary_key=True),
    Column("id", _name(), primary_key=True),
    Column("collection", _name(), nullable=False),
    Column("newest_version", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False, server_default=text("false")),
    Column("title", Text),
    Column("filename", Text),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("groups", ARRAY(Text), nullable=False),
    _now("created_at"),
    _now("updated_at"),
    Column("warnings", JSONB, nullable=False, server_default=text("'[]'")),
    Index("documents_of_collection", "tenant", "collection", "id"),
    Index("documents_of_content", "tenant", "content_hash", postgresql_where=text("NOT deleted")),
    # Counted without a look at the documents; those that name groups are looked at.
    Index(
        *("documents_open", "tenant", "collection"),
        postgresql_where=text("NOT deleted AND groups = '{}'::text[]"),
    ),
    Index(
        *("documents_grouped", "tenant", "collection"),
        postgresql_where=text("NOT deleted AND groups <> '{}'::text[]"),
    ),
)

versions = Table(
    "versions",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", _name(), nullable=False),
    Column("document_id", _name(), nullable=False),
    Column("deleted", Boolean, nullable=False, server_default=text("false")),
    Column("content_hash", Text),
    Column("size", BigInteger),
    _now("created_at"),
    Index("versions_of_document", "tenant", "document_id"),
)

# `look_at` is when the sweeper removes a retired revision's rows the next time.
revisions = Table(
    "revisions",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("tenant", _name(), nullable=False),
    Column("document_id", _name(), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("job_id", UUID(as_uuid=False), nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    _now("created_at"),
    _time("retired_at"),
    _time("look_at"),
    CheckConstraint("state IN ('writing', 'visible', 'retired', 'swept')", name="revisions_state"),
    Index(
        "revisions_live", "tenant", "document_id", postgresql_where=text("state IN ('writing', 'visible')")
    ),
    Index("revisions_of_document", "tenant", "document_id"),
    Index("revisions_writing", "job_id", postgresql_where=text("state = 'writing'")),
    Index("revisions_retired", "look_at", postgresql_where=text("state = 'retired'")),
)

# What readers see of a document in one generation. Everything said about it here is of the visible version,
# which a newer one may be about to replace: another generation is filled from it. `title` is what was given
# with it, `called` what its passages go by: that, or what was found in it.
visibility = Table(
    "visibility",
    metadata,
    Column("tenant", _name(), primary_key=True),
    Column("document_id", _name(), primary_key=True),
    Column("generation", _name(), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("collection", _name(), nullable=False),
    Column("groups", ARRAY(Text), nullable=False),
    Column("title", Text),
    Column("called", Text),
    Column("filename", Text),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("content_hash", Text, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Index("visibility_of_revision", "revision"),
    Index(
        *("visibility_of_generation", "generation", "tenant", "document_id"),
        postgresql_include=["version", "chunks"],  # How far a generation is, is counted in it alone.
    ),
    Index("visibility_of_content", "tenant", "content_hash"),
    Index("visibility_of_collection", "generation", "tenant", "collection", "document_id"),
)

# Files that no document may need any more since then; `gone` ones were removed.
loose_files = Table(
    "loose_files",
    metadata,
    Column("tenant", _name(), primary_key=True),
    Column("content_hash", _name(), primary_key=True),
    _now("since"),
    Column("gone", Boolean, nullable=False, server_default=text("false")),
    Index("loose_files_since", "since"),
)

# What is to be gone from every store, until it is; `stores` says how far each is. Of a finished one nothing
# is kept here that names a document.
erasures = Table(
    "erasures",
    metadata,
    Column("id", UUID(as_uuid=False), primary_key=True),
    Column("tenant", _name(), nullable=False),
    Column("scope", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'selecting'")),
    _count("documents"),
    Column("stores", JSONB, nullable=False, server_default=text("'{}'")),
    _now("asked_at"),
    _now("touched_at"),
    _time("finished_at"),
    CheckConstraint("scope IN ('documents', 'filter', 'collection', 'tenant')", name="erasures_scope"),
    CheckConstraint("state IN ('selecting', 'erasing', 'finished')", name="erasures_state"),
    Index("erasures_of_tenant", "tenant", "asked_at"),
    Index("erasures_open", "asked_at", postgresql_where=text("state <> 'finished'")),
)

# The documents of an erasure under way, each with the version of its deletion, and what was said about it.
erased = Table(
    "erased",
    metadata,
    Column("erasure", UUID(as_uuid=False), primary_key=True),
    Column("document_id", _name(), primary_key=True),
    Column("tenant", _name(), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("words", ARRAY(Text), nullable=False),
)

# `generation` names the one that is built by this job, nobody's but the builder's; without one the job is an
# accepted version's. The smaller its `priority`, the sooner it is taken. `leased_at` is when it was leased
# the last time, `moved_at` when it was heard to get on, `work` what it costs in seconds: estimated while it
# runs, measured once it has succeeded. `part` is what its reader reads now.
jobs = Table(
    "jobs",
    metadata,
    Column("id", UUID(as_uuid=False), primary_key=True),
    Column("seq", BigInteger, Identity(always=True), nullable=False),
    Column("tenant", _name(), nullable=False),
    Column("document_id", _name(), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("generation", _name()),
    Column("state", Text, nullable=False, server_default=text("'queued'")),
    Column("stage", Text, nullable=False, server_default=text("'waiting'")),
    _count("done"),
    _count("total"),
    _count("reused"),
    _count("attempts"),
    _count("losses"),
    Column("fence", BigInteger, nullable=False, server_default=text("0")),
    _time("lease_until"),
    _time("leased_at"),
    _time("moved_at"),
    Column("worker", Text),
    Column("part", Text),
    Column("media_type", Text, nullable=False, server_default=text("''")),
    Column("size", BigInteger, nullable=False, server_default=text("0")),
    Column("work", Double, nullable=False, server_default=text("0")),
    _now("run_after"),
    Column("priority", SmallInteger, nullable=False, server_default=text("0")),
    Column("error", JSONB),
    Column("traceparent", Text),
    _now("created_at"),
    _time("started_at"),
    _time("finished_at"),
    Column("warnings", JSONB, nullable=False, server_default=text("'[]'")),
    CheckConstraint(
        "state IN ('queued', 'running', 'succeeded', 'failed', 'quarantined', 'cancelled')", name="jobs_state"
    ),
    Index(
        *("jobs_queue", "tenant", "priority", "seq"),
        postgresql_where=text("state = 'queued' AND generation IS NULL"),
    ),
    Index(
        *("jobs_waiting", "tenant", "seq"),
        postgresql_where=text("state = 'queued' AND generation IS NULL"),
    ),
    Index("jobs_leases", "lease_until", postgresql_where=text("state = 'running'")),
    Index(
        *("jobs_finished", "finished_at"),
        postgresql_where=text("state = 'succeeded' AND generation IS NULL"),
    ),
    Index(
        *("jobs_troubled", "tenant", "state", "seq"),
        postgresql_where=text("state IN ('failed', 'quarantined') AND generation IS NULL"),
    ),
    Index(
        *("jobs_with_error", "tenant", "seq"),
        postgresql_where=text("error IS NOT NULL AND generation IS NULL"),
    ),
    Index(
        *("jobs_counted", "tenant", "state"),
        postgresql_where=text("generation IS NULL AND error IS NULL"),
    ),
    Index("jobs_of_document", "tenant", "document_id"),
    Index("jobs_newest", "tenant", "seq", postgresql_where=text("generation IS NULL")),
    Index(
        *("jobs_of_generation", "generation", "state", "seq"),
        postgresql_where=text("generation IS NOT NULL"),
    ),
    Index(
        *("jobs_built", "generation", "finished_at"),
        postgresql_where=text("state = 'succeeded' AND generation IS NOT NULL"),
    ),
    Index(
        *("jobs_unbuilt", "generation", "seq"),
        postgresql_where=text("error IS NOT NULL AND generation IS NOT NULL"),
    ),
)

# What each tenant has had of the workers, in seconds of work since the first: the work leased at last begins
# at `start` and ends at `finish`, and `taken` counts jobs. Whoever's work begins first is leased first.
shares = Table(
    "shares",
    metadata,
    Column("tenant", _name(), primary_key=True),
    Column("start", Double, nullable=False),
    Column("finish", Double, nullable=False),
    Column("taken", BigInteger, nullable=False, server_default=text("0")),
    _now("at"),
    Index("shares_start", "start"),
)

# Whose jobs are not leased now: a tenant's, or all (`*`, which is no tenant's name).
pauses = Table(
    "pauses",
    metadata,
    Column("tenant", _name(), primary_key=True),
    Column("mode", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("who", Text, nullable=False),
    _now("since"),
    CheckConstraint("mode IN ('paused', 'draining')", name="pauses_mode"),
)

# `beat_at` is when a worker was heard of at last, `lease` how long its jobs stay its own without that.
workers = Table(
    "workers",
    metadata,
    Column("name", _name(), primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("lease", Double, nullable=False),
    Column("stopping", Boolean, nullable=False, server_default=text("false")),
    _now("started_at"),
    _now("beat_at"),
)

# `embedder` is the name that the spec's artefact goes by; `tokens` (an estimate) and `embedding_seconds` are
# what building it took so far; `reused` vectors were at hand instead. Until `joined_until` one being built
# is written by every job.
generations = Table(
    "generations",
    metadata,
    Column("id", _name(), primary_key=True),
    Column("spec", JSONB, nullable=False),
    Column("embedder", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("embedding_seconds", Double, nullable=False, server_default=text("0")),
    Column("reused", BigInteger, nullable=False, server_default=text("0")),
    _time("joined_until"),
    _now("created_at"),
    CheckConstraint("state IN ('building', 'serving', 'rollback', 'retired')", name="generations_state"),
)

# What a collection asks of its documents (`rules.Rules`), and hashes of their paragraphs where it asks how
# much they repeat.
collection_rules = Table(
    "collection_rules",
    metadata,
    Column("tenant", _name(), primary_key=True),
    Column("collection", _name(), primary_key=True),
    Column("rules", JSONB, nullable=False),
    _now("updated_at"),
)

paragraphs = Table(
    "paragraphs",
    metadata,
    Column("tenant", _name(), primary_key=True),
    Column("hash", BigInteger, primary_key=True, autoincrement=False),
    Column("document_id", _name(), primary_key=True),
    Index("paragraphs_of_document", "tenant", "document_id"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("tenant", _name(), primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_hash", Text, nullable=False),
    Column("job_ids", ARRAY(UUID(as_uuid=False)), nullable=False),
    _now("created_at"),
    Index("idempotency_age", "created_at"),
)
