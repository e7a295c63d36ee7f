"""Who is calling and what that lets them see: keys, scopes, and the one way from a caller to a `Filter`.

A key is 256 random bits; only its SHA-256 is kept, so a copy of the database opens nothing. Looking a
key up is remembered for `KNOWN_FOR` seconds, so that PostgreSQL is not asked on every request and a
revoked key still stops within that time.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any, TypeVar, cast

from sqlalchemy import Row, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.errors import Forbidden, KeyUnknown, OpenAccessRefused, RequestInvalid, Unauthenticated
from app.settings import Settings
from app.tables import audit, keys, tenants, transaction
from app.types import Principal, Scope
from retrieval.beside import aside
from retrieval.types import Condition, Filter

KNOWN_FOR = 2.0
_MOST_KNOWN = 4_096
SCOPES: tuple[Scope, ...] = ("read", "write", "admin", "operate", "evaluate")
_INCLUDED: Mapping[Scope, frozenset[Scope]] = {"admin": frozenset({"read", "write"})}
_OURS = "pl-"
"""How every key of ours begins."""
LOCAL = Principal(tenant="default", groups=None, scopes=frozenset(SCOPES))
V = TypeVar("V")
_NAME = re.compile(r"[A-Za-z0-9._:@-]{1,100}")
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
    revoked_at: datetime | None


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
            raise Unauthenticated("This key is unknown or was revoked.")
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
        if known and now - known[0] < KNOWN_FOR:
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
        async with transaction(self._engine) as connection:
            found = (await connection.execute(select(keys).where(keys.c.hash == digest))).one_or_none()
        if found is None or found.revoked_at:
            self._known.pop(digest, None)
            _room_in(self._unknown)[digest] = now
            return None
        principal = _principal(found)
        _room_in(self._known)[digest] = (now, principal)
        return principal

    async def create_key(
        self,
        tenant: str,
        name: str,
        *,
        groups: frozenset[str] | None,
        scopes: Sequence[Scope],
        who: str = "command line",
    ) -> tuple[Key, str]:
        """A new key and its secret, which cannot be shown again. The tenant is made if it is new.

        Only a tenant's administrators read every group: for other keys, `groups` None is the same as no
        groups, and shows the documents that name none.
        """
        _check_names(tenant, name, groups, scopes)
        if groups is None and "admin" not in scopes:
            groups = frozenset()
        secret = f"{_OURS}{secrets.token_urlsafe(32)}"
        values = {
            "id": secrets.token_hex(6),
            "tenant": tenant,
            "name": name,
            "hash": hashlib.sha256(secret.encode()).digest(),
            "prefix": secret[:7],
            "last4": secret[-4:],
            "groups": None if groups is None else sorted(groups),
            "scopes": [scope for scope in SCOPES if scope in scopes],
        }
        async with transaction(self._engine) as connection:
            await connection.execute(postgresql.insert(tenants).values(id=tenant).on_conflict_do_nothing())
            made = (await connection.execute(insert(keys).values(values).returning(keys))).one()
            await _note(connection, who, "key.create", str(made.id), {"tenant": tenant, "name": name})
        return _key(made), secret

    async def list_keys(self, tenant: str | None = None) -> list[Key]:
        wanted = select(keys).order_by(keys.c.created_at, keys.c.id)
        if tenant is not None:
            wanted = wanted.where(keys.c.tenant == tenant)
        async with transaction(self._engine) as connection:
            return [_key(row) for row in await connection.execute(wanted)]

    async def revoke_key(self, reference: str, *, who: str = "command line") -> Key:
        """Revoke by id or name. A key revoked before keeps its first date."""
        named = or_(keys.c.id == reference, keys.c.name == reference)
        async with transaction(self._engine) as connection:
            found = (await connection.execute(select(keys.c.id).where(named))).scalars().all()
            if not found:
                raise KeyUnknown(reference)
            if len(found) > 1:
                raise RequestInvalid(f"{len(found)} keys are called {reference!r}: name one by its id.")
            gone = await connection.execute(
                update(keys)
                .where(keys.c.id == found[0])
                .values(revoked_at=func.coalesce(keys.c.revoked_at, func.now()))
                .returning(keys)
            )
            row = gone.one()
            await _note(connection, who, "key.revoke", str(row.id), {"tenant": row.tenant})
        self._known.clear()
        self._asking.clear()
        return _key(row)

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
            usable = select(keys.c.id).where(keys.c.revoked_at.is_(None)).limit(1)
            if (await connection.execute(usable)).first() is None:
                raise OpenAccessRefused(
                    f"Listening on {settings.host} needs keys, and there is none. {_MAKE_ONE}, or listen on "
                    "127.0.0.1."
                )


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
        revoked_at=row.revoked_at,
    )


def _scopes(row: Row[Any]) -> frozenset[Scope]:
    return cast("frozenset[Scope]", frozenset(row.scopes))


async def _note(
    connection: AsyncConnection, who: str, what: str, subject: str, evidence: dict[str, Any]
) -> None:
    await connection.execute(insert(audit).values(who=who, what=what, subject=subject, evidence=evidence))
