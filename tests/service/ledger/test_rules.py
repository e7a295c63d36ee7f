"""Rules of collections in the ledger: which ones hold for a job, and what a late validation may still say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion.errors import Quarantined
from ingestion.ledger import Ledger
from ingestion.rules import NONE, Breach, Rules
from ingestion.types import Block, Job, Lease, Parsed
from ingestion.validation import Validation
from retrieval.types import Span

Accept = Callable[..., Awaitable[Job]]
LeaseOne = Callable[..., Awaitable[Lease]]

PARAGRAPH = "A paragraph that is long enough to be compared with those of others."
PARSED = Parsed(title=None, text=PARAGRAPH, blocks=(Block(kind="paragraph", span=Span(0, len(PARAGRAPH))),))
LONG = Rules(min_characters=1_000, refuse=frozenset({"min_characters"}))


async def test_rules_hold_for_every_document_that_is_accepted_after_them(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    validation = Validation(ledger)
    await accept("a")
    await validation.check(await lease_one(), PARSED)  # Now it is known that there are none.
    await ledger.set_rules("acme", "default", LONG)
    await accept("b")
    with pytest.raises(Quarantined) as caught:
        await validation.check(await lease_one(), PARSED)
    assert (caught.value.reason, caught.value.part) == ("validation", "min_characters")
    await ledger.set_rules("acme", "default", NONE)
    await accept("c")
    await validation.check(await lease_one(), PARSED)


async def test_rules_are_one_tenants_and_one_collections(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    validation = Validation(ledger)
    await ledger.set_rules("acme", "default", LONG)
    await accept("a", tenant="bolt")
    await accept("b", collection="other")
    for _ in range(2):
        await validation.check(await lease_one(), PARSED)


async def test_what_another_tenant_refuses_is_accepted(ledger: Ledger) -> None:
    rules = Rules(required_metadata=("owner",), refuse=frozenset({"required_metadata"}))
    await ledger.set_rules("umbrella", "default", rules)
    assert await ledger.rules_of_all("acme", ["default"]) == {}
    assert await ledger.rules_of_all("umbrella", ["default", "other"]) == {"default": rules}


async def test_any_broken_rule_that_refuses_puts_a_document_aside(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    rules = Rules(min_characters=1_000, required_metadata=("owner",), refuse=frozenset({"required_metadata"}))
    await ledger.set_rules("acme", "default", rules)
    await accept("a")
    with pytest.raises(Quarantined) as caught:
        await Validation(ledger).check(await lease_one(), PARSED)
    assert caught.value.part == "required_metadata"


async def test_a_job_that_is_tried_again_is_told_of_what_it_breaks_now(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    await ledger.set_rules("acme", "default", Rules(min_characters=1_000))
    job = await accept("a")
    first = await lease_one()
    await Validation(ledger).check(first, PARSED)
    assert [one.rule for one in (await ledger.job("acme", job.id)).warnings] == ["min_characters"]
    await ledger.release([first.job])
    await ledger.set_rules("acme", "default", NONE)
    await Validation(ledger).check(await lease_one(), PARSED)
    assert (await ledger.job("acme", job.id)).warnings == ()


async def test_a_worker_that_lost_its_job_says_nothing_of_it(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    await ledger.set_rules("acme", "default", Rules(min_characters=1_000))
    job = await accept("a")
    stalled = await lease_one(seconds=0.0)
    await lease_one()
    await Validation(ledger).check(stalled, PARSED)
    assert (await ledger.job("acme", job.id)).warnings == ()


async def test_what_was_let_in_once_is_not_refused_by_a_new_index(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    await ledger.set_rules("acme", "default", LONG)
    await accept("a")
    lease = await lease_one()
    filling = replace(lease, job=replace(lease.job, generation="next"))
    await Validation(ledger).check(filling, PARSED)


async def test_an_older_version_says_nothing_of_the_newest_one(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    await ledger.set_rules("acme", "default", Rules(min_characters=1_000))
    validation = Validation(ledger)
    await accept("a", "first")
    stale = await lease_one()
    await accept("a", "second")
    await validation.check(stale, PARSED)
    assert (await ledger.document("acme", None, "a")).warnings == ()
    await validation.check(await lease_one(), PARSED)
    [warning] = (await ledger.document("acme", None, "a")).warnings
    assert warning.rule == "min_characters"
    await accept("a", "third")
    assert (await ledger.document("acme", None, "a")).warnings == ()


async def test_paragraphs_are_kept_only_where_they_are_compared_and_go_with_their_document(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne, engine: AsyncEngine
) -> None:
    async def kept() -> int:
        async with engine.connect() as connection:
            return int(await connection.scalar(text("SELECT count(*) FROM paragraphs")) or 0)

    validation = Validation(ledger)
    await accept("a")
    await validation.check(await lease_one(), PARSED)
    assert await kept() == 0
    await ledger.set_rules("acme", "default", Rules(max_duplicate_share=0.5))
    for _ in range(2):
        await accept("a")
        await validation.check(await lease_one(), PARSED)
    assert await kept() == 1
    await accept("b")
    await validation.check(await lease_one(), PARSED)
    own = " ".join(PARAGRAPH.split()[::-1])
    both = f"{PARAGRAPH}\n{own}"
    spans = (Span(0, len(PARAGRAPH)), Span(len(PARAGRAPH) + 1, len(both)))
    half = Parsed(title=None, text=both, blocks=tuple(Block(kind="paragraph", span=one) for one in spans))
    await accept("half")
    await validation.check(await lease_one(), half)
    assert (await ledger.document("acme", None, "half")).warnings == ()
    await ledger.delete("acme", None, "half")
    repeated = "100% of the paragraphs are in other documents of the collection too; at most 50% may be."
    assert (await ledger.document("acme", None, "b")).warnings == (Breach("max_duplicate_share", repeated),)
    await ledger.delete("acme", None, "a")
    assert await kept() == 1
    await ledger.set_rules("acme", "default", NONE)
    assert await kept() == 0


async def test_paragraphs_are_compared_within_a_tenants_collection_only(
    ledger: Ledger, accept: Accept, lease_one: LeaseOne
) -> None:
    """Otherwise a warning would tell that another tenant has the text."""
    validation = Validation(ledger)
    for tenant, collection in (("umbrella", "default"), ("acme", "other"), ("acme", "default")):
        await ledger.set_rules(tenant, collection, Rules(max_duplicate_share=0.0))
        name = f"{tenant}-{collection}"
        await accept(name, tenant=tenant, collection=collection)
        for _ in range(2):  # Nor with itself, should it be read again.
            lease = await lease_one()
            await validation.check(lease, PARSED)
            await ledger.release([lease.job])
        await ledger.cancel(tenant, lease.job.id)
        assert (await ledger.document(tenant, None, name)).warnings == ()
