"""Who is calling and what that lets them see: keys, scopes, and the one way from a caller to a `Filter`.

A key is 256 random bits; only its SHA-256 is kept, so a copy of the database opens nothing. Looking a
key up is remembered for `KNOWN_FOR` seconds, so that PostgreSQL is not asked on every request and a
revoked key still stops within that time. One that expires stops then.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any, Literal, TypeVar, cast

from sqlalchemy import Row, and_, func, insert, or_, select, text, tuple_, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.errors import Forbidden, KeyUnknown, OpenAccessRefused, RequestInvalid, Unauthenticated
from app.settings import Settings
from app.tables import audit, keys, tenants, transaction
from app.types import Principal, Scope
from ingestion.errors import LedgerUnavailable
from retrieval.beside import aside
from retrieval.types import Condition, Filter

KNOWN_FOR = 2.0
_MOST_KNOWN = 4_096
USE_NOTED = 60.0
"""Seconds of use of a key that are told as one."""
LONGEST_GRACE = 30 * 86_400
"""Seconds for which a key may go on beside the one that takes its place."""
SCOPES: tuple[Scope, ...] = ("read", "write", "admin", "operate", "evaluate")
_INCLUDED: Mapping[Scope, frozenset[Scope]] = {"admin": frozenset({"read", "write"})}
_OURS = "pl-"
"""How every key of ours begins."""
LOCAL = Principal(tenant="default", groups=None, scopes=frozenset(SCOPES))
V = TypeVar("V")
KeyState = Literal["active", "expired", "revoked"]
_NAME = re.compile(r"[A-Za-z0-9._:@-]{1,100}")
_OPENS = and_(keys.c.revoked_at.is_(None), or_(keys.c.expires_at.is_(None), keys.c.expires_at > func.now()))
"""Of a key that is neither revoked nor expired."""
COMMAND_LINE = "command line"
_MAKE_ONE = "Make a key with `plumbline keys create`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it can be shown: never the secret, only its first and last characters."""

    id: str
    tenant: str
    name: str
    prefix: str
    last4: str
    groups: frozenset[str] | None
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None

    @property
    def state(self) -> KeyState:
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at and self.expires_at <= datetime.now(UTC) else "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What a request says about who sent it: its Authorization, Host and Origin headers."""

    authorization: str | None = None
    host: str | None = None
    origin: str | None = None


