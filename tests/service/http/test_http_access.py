"""Keys against a real PostgreSQL, and who may call without one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine

from app.access import Access, Caller, filter_for, opened
from app.database import open_engine
from app.errors import Forbidden, KeyUnknown, OpenAccessRefused, RequestInvalid, Unauthenticated
from app.settings import load_settings
from app.types import Principal
from ingestion.errors import LedgerUnavailable
from retrieval.types import Filter


def bearer(secret: str) -> Caller:
    return Caller(authorization=f"Bearer {secret}", host="docs.example.org")


async def test_a_key_opens_its_tenant_with_its_groups_and_scopes(engine: AsyncEngine) -> None:
    keys = Access(engine)
    key, secret = await keys.create_key(
        "acme", "reader", groups=frozenset({"sales", "hr"}), scopes=["read", "write"]
    )

    principal = await keys.authenticate(bearer(secret))

    assert principal.tenant == "acme"
    assert principal.groups == frozenset({"sales", "hr"})
    assert principal.scopes == {"read", "write"}
    assert principal.key_id == key.id


async def test_an_administrator_of_some_groups_is_refused(engine: AsyncEngine) -> None:
    with pytest.raises(RequestInvalid, match="every group"):
        await Access(engine).create_key("acme", "k", groups=frozenset({"hr"}), scopes=["admin"])


async def test_only_an_administrator_reads_every_group(engine: AsyncEngine) -> None:
    keys = Access(engine)
    _, plain = await keys.create_key("acme", "plain", groups=None, scopes=["read"])
    _, admin = await keys.create_key("acme", "admin", groups=None, scopes=["admin"])

    _, operator = await keys.create_key("acme", "operator", groups=None, scopes=["operate"])

    assert (await keys.authenticate(bearer(plain))).groups == frozenset()
    assert (await keys.authenticate(bearer(operator))).groups == frozenset()
    assert (await keys.authenticate(bearer(admin))).groups is None


async def test_the_secret_is_nowhere_in_the_database(engine: AsyncEngine) -> None:
    _, secret = await Access(engine).create_key("acme", "k", groups=None, scopes=["read"])
    async with engine.connect() as connection:
        found = (await connection.execute(text("SELECT row_to_json(keys)::text FROM keys"))).scalars().all()
        noted = (await connection.execute(text("SELECT row_to_json(audit)::text FROM audit"))).scalars().all()
    assert found
    assert not any(secret in row for row in (*found, *noted))


async def test_many_who_come_at_once_with_a_key_ask_for_it_once(engine: AsyncEngine) -> None:
    keys = Access(engine)
    _, secret = await keys.create_key("acme", "k", groups=None, scopes=["read"])
    asked = list[str]()
    event.listen(
        engine.sync_engine, "before_cursor_execute", lambda *told: asked.append(told[2]), named=False
    )
    givers_up = [asyncio.create_task(keys.authenticate(bearer(secret))) for _ in range(2)]
    await asyncio.sleep(0)
    givers_up[0].cancel()
    found = await asyncio.gather(*(keys.authenticate(bearer(secret)) for _ in range(50)), givers_up[1])
    assert {one.tenant for one in found} == {"acme"}
    assert sum(statement.startswith("SELECT keys") for statement in asked) == 1


async def test_keys_that_somebody_makes_up_do_not_push_out_those_that_are_real(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.access._MOST_KNOWN", 3)
    now = [100.0]
    keys = Access(engine, clock=lambda: now[0])
    _, secret = await keys.create_key("acme", "k", groups=None, scopes=["read"])
    await keys.authenticate(bearer(secret))
    asked = list[str]()
    event.listen(
        engine.sync_engine, "before_cursor_execute", lambda *told: asked.append(told[2]), named=False
    )
    for number in (0, 1, 2, 3, 4, 4):
        with pytest.raises(Unauthenticated):
            await keys.authenticate(bearer(f"pl-{number}"))
    assert sum("FROM keys" in statement for statement in asked) == 5
    await keys.authenticate(bearer(secret))
    assert sum("FROM keys" in statement for statement in asked) == 5


async def test_an_outage_is_told_to_all_who_came_at_once_and_the_next_one_asks_again() -> None:
    keys = Access(open_engine("postgresql://nobody@127.0.0.1:1/none"))
    for _ in range(2):
        found = await asyncio.gather(
            *(keys.authenticate(bearer("pl-x")) for _ in range(3)), return_exceptions=True
        )
        assert [type(one) for one in found] == [LedgerUnavailable] * 3


async def test_a_revoked_key_is_refused_by_another_process_within_two_seconds(engine: AsyncEngine) -> None:
    now = [100.0]
    here, there = Access(engine), Access(engine, clock=lambda: now[0])
    key, secret = await here.create_key("acme", "k", groups=None, scopes=["read"])
    await there.authenticate(bearer(secret))

    await here.revoke_key(key.id)
    now[0] += 2.0

    for process in (here, there):
        with pytest.raises(Unauthenticated):
            await process.authenticate(bearer(secret))


@pytest.mark.parametrize("authorization", ["Bearer pl-wrong", "Bearer ", "Basic abc", "", "pl-wrong"])
async def test_a_wrong_key_is_refused_even_where_no_key_is_needed(
    engine: AsyncEngine, authorization: str
) -> None:
    with pytest.raises(Unauthenticated):
        await Access(engine, open_access=True).authenticate(
            Caller(authorization=authorization, host="localhost:8080")
        )


async def test_a_key_of_another_service_is_no_obstacle_where_none_is_needed(engine: AsyncEngine) -> None:
    caller = Caller(authorization="Bearer sk-anything", host="localhost:8080")
    assert (await Access(engine, open_access=True).authenticate(caller)).tenant == "default"
    with pytest.raises(Unauthenticated):
        await Access(engine).authenticate(caller)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8080", None),
        ("localhost:8080", "http://localhost:8080"),
        ("[::1]:8080", None),
        ("127.0.0.1", "http://127.0.0.1"),
    ],
)
async def test_open_access_answers_loopback_names_of_the_same_origin(
    engine: AsyncEngine, host: str, origin: str | None
) -> None:
    principal = await Access(engine, open_access=True).authenticate(Caller(host=host, origin=origin))
    assert (principal.tenant, principal.groups) == ("default", None)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("evil.example:8080", None),
        ("127.0.0.1.evil.example", None),
        ("localhost@evil.example", None),
        ("", None),
        ("127.0.0.1:8080", "http://evil.example"),
        ("127.0.0.1:8080", "http://127.0.0.1:9999"),
        ("127.0.0.1:8080", "null"),
        ("127.0.0.1:8080", "http://["),
    ],
)
async def test_open_access_refuses_other_names_and_other_origins(
    engine: AsyncEngine, host: str, origin: str | None
) -> None:
    with pytest.raises(Forbidden):
        await Access(engine, open_access=True).authenticate(Caller(host=host, origin=origin))


async def test_without_open_access_a_key_is_needed(engine: AsyncEngine) -> None:
    with pytest.raises(Unauthenticated):
        await Access(engine).authenticate(Caller(host="127.0.0.1:8080"))


async def test_an_address_other_than_loopback_needs_a_key_to_start(engine: AsyncEngine) -> None:
    keys, public = Access(engine), load_settings({}, host="0.0.0.0")
    await keys.require_keys(load_settings({}, host="127.0.0.1"))
    with pytest.raises(OpenAccessRefused, match="plumbline keys create"):
        await keys.require_keys(public)

    key, _ = await keys.create_key("acme", "k", groups=None, scopes=["read"])
    await keys.require_keys(public)
    await keys.revoke_key(key.id)
    with pytest.raises(OpenAccessRefused):
        await keys.require_keys(public)
    with pytest.raises(OpenAccessRefused):
        await keys.require_keys(load_settings({}, host="0.0.0.0", open_access=True))


@pytest.mark.parametrize("open_access", [None, True, False])
def test_only_on_loopback_is_anybody_answered_without_a_key(open_access: bool | None) -> None:
    """Whatever the setting says: a Host header is easily forged."""
    for host in ("0.0.0.0", "::", "192.0.2.7", "docs.example.org"):
        assert not opened(load_settings({}, host=host, open_access=open_access))
    for host in ("127.0.0.1", "::1", "localhost"):
        assert opened(load_settings({}, host=host, open_access=open_access)) == (open_access is not False)


@pytest.mark.parametrize("groups", [None, frozenset[str](), frozenset({"hr"})])
def test_what_a_caller_may_read_is_what_the_key_says(groups: frozenset[str] | None) -> None:
    caller = Principal(tenant="acme", groups=groups, scopes=frozenset({"read"}))
    assert filter_for(caller, ["a"], ["x"]) == Filter(
        tenant="acme", groups=groups, collections=("a",), document_ids=("x",)
    )


async def test_keys_are_listed_and_revoked_by_id_or_by_a_name_that_one_has(engine: AsyncEngine) -> None:
    keys = Access(engine)
    one, secret = await keys.create_key("acme", "same", groups=None, scopes=["read"])
    two, _ = await keys.create_key("other", "same", groups=None, scopes=["read"])

    with pytest.raises(RequestInvalid):
        await keys.revoke_key("same")
    with pytest.raises(KeyUnknown):
        await keys.revoke_key("nobody")
    assert (await keys.authenticate(bearer(secret))).tenant == "acme"
    revoked = await keys.revoke_key(one.id)
    with pytest.raises(Unauthenticated):  # At once, where it was revoked.
        await keys.authenticate(bearer(secret))
    assert (await keys.revoke_key(one.id)).revoked_at == revoked.revoked_at

    assert {key.id: key.revoked_at is not None for key in await keys.list_keys()} == {
        one.id: True,
        two.id: False,
    }
    assert [key.id for key in await keys.list_keys("other")] == [two.id]


async def test_a_database_that_cannot_be_reached_is_an_outage_and_not_a_wrong_key() -> None:
    engine = open_engine("postgresql://nobody@127.0.0.1:9/none")
    with pytest.raises(LedgerUnavailable):
        await Access(engine).authenticate(bearer("pl-any"))
    await engine.dispose()


async def test_a_key_is_not_known_for_longer_than_it_lasts(engine: AsyncEngine) -> None:
    now = [100.0]
    keys = Access(engine, clock=lambda: now[0])
    ends = datetime.now(UTC) + timedelta(seconds=1.5)
    _, secret = await keys.create_key("acme", "k", groups=None, scopes=["read"], expires_at=ends)
    assert (await keys.authenticate(bearer(secret))).tenant == "acme"
    await asyncio.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds()) + 0.05)
    now[0] += 1.5  # Less than a key is known for.
    with pytest.raises(Unauthenticated):
        await keys.authenticate(bearer(secret))


async def test_use_is_noted_once_a_minute(engine: AsyncEngine) -> None:
    now = [100.0]
    keys = Access(engine, clock=lambda: now[0])
    key, secret = await keys.create_key("acme", "k", groups=None, scopes=["read"])
    noted = list[str]()
    event.listen(
        engine.sync_engine, "before_cursor_execute", lambda *told: noted.append(told[2]), named=False
    )
    for _ in range(3):
        await keys.authenticate(bearer(secret))
        now[0] += 2.0
    assert sum(statement.startswith("UPDATE keys") for statement in noted) == 1
    assert (await keys.key(key.id)).used_at is not None


async def test_a_name_is_the_key_that_still_opens_something(engine: AsyncEngine) -> None:
    keys = Access(engine)
    first, _ = await keys.create_key("acme", "app", groups=None, scopes=["read"])
    second, _ = await keys.rotate_key("app", grace=0)
    assert (await keys.key("app")).id == second.id
    assert (await keys.key(first.id)).state == "revoked"
    with pytest.raises(KeyUnknown):
        await keys.key("app", tenant="other")
