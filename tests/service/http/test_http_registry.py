"""The registry of releases against a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from typer.testing import Result

from app import telemetry
from app.embedders import Embedders
from app.errors import ModelUnknown, ReleaseConflict, ReleaseUnknown, RequestInvalid
from app.indexes import Indexes
from app.probes import Probes
from app.promotion import Promotions
from app.release import DEFAULT_RELEASE, IndexPart, Release, load_release, with_model
from app.releases import Registry
from app.settings import load_settings
from app.trials import Trials
from eval.report import dump, verdict_json
from ingestion.errors import LedgerUnavailable
from ingestion.ledger import Ledger
from ingestion.types import Placed
from retrieval.errors import EmbedderUnavailable
from retrieval.types import Encoder, IndexSpec
from tests import reports
from tests.shell import run

MakePromotions = Callable[[Registry], Promotions]


@pytest.fixture
def first() -> Release:
    return load_release(DEFAULT_RELEASE)


@pytest.fixture
def second(first: Release) -> Release:
    return with_model(first, "a-model")


@pytest.fixture
async def registry(engine: AsyncEngine, first: Release) -> Registry:
    registry = Registry(engine, poll=0.01)
    await registry.start(first)
    return registry


class Preparing:
    """Nothing is asked of these releases, so nothing has to be made ready; `meanwhile` something happens."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def __call__(self, release: Release) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            await meanwhile()


@pytest.fixture
def preparing() -> Preparing:
    return Preparing()


@pytest.fixture
def make_promotions(
    engine: AsyncEngine, embedder: Encoder, tmp_path: Path, preparing: Preparing
) -> MakePromotions:
    async def unsound(spec: IndexSpec, embedder: Encoder, sample: Sequence[Placed]) -> str | None:
        raise AssertionError("No index is built in these tests.")

    embedders = Embedders(load_settings({}, data=tmp_path), telemetry.tracer(), Probes(engine), embedder)
    indexes = Indexes(Ledger(engine), embedders, unsound, parser="1")
    return lambda registry: Promotions(
        engine, registry, indexes, Trials(engine, registry, indexes), preparing
    )


@pytest.fixture
def promotions(registry: Registry, make_promotions: MakePromotions) -> Promotions:
    return make_promotions(registry)


async def _until_these_wait(engine: AsyncEngine, sessions: int) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    async with asyncio.timeout(20):
        while True:
            async with engine.connect() as connection:
                found = await connection.scalar(text(f"{waiting} AND wait_event_type = 'Lock'"))
            if found == sessions:
                return
            await asyncio.sleep(0.01)


async def test_the_first_release_serves_and_says_that_it_was_never_evaluated(
    registry: Registry, first: Release
) -> None:
    champion = registry.champion()
    assert (champion.release.id, champion.state) == (first.id, "bootstrap")
    assert champion.release.canonical() == first.canonical()


async def test_processes_that_start_at_once_agree_on_the_first_release(
    engine: AsyncEngine, first: Release, second: Release
) -> None:
    registries = [Registry(engine) for _ in range(4)]
    async with engine.begin() as holding:
        await holding.execute(text("LOCK TABLE pointers IN ACCESS EXCLUSIVE MODE"))
        starts = [
            asyncio.create_task(one.start(release))
            for one, release in zip(registries, [first, second] * 2, strict=True)
        ]
        await _until_these_wait(engine, len(starts))
    await asyncio.gather(*starts)
    assert len({one.champion().release.id for one in registries}) == 1


async def test_a_later_start_with_another_file_keeps_the_champion(
    registry: Registry, engine: AsyncEngine, first: Release, second: Release
) -> None:
    again = Registry(engine)
    await again.start(second)
    assert again.champion().release.id == first.id


async def test_a_release_that_was_not_evaluated_is_promoted_only_by_force_and_with_a_reason(
    registry: Registry, engine: AsyncEngine, second: Release, promotions: Promotions
) -> None:
    await registry.add(second)
    with pytest.raises(ReleaseConflict, match="not passed an evaluation"):
        await promotions.promote(second.id)
    with pytest.raises(RequestInvalid, match="reason"):
        await promotions.promote(second.id, force=True)

    await promotions.promote(second.id, force=True, reason="the first one is broken", who="ann")

    assert registry.champion().release.id == second.id
    async with engine.connect() as connection:
        noted = await connection.execute(
            text("SELECT who, evidence FROM audit WHERE what = 'release.promote'")
        )
        who, evidence = noted.one()
    assert who == "ann"
    assert evidence["reason"] == "the first one is broken"


