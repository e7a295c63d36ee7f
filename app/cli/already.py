"""What the service has already of the files to hand in: a run that was cut short goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.cli.client import Client, ClientError
from app.cli.sources import Source

PAGE = 500
NOT_FOUND = 404


@dataclass(slots=True)
class Already:
    """The documents of one collection by their ids, and the jobs that may speak against leaving one out, by
    document: those under way and those that ended without success."""

    documents: Mapping[str, Mapping[str, Any]]
    open: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    troubled: Mapping[str, int] = field(default_factory=dict)

    def job(self, source: Source, content: bytes, fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """What stands for the job of handing this file in, None if it must be handed in: the one under way,
        or one that says `unchanged`."""
        known = self.documents.get(source.id)
        if known is None or not _same(known, source, content, fields):
            return None
        under_way = self.open.get(source.id)
        if under_way is not None and under_way["version"] == known["version"]:
            return under_way
        if known["visible"] and self.troubled.get(source.id) != known["version"]:
            return {"document_id": source.id, "status": "unchanged"}
        return None


def look(client: Client, collection: str, sources: Mapping[str, Source]) -> Already:
    """Ask the service, as little as is needed."""
    documents = {one["id"]: one for one in _documents(client, collection) if one["id"] in sources}
    if not documents:
        return Already({})
    running = (*_jobs(client, collection, "queued"), *_jobs(client, collection, "running"))
    ended = (*_jobs(client, collection, "failed"), *_jobs(client, collection, "quarantined"))
    troubled: dict[str, int] = {}
    for job in ended:
        troubled[job["document_id"]] = max(job["version"], troubled.get(job["document_id"], 0))
    return Already(documents, {job["document_id"]: job for job in running}, troubled)


def elsewhere(client: Client, ids: Sequence[str]) -> set[str]:
    """Those of the documents, none of them in the collection to hand in to, that are in another one: handing
    them in takes them away from there, since an id is one document of a tenant."""
    found: set[str] = set()
    for start in range(0, len(ids), PAGE):
        asked = {"ids": list(ids[start : start + PAGE]), "dry_run": True}
        found.update(client.post("/v1/documents/delete", asked)["ids"])
    return found


def _documents(client: Client, collection: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        try:
            page = client.get("/v1/documents", collection=collection, after=after, limit=PAGE)
        except ClientError as error:
            if error.status == NOT_FOUND:
                return []
            raise
        found += page["documents"]
        after = page["next"]
        if after is None:
            return found


def _jobs(client: Client, collection: str, status: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        before = found[-1]["id"] if found else None
        page = client.get("/v1/jobs", status=status, collection=collection, before=before, limit=PAGE)["jobs"]
        found += page
        if len(page) < PAGE:
            return found


def _same(known: Mapping[str, Any], source: Source, content: bytes, fields: Mapping[str, Any]) -> bool:
    said = json.loads(fields.get("metadata", "{}")), sorted(fields.get("groups", []))
    return (
        known["content_hash"] == hashlib.sha256(content).hexdigest()
        and known["filename"] == source.name
        and (known["metadata"], known["groups"]) == said
    )