class Access:
    """`open_access` True answers requests without a key, or with one that is none of ours, as the local user,
    from loopback names only."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        open_access: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._open = open_access
        self._known: dict[bytes, tuple[float, Principal]] = {}
        """Until when, and who."""
        self._unknown: dict[bytes, float] = {}
        """Apart: whoever makes up keys must not push those out that are real."""
        self._asking: dict[bytes, asyncio.Task[Principal | None]] = {}

    async def authenticate(self, caller: Caller) -> Principal:
        """The caller behind these headers; raises `Unauthenticated` or `Forbidden`."""
        if caller.authorization is None:
            return self._without_key(caller)
        scheme, _, secret = caller.authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise Unauthenticated("The Authorization header must be `Bearer <key>`.")
        secret = secret.strip()
        if self._open and not secret.startswith(_OURS):
            # Clients made for other services cannot send no key at all.
            return self._without_key(caller)
        principal = await self._look_up(hashlib.sha256(secret.encode()).digest())
        if principal is None:
            raise Unauthenticated("This key is unknown, has expired or was revoked.")
        return principal

    def _without_key(self, caller: Caller) -> Principal:
        if not self._open:
            raise Unauthenticated(f"A key is needed: send `Authorization: Bearer <key>`. {_MAKE_ONE}.")
        if not is_loopback(_host_name(caller.host or "")):
            raise Forbidden(
                "Without a key this service answers to loopback names only (127.0.0.1, localhost). "
                f"{_MAKE_ONE} to call it by another name.",
                "host_not_allowed",
            )
        if caller.origin not in (None, f"http://{caller.host}", f"https://{caller.host}"):
            raise Forbidden(
                f"Without a key, pages of another origin ({caller.origin}) may not call this service. "
                f"{_MAKE_ONE}, and name the origin in PLUMBLINE_ALLOWED_ORIGINS.",
                "origin_not_allowed",
            )
        return LOCAL

    async def _look_up(self, digest: bytes) -> Principal | None:
        now = self._clock()
        known = self._known.get(digest)
        if known and now < known[0]:
            return known[1]
        if now - self._unknown.get(digest, -math.inf) < KNOWN_FOR:
            return None
        # Of many who come at once with the same key, one asks.
        asking = self._asking.get(digest)
        if asking is None:
            self._asking[digest] = asking = aside(self._read(digest, now))
            asking.add_done_callback(lambda task: self._asked(digest, task))
        return await asyncio.shield(asking)

    def _asked(self, digest: bytes, task: asyncio.Task[Principal | None]) -> None:
        if self._asking.get(digest) is task:
            del self._asking[digest]

    async def _read(self, digest: bytes, now: float) -> Principal | None:
        left = func.extract("epoch", keys.c.expires_at - func.now())
        unnoted = func.coalesce(keys.c.used_at < func.now() - timedelta(seconds=USE_NOTED), True)
        wanted = select(keys, left.label("left"), unnoted.label("unnoted")).where(keys.c.hash == digest)
        async with transaction(self._engine) as connection:
            found = (await connection.execute(wanted)).one_or_none()
        lasts = 0.0 if found is None or found.revoked_at else _lasts(found.left)
        if found is None or lasts <= 0:
            self._known.pop(digest, None)
            _room_in(self._unknown)[digest] = now
            return None
        principal = _principal(found)
        _room_in(self._known)[digest] = (now + lasts, principal)
        if found.unnoted:
            await self._note_use(found.id)
        return principal

    async def _note_use(self, key_id: str) -> None:
        """A ledger that cannot be written is no reason to refuse a key, and neither its disk nor whoever
        changes the key is waited for."""
        free = select(keys.c.id).where(keys.c.id == key_id).with_for_update(skip_locked=True)
        used = update(keys).where(keys.c.id.in_(free)).values(used_at=func.now())
        with suppress(LedgerUnavailable):
            async with transaction(self._engine) as connection:
                await connection.execute(text("SET LOCAL synchronous_commit = off"))
                await connection.execute(used)

    async def create_key(
        self,
        tenant: str,
        name: str,
        *,
        groups: frozenset[str] | None,
        scopes: Sequence[Scope],
        expires_at: datetime | None = None,
        who: str = COMMAND_LINE,
    ) -> tuple[Key, str]:
        """A new key and its secret, which cannot be shown again. The tenant is made if it is new.

        Only a tenant's administrators read every group: for other keys, `groups` None is the same as no
        groups, and shows the documents that name none.
        """
        _check_names(tenant, name, groups, scopes)
        _require_ahead(expires_at)
        if groups is None and "admin" not in scopes:
            groups = frozenset()
        new = {
            "tenant": tenant,
            "name": name,
            "groups": None if groups is None else sorted(groups),
            "scopes": [scope for scope in SCOPES if scope in scopes],
            "expires_at": expires_at,
        }
        async with transaction(self._engine) as connection:
            await connection.execute(postgresql.insert(tenants).values(id=tenant).on_conflict_do_nothing())
            made, secret = await _made(connection, new)
            evidence = {"tenant": tenant, "name": name, "scopes": new["scopes"]}
            await _note(connection, who, "key.create", made.id, evidence)
        return made, secret

    async def list_keys(
        self, tenant: str | None = None, *, after: str | None = None, limit: int | None = None
    ) -> list[Key]:
        """The oldest first, revoked and expired ones, too; of one tenant or of all, those made after the key
        of the id `after`."""
        order = (keys.c.created_at, keys.c.id)
        wanted = select(keys).order_by(*order).limit(limit)
        if tenant is not None:
            wanted = wanted.where(keys.c.tenant == tenant)
        if after is not None:
            wanted = wanted.where(tuple_(*order) > select(*order).where(keys.c.id == after).scalar_subquery())
        async with transaction(self._engine) as connection:
            return [_key(row) for row in await connection.execute(wanted)]

    async def key(self, reference: str, *, tenant: str | None = None) -> Key:
        """The key of this id, or else the one of this name that opens something; of one tenant, or of any.
        Raises `KeyUnknown`, and `RequestInvalid` where several have the name."""
        async with transaction(self._engine) as connection:
            return await _found(connection, reference, tenant)

    async def revoke_key(self, reference: str, *, tenant: str | None = None, who: str = COMMAND_LINE) -> Key:
        """A key revoked before keeps its first date."""
        async with transaction(self._engine) as connection:
            found = await _found(connection, reference, tenant)
            at = func.coalesce(keys.c.revoked_at, func.now())
            gone = await _changed(connection, found.id, revoked_at=at)
            await _note(connection, who, "key.revoke", gone.id, {"tenant": gone.tenant})
        self._forget()
        return gone

    async def rotate_key(
        self,
        reference: str,
        *,
        grace: float,
        expires_at: datetime | None = None,
        tenant: str | None = None,
        who: str = COMMAND_LINE,
    ) -> tuple[Key, str]:
        """Another key in the place of one, which goes on for `grace` seconds, and the new one's secret. By
        default it lasts as long from now on as the old one was made for. Raises `RequestInvalid` for a key
        that opens nothing any more."""
        if not 0 <= grace <= LONGEST_GRACE:
            raise RequestInvalid(f"The old key goes on for 0 to {LONGEST_GRACE} seconds.", "grace_seconds")
        async with transaction(self._engine) as connection:
            old = await _found(connection, reference, tenant, held=True)
            if old.state != "active":
                raise RequestInvalid(f"The key {old.id} is {old.state}: make a new one.", "key")
            if expires_at is None and old.expires_at is not None:
                expires_at = datetime.now(UTC) + (old.expires_at - old.created_at)
            _require_ahead(expires_at)
            new = {
                "tenant": old.tenant,
                "name": old.name,
                "groups": None if old.groups is None else sorted(old.groups),
                "scopes": [scope for scope in SCOPES if scope in old.scopes],
                "expires_at": expires_at,
            }
            made, secret = await _made(connection, new)
            if grace > 0:
                ends = func.least(keys.c.expires_at, func.now() + timedelta(seconds=grace))
                await _changed(connection, old.id, expires_at=ends)
            else:
                await _changed(connection, old.id, revoked_at=func.now())
            evidence = {"tenant": old.tenant, "instead": made.id, "grace_seconds": grace}
            await _note(connection, who, "key.rotate", old.id, evidence)
        self._forget()
        return made, secret

    def _forget(self) -> None:
        """What was known of keys, where one has changed."""
        self._known.clear()
        self._asking.clear()

    async def require_keys(self, settings: Settings) -> None:
        """Raise `OpenAccessRefused` where the address to listen on is not safe without keys."""
        if is_loopback(settings.host):
            return
        if settings.open_access:
            raise OpenAccessRefused(
                f"Open access is for loopback only, not for {settings.host}. Unset PLUMBLINE_OPEN_ACCESS "
                "or listen on 127.0.0.1."
            )
        async with transaction(self._engine) as connection:
            usable = select(keys.c.id).where(_OPENS).limit(1)
            if (await connection.execute(usable)).first() is None:
                raise OpenAccessRefused(
                    f"Listening on {settings.host} needs keys, and there is none. {_MAKE_ONE}, or listen on "
                    "127.0.0.1."
                )


def _require_ahead(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= datetime.now(UTC):
        raise RequestInvalid("`expires_at` has passed already.", "expires_at")


def _lasts(left: Any) -> float:
    """For how many seconds a key is known of which so many are left, None where it does not end."""
    return KNOWN_FOR if left is None else min(KNOWN_FOR, float(left))


async def _made(connection: AsyncConnection, new: Mapping[str, Any]) -> tuple[Key, str]:
    secret = f"{_OURS}{secrets.token_urlsafe(32)}"
    values = {
        **new,
        "id": secrets.token_hex(6),
        "hash": hashlib.sha256(secret.encode()).digest(),
        "prefix": secret[:7],
        "last4": secret[-4:],
    }
    return _key((await connection.execute(insert(keys).values(values).returning(keys))).one()), secret


async def _changed(connection: AsyncConnection, key_id: str, **values: Any) -> Key:
    changed = update(keys).where(keys.c.id == key_id).values(values).returning(keys)
    return _key((await connection.execute(changed)).one())


async def _found(
    connection: AsyncConnection, reference: str, tenant: str | None, *, held: bool = False
) -> Key:
    if not _NAME.fullmatch(reference):
        raise KeyUnknown(reference)
    named = or_(keys.c.id == reference, and_(keys.c.name == reference, _OPENS))
    wanted = select(keys).where(named)
    if tenant is not None:
        wanted = wanted.where(keys.c.tenant == tenant)
    if held:
        wanted = wanted.with_for_update()
    rows = (await connection.execute(wanted)).all()
    rows = [row for row in rows if row.id == reference] or list(rows)
    if not rows:
        raise KeyUnknown(reference)
    if len(rows) > 1:
        raise RequestInvalid(f"{len(rows)} keys are called {reference!r}: name one by its id.")
    return _key(rows[0])


def _room_in(known: dict[bytes, V]) -> dict[bytes, V]:
    if len(known) >= _MOST_KNOWN:
        known.clear()
    return known


def opened(settings: Settings) -> bool:
    """Whether this instance answers without keys: never off loopback."""
    return is_loopback(settings.host) and settings.open_access is not False


def is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def require(principal: Principal, *scopes: Scope) -> None:
    """Raise `Forbidden` unless the caller has one of these scopes."""
    if principal.scopes.isdisjoint(scopes):
        raise Forbidden(f"This needs a key with the scope {' or '.join(f'`{one}`' for one in scopes)}.")


def filter_for(
    principal: Principal,
    collections: Sequence[str] = (),
    document_ids: Sequence[str] = (),
    where: Condition | None = None,
) -> Filter:
    """What this caller may read of these. The only place where a caller becomes a `Filter`."""
    return Filter(
        tenant=principal.tenant,
        groups=principal.groups,
        collections=tuple(dict.fromkeys(collections)),
        document_ids=tuple(dict.fromkeys(document_ids)),
        where=where,
    )


def _host_name(header: str) -> str:
    """The name in a Host header, without port and brackets; empty when it is malformed."""
    match = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::\d+)?|([^:\[\]/@\s]+)(?::\d+)?", header)
    return (match[1] or match[2]) if match else ""


def _check_names(tenant: str, name: str, groups: frozenset[str] | None, scopes: Sequence[Scope]) -> None:
    for what, value in (("tenant", tenant), ("name", name), *(("groups", g) for g in groups or ())):
        if not _NAME.fullmatch(value):
            raise RequestInvalid(
                f"{value!r} cannot be used: 1 to 100 letters, digits or any of . _ : @ -", what
            )
    if not scopes or not set(scopes) <= set(SCOPES):
        raise RequestInvalid(f"Scopes are {', '.join(SCOPES)}; at least one is needed.", "scopes")
    if groups is not None and "admin" in scopes:
        raise RequestInvalid("The scope `admin` reads every group of its tenant: name no groups.", "groups")


def _principal(row: Row[Any]) -> Principal:
    groups = None if row.groups is None else frozenset(row.groups)
    scopes = _scopes(row)
    scopes = scopes.union(*(_INCLUDED.get(one, ()) for one in scopes))
    return Principal(tenant=row.tenant, groups=groups, scopes=scopes, key_id=row.id)


def _key(row: Row[Any]) -> Key:
    return Key(
        id=row.id,
        tenant=row.tenant,
        name=row.name,
        prefix=row.prefix,
        last4=row.last4,
        groups=None if row.groups is None else frozenset(row.groups),
        scopes=_scopes(row),
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        used_at=row.used_at,
    )


def key_json(key: Key) -> dict[str, Any]:
    """A key as it is told, on the command line and over HTTP."""
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "prefix": key.prefix,
        "last4": key.last4,
        "groups": None if key.groups is None else sorted(key.groups),
        "scopes": sorted(key.scopes),
        "state": key.state,
        "created_at": key.created_at.isoformat(),
        "expires_at": key.expires_at and key.expires_at.isoformat(),
        "used_at": key.used_at and key.used_at.isoformat(),
        "revoked_at": key.revoked_at and key.revoked_at.isoformat(),
    }


def _scopes(row: Row[Any]) -> frozenset[Scope]:
    return cast("frozenset[Scope]", frozenset(row.scopes))


async def _note(
    connection: AsyncConnection, who: str, what: str, subject: str, evidence: dict[str, Any]
) -> None:
    await connection.execute(insert(audit).values(who=who, what=what, subject=subject, evidence=evidence))