async def test_a_failed_evaluation_does_not_allow_promotion_and_a_passed_one_does(
    registry: Registry, second: Release, promotions: Promotions
) -> None:
    await registry.add(second)
    await registry.judge(second.id, {"lost": 3}, passed=False)
    with pytest.raises(ReleaseConflict):
        await promotions.promote(second.id)
    assert (await registry.show(second.id)).state == "draft"

    await registry.judge(second.id, {"lost": 0}, passed=True)
    assert (await registry.show(second.id)).state == "evaluated"
    await promotions.promote(second.id)

    assert (registry.champion().release.id, registry.champion().state) == (second.id, "champion")


async def _keep(engine: AsyncEngine, of: Release, against: Release, folder: Path) -> Result:
    """`plumbline release judge` on the ledger, of a verdict that passed."""
    verdict = reports.verdict("passed")
    sides = {"candidate": of, "baseline": against}
    told = {name: replace(getattr(verdict, name), id=side.id) for name, side in sides.items()}
    file = folder / "verdict.json"
    file.write_text(dump(verdict_json(replace(verdict, **told))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", engine.url.render_as_string(hide_password=False))
        return await asyncio.to_thread(run, "release", "judge", str(file), "--data", str(folder))


async def test_a_verdict_that_passed_against_another_release_than_the_one_that_serves_is_not_kept(
    registry: Registry, engine: AsyncEngine, first: Release, second: Release, tmp_path: Path
) -> None:
    await registry.add(second)
    refused = await _keep(engine, second, second, tmp_path)
    assert refused.exit_code == 1
    assert f"compared with release {second.id}, which does not serve: {first.id} does" in refused.stderr
    assert not (await registry.show(second.id)).evaluated
    kept = await _keep(engine, second, first, tmp_path)
    assert (kept.exit_code, kept.stderr) == (0, "")
    assert (await registry.show(second.id)).evaluated


async def test_of_the_first_release_a_verdict_against_itself_says_that_it_works(
    registry: Registry, engine: AsyncEngine, first: Release, tmp_path: Path
) -> None:
    kept = await _keep(engine, first, first, tmp_path)
    assert (kept.exit_code, kept.stderr) == (0, "")
    assert (await registry.show(first.id)).evaluated


async def test_a_name_that_another_release_has_is_told_with_whom_it_means(
    registry: Registry, engine: AsyncEngine, tmp_path: Path
) -> None:
    made = []
    for limit in (5, 6):
        file = tmp_path / f"{limit}.toml"
        text = (
            DEFAULT_RELEASE.read_text()
            .replace('"default"', '"twin"')
            .replace("limit = 8", f"limit = {limit}")
        )
        file.write_text(text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DATABASE_URL", engine.url.render_as_string(hide_password=False))
            made.append(await asyncio.to_thread(run, "release", "add", str(file), "--data", str(tmp_path)))
    newest = load_release(tmp_path / "6.toml").id
    assert [one.exit_code for one in made] == [0, 0]
    assert made[0].stderr == ""
    assert made[1].stderr == f"2 releases are named twin: the name means the newest, {newest}.\n"
    assert (await registry.show("twin")).id == newest


async def test_a_verdict_on_a_release_that_nobody_added_says_what_to_do(
    registry: Registry, engine: AsyncEngine, first: Release, second: Release, tmp_path: Path
) -> None:
    refused = await _keep(engine, second, first, tmp_path)
    assert refused.exit_code == 1
    assert refused.stderr == (
        f"Release {second.id} is not registered: `plumbline release add` its file first.\n"
    )


async def test_rollback_brings_the_release_before_back(
    registry: Registry, first: Release, second: Release, promotions: Promotions
) -> None:
    assert await registry.before() is None
    with pytest.raises(ReleaseConflict):
        await promotions.rollback()
    await registry.add(second)
    await promotions.promote(second.id, force=True, reason="try")
    earlier = await registry.before()
    assert earlier
    assert earlier.id == first.id

    await promotions.rollback(reason="worse")

    assert await registry.before() is None
    assert registry.champion().release.id == first.id
    assert {one.id: one.state for one in await registry.list()} == {
        first.id: "champion",
        second.id: "retired",
    }


async def test_rollback_goes_back_where_the_latest_move_came_from(
    registry: Registry, first: Release, second: Release, promotions: Promotions
) -> None:
    third = with_model(first, "another-model")
    for release in (second, third):
        await registry.add(release)
        await registry.judge(release.id, {}, passed=True)
    for release in (second, third, second):
        await promotions.promote(release.id)
    earlier = await registry.before()
    assert earlier
    assert earlier.id == third.id
    await promotions.rollback()
    assert registry.champion().release.id == third.id


async def test_a_verdict_on_the_champion_changes_what_is_said_of_it_and_not_that_it_serves(
    registry: Registry, first: Release, second: Release, promotions: Promotions
) -> None:
    await registry.add(second)
    await promotions.promote(second.id, force=True, reason="an outage")
    assert registry.champion().forced == "an outage"
    failed = await registry.judge(second.id, {}, passed=False)
    assert (failed.state, failed.evaluated, failed.forced) == ("champion", False, "an outage")
    passed = await registry.judge(second.id, {}, passed=True)
    assert (passed.state, passed.evaluated, passed.forced) == ("champion", True, None)
    await registry.refresh()
    assert (registry.champion().release.id, registry.champion().forced) == (second.id, None)
    await promotions.rollback()
    assert registry.champion().release.id == first.id


@pytest.mark.parametrize("move", ["promote", "rollback"])
async def test_of_two_who_move_the_pointer_at_once_the_later_is_refused(
    registry: Registry,
    first: Release,
    second: Release,
    promotions: Promotions,
    preparing: Preparing,
    move: str,
) -> None:
    """The second one decided by what served before the first one's move."""
    third = with_model(first, "another-model")
    for release in (second, third):
        await registry.add(release)
        await registry.judge(release.id, {}, passed=True)
    await promotions.promote(second.id)
    preparing.meanwhile = lambda: promotions.promote(third.id)
    again = (
        promotions.promote(first.id, force=True, reason="better")
        if move == "promote"
        else promotions.rollback()
    )
    with pytest.raises(ReleaseConflict):
        await again
    assert registry.champion().release.id == third.id
    assert {one.id: one.state for one in await registry.list()} == {
        first.id: "retired",
        second.id: "soaking",
        third.id: "champion",
    }


async def test_the_champion_is_not_promoted_again(
    registry: Registry, first: Release, promotions: Promotions
) -> None:
    promoted = await promotions.promote(first.id, force=True, reason="once more")
    assert (promoted.id, promoted.state) == (first.id, "champion")
    assert [one["what"] for one in await registry.history(first.id)] == ["release.bootstrap"]


async def test_a_promotion_waits_for_one_that_has_not_committed_and_is_refused_then(
    registry: Registry, engine: AsyncEngine, first: Release, second: Release, promotions: Promotions
) -> None:
    third = with_model(first, "another-model")
    for release in (second, third):
        await registry.add(release)
        await registry.judge(release.id, {}, passed=True)
    async with engine.begin() as moving:
        await moving.execute(text("SELECT release_id FROM pointers FOR UPDATE"))
        promoting = asyncio.create_task(promotions.promote(second.id))
        await _until_these_wait(engine, 1)
        await moving.execute(text("UPDATE pointers SET release_id = :id"), {"id": third.id})
    with pytest.raises(ReleaseConflict, match="became champion meanwhile"):
        await promoting


async def test_looking_at_who_serves_waits_for_no_promotion(registry: Registry, engine: AsyncEngine) -> None:
    async with engine.begin() as promoting:
        await promoting.execute(text("SELECT release_id FROM pointers FOR UPDATE"))
        served = await asyncio.wait_for(registry.served(), 20)
        assert served.id == registry.champion().release.id
        assert await asyncio.wait_for(registry.before(), 20) is None


async def test_a_release_that_needs_another_index_is_not_promoted(
    registry: Registry, first: Release, promotions: Promotions
) -> None:
    body = first.body.model_copy(update={"index": IndexPart(chunk_tokens=100)})
    other = Release(body=body, answer=first.answer, summarize=first.summarize, rewrite=first.rewrite)
    await registry.add(other)
    await registry.judge(other.id, {}, passed=True)
    with pytest.raises(ReleaseConflict, match="index"):
        await promotions.promote(other.id)


async def test_a_promotion_elsewhere_is_followed(
    registry: Registry, engine: AsyncEngine, first: Release, second: Release, make_promotions: MakePromotions
) -> None:
    elsewhere = Registry(engine)
    await elsewhere.add(second)
    async with registry.following():
        await make_promotions(elsewhere).promote(second.id, force=True, reason="try")
        async with asyncio.timeout(30):
            while registry.champion().release.id != second.id:
                await asyncio.sleep(0.01)


async def test_a_new_champion_serves_only_once_it_is_ready(
    registry: Registry, engine: AsyncEngine, first: Release, second: Release, make_promotions: MakePromotions
) -> None:
    """Until then, and if it cannot be made ready, the one before it goes on."""
    ready, asked = asyncio.Event(), 0

    async def prepare(release: Release) -> None:
        nonlocal asked
        asked += 1
        if not ready.is_set():
            raise EmbedderUnavailable("not yet")

    elsewhere = Registry(engine)
    await elsewhere.start(first)
    await elsewhere.add(second)
    async with registry.following(prepare):
        await make_promotions(elsewhere).promote(second.id, force=True, reason="try")
        async with asyncio.timeout(30):
            while asked < 3:
                await asyncio.sleep(0.01)
        assert registry.champion().release.id == first.id
        ready.set()
        async with asyncio.timeout(30):
            while registry.champion().release.id != second.id:
                await asyncio.sleep(0.01)


async def test_what_serves_beside_the_champion_is_made_ready_by_a_process_that_starts_later(
    registry: Registry, engine: AsyncEngine, first: Release, second: Release, make_promotions: MakePromotions
) -> None:
    """Else it would send all its conversations to the champion for as long as it lives."""
    await registry.add(second)
    await make_promotions(registry).promote(second.id, force=True, reason="try")
    later, prepared = Registry(engine, poll=0.01), set[str]()

    async def prepare(release: Release) -> None:
        prepared.add(release.id)

    await later.start(first)
    # What is begun when it first looks is over by the time that it follows.
    await asyncio.sleep(0)
    async with later.following(prepare), asyncio.timeout(30):
        while first.id not in prepared:
            await asyncio.sleep(0.01)


async def test_the_last_champion_serves_while_the_database_cannot_be_read(
    registry: Registry, engine: AsyncEngine, first: Release, second: Release, make_promotions: MakePromotions
) -> None:
    name = engine.url.database
    admin = create_async_engine(engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    async with registry.following(), admin.connect() as server:
        await server.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        await server.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": name},
        )
        with pytest.raises(LedgerUnavailable):
            await registry.refresh()
        await asyncio.sleep(0.1)
        assert registry.champion().release.id == first.id

        await server.execute(text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))
        elsewhere = Registry(engine)
        await elsewhere.add(second)
        await make_promotions(elsewhere).promote(second.id, force=True, reason="try")
        async with asyncio.timeout(30):
            while registry.champion().release.id != second.id:
                await asyncio.sleep(0.01)
    await admin.dispose()


async def test_releases_are_found_by_id_by_its_beginning_and_by_name(
    registry: Registry, first: Release
) -> None:
    for reference in (first.id, first.id[:6], first.name):
        assert (await registry.show(reference)).id == first.id
    for reference in ("nothing", first.id[:2], "%%%%", "\x00"):
        with pytest.raises(ReleaseUnknown):
            await registry.show(reference)


async def test_the_champion_goes_by_that_name_too(
    registry: Registry, first: Release, second: Release, promotions: Promotions
) -> None:
    assert (await registry.show("champion")).id == first.id
    await registry.add(second)
    await promotions.promote(second.id, force=True, reason="try")
    assert (await registry.show("champion")).id == second.id
    assert [entry["what"] for entry in await registry.history("champion")][-1] == "release.promote"


async def test_a_models_name_means_a_release(registry: Registry, first: Release, second: Release) -> None:
    await registry.add(second)
    assert await registry.named("plumbline") is None
    for model in (f"plumbline@{first.id}", f"plumbline@{first.id[:5]}", "plumbline@default"):
        named = await registry.named(model)
        assert named
        assert named.id == first.id
    named = await registry.named(f"plumbline@{second.id}")
    assert named
    assert named.id == second.id
    for model in ("gpt-4o", "plumbline@ffffffffffff", "plumbline@", "@"):
        with pytest.raises(ModelUnknown):
            await registry.named(model)
