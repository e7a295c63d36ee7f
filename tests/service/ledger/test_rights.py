"""Who may see what, and that every change a reader could notice changes the epoch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ingestion.errors import NotFound, Taken
from ingestion.ledger import Ledger
from ingestion.reads import Reads
from ingestion.types import Job
from ingestion.written import Flip
from retrieval.types import Filter, IndexSpec

Accept = Callable[..., Awaitable[Job]]
Show = Callable[[], Awaitable[tuple[Flip, int]]]
SomebodyWaits = Callable[[], Awaitable[None]]

HR = frozenset({"hr"})
SALES = frozenset({"sales"})
NONE: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("owners", "caller", "allowed"),
    [
        (NONE, NONE, True),
        (NONE, HR, True),
        (HR, HR | SALES, True),
        (HR, SALES, False),
        (HR, NONE, False),
        (HR, None, True),
    ],
)
async def test_a_document_is_seen_by_its_groups(
    ledger: Ledger,
    reads: Reads,
    accept: Accept,
    show: Show,
    spec: IndexSpec,
    owners: frozenset[str],
    caller: frozenset[str] | None,
    allowed: bool,
) -> None:
    await accept("pay", groups=owners)
    _, revision = await show()
    where = Filter(tenant="acme", groups=caller)
    assert (await reads.visible(spec.generation, where, [("pay", revision)]) == {revision}) == allowed
    assert await reads.visible("another", where, [("pay", revision)]) == frozenset()
    listed = await ledger.documents("acme", caller, collection=None, words=(), after="", limit=10)
    assert bool(listed) == allowed
    if allowed:
        assert (await ledger.document("acme", caller, "pay")).id == "pay"
    else:
        for ask in (ledger.document, ledger.delete):
            with pytest.raises(NotFound):
                await ask("acme", caller, "pay")


@pytest.mark.parametrize("rounds", range(5))
async def test_of_two_that_take_an_id_at_once_the_later_does_not_replace_what_it_may_not_read(
    ledger: Ledger, accept: Accept, rounds: int
) -> None:
    said = await asyncio.gather(
        accept("pay", groups=HR, by=HR), accept("pay", groups=SALES, by=SALES), return_exceptions=True
    )
    (refused,) = [one for one in said if isinstance(one, BaseException)]
    assert isinstance(refused, Taken)
    (kept,) = [groups for groups, one in zip((HR, SALES), said, strict=True) if one is not refused]
    assert (await ledger.document("acme", None, "pay")).groups == kept
    await ledger.delete("acme", kept, "pay")
    assert await accept("pay", groups=HR | SALES, by=HR | SALES)


async def test_no_tenant_sees_another_s_documents(
    ledger: Ledger, reads: Reads, accept: Accept, show: Show, spec: IndexSpec
) -> None:
    await accept("pay")
    _, revision = await show()
    where = Filter(tenant="other", groups=None)
    assert await reads.visible(spec.generation, where, [("pay", revision)]) == frozenset()
    for ask in (ledger.document, ledger.delete):
        with pytest.raises(NotFound):
            await ask("other", None, "pay")
    assert await ledger.documents("other", None, collection=None, words=(), after="", limit=10) == []
    assert await ledger.collections("other", None) == []


async def test_the_same_id_in_two_tenants_is_two_documents(
    ledger: Ledger, accept: Accept, show: Show, spec: IndexSpec
) -> None:
    await accept("pay", tenant="acme")
    await accept("pay", tenant="other")
    await show()
    await show()
    await ledger.delete("other", None, "pay")
    assert (await ledger.document("acme", None, "pay")).visible


async def test_a_filter_s_collections_and_documents_narrow_what_is_seen(
    ledger: Ledger, reads: Reads, accept: Accept, show: Show, spec: IndexSpec
) -> None:
    await accept("pay", collection="policies")
    _, revision = await show()

    async def seen(collections: tuple[str, ...] = (), document_ids: tuple[str, ...] = ()) -> bool:
        where = Filter(tenant="acme", groups=None, collections=collections, document_ids=document_ids)
        return bool(await reads.visible(spec.generation, where, [("pay", revision)]))

    assert await seen(collections=("policies", "manuals"))
    assert not await seen(collections=("manuals",))
    assert await seen(document_ids=("pay",))
    assert not await seen(document_ids=("leave",))


async def test_narrower_rights_hold_from_the_moment_the_update_succeeds(
    ledger: Ledger, reads: Reads, accept: Accept, show: Show, spec: IndexSpec
) -> None:
    where = Filter(tenant="acme", groups=SALES)
    await accept("pay", groups=SALES)
    _, first = await show()
    before = await reads.epoch(where)
    await accept("pay", groups=HR)
    assert await reads.visible(spec.generation, where, [("pay", first)]) == {first}
    _, second = await show()
    assert await reads.visible(spec.generation, where, [("pay", first), ("pay", second)]) == frozenset()
    assert await reads.epoch(where) != before


async def test_the_epoch_rises_with_every_flip_and_delete_and_not_otherwise(
    ledger: Ledger, reads: Reads, accept: Accept, show: Show
) -> None:
    where = Filter(tenant="acme", groups=None)
    await accept("pay")
    epochs = [await reads.epoch(where)]
    await show()
    epochs.append(await reads.epoch(where))
    await accept("pay", "newer")
    assert await reads.epoch(where) == epochs[-1]
    await show()
    epochs.append(await reads.epoch(where))
    await ledger.delete("acme", None, "pay")
    epochs.append(await reads.epoch(where))
    await accept("leave")
    await ledger.delete("acme", None, "leave")  # Nobody has seen it yet.
    epochs.append(await reads.epoch(where))
    assert len(set(epochs)) == 5


async def test_the_epoch_is_of_the_filter_s_collections_only(
    ledger: Ledger, reads: Reads, accept: Accept, show: Show
) -> None:
    await accept("pay", collection="policies")
    await accept("pump", collection="manuals")
    policies = Filter(tenant="acme", groups=None, collections=("policies",))
    everything = Filter(tenant="acme", groups=None)
    await show()
    before = await reads.epoch(policies), await reads.epoch(everything)
    await show()
    assert await reads.epoch(policies) == before[0]
    assert await reads.epoch(everything) != before[1]
    assert await reads.epoch(Filter(tenant="other", groups=None)) not in before


async def test_a_document_that_moves_raises_the_epoch_of_both_collections(
    ledger: Ledger, reads: Reads, accept: Accept, show: Show, spec: IndexSpec
) -> None:
    await accept("pay", collection="old")
    await show()
    await accept("pay", collection="new")
    old, new = (Filter(tenant="acme", groups=None, collections=(name,)) for name in ("old", "new"))
    before = await reads.epoch(old), await reads.epoch(new)
    _, revision = await show()
    assert await reads.epoch(old) != before[0]
    assert await reads.epoch(new) != before[1]
    assert await reads.visible(spec.generation, old, [("pay", revision)]) == frozenset()
    assert await reads.visible(spec.generation, new, [("pay", revision)]) == {revision}


@pytest.mark.parametrize("by", ["id", "filter"])
async def test_a_document_that_is_put_out_of_reach_during_a_delete_stays(
    ledger: Ledger, engine: AsyncEngine, accept: Accept, somebody_waits: SomebodyWaits, by: str
) -> None:
    """What counts is what holds once the document is locked."""
    await accept("pay", groups=SALES)
    which = Filter(tenant="acme", groups=SALES)
    async with engine.connect() as other:
        await other.execute(text("UPDATE documents SET groups = '{hr}', metadata = '{}'"))
        ask = ledger.delete("acme", SALES, "pay") if by == "id" else ledger.bury(which, "")
        deleting = asyncio.create_task(ask)
        await somebody_waits()
        await other.commit()
    said = (await asyncio.gather(deleting, return_exceptions=True))[0]
    assert isinstance(said, NotFound) if by == "id" else said == ([], None)
    assert (await ledger.document("acme", HR, "pay")).groups == HR


async def test_a_collection_that_is_not_empty_is_not_closed(
    ledger: Ledger, reads: Reads, accept: Accept
) -> None:
    where = Filter(tenant="acme", groups=None)
    await accept("pay")
    before = await reads.epoch(where)
    await ledger.close_collection("acme", "default")
    assert await reads.epoch(where) == before
    await ledger.delete("acme", None, "pay")
    assert await ledger.known_collections("acme", None, ["default"]) == {"default"}


async def test_collections_count_what_is_not_deleted(ledger: Ledger, accept: Accept) -> None:
    for name in ("a", "b", "c"):
        await accept(name, collection="policies")
    await ledger.delete("acme", None, "b")
    (policies,) = await ledger.collections("acme", None)
    assert (policies.name, policies.documents) == ("policies", 2)


async def test_contents_lists_the_visible_revisions_that_the_filter_lets_through(
    ledger: Ledger, reads: Reads, accept: Accept, show: Show, spec: IndexSpec
) -> None:
    revisions = {}
    for name, collection, groups in (("a", "x", NONE), ("b", "y", NONE), ("c", "x", HR), ("gone", "x", NONE)):
        await accept(name, collection=collection, groups=groups)
        revisions[name] = (await show())[1]
    await accept("waiting", collection="x")
    await ledger.delete("acme", None, "gone")

    async def listed(where: Filter, limit: int = 10) -> list[str]:
        found = await reads.contents(spec.generation, where, limit)
        assert found == [(name, revisions[name], 3) for name, _, _ in found]
        return [name for name, _, _ in found]

    assert await listed(Filter(tenant="acme", groups=None)) == ["a", "b", "c"]
    assert await listed(Filter(tenant="acme", groups=None), limit=2) == ["a", "b"]
    assert await listed(Filter(tenant="acme", groups=SALES)) == ["a", "b"]
    assert await listed(Filter(tenant="acme", groups=None, collections=("x",))) == ["a", "c"]
    assert await listed(Filter(tenant="acme", groups=None, document_ids=("b", "gone"))) == ["b"]
    assert await listed(Filter(tenant="other", groups=None)) == []
