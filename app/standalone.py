"""A whole instance on one machine: the parts that no URL names, workers, the API; up, kept alive, down."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
from pydantic import SecretStr

from app import embedded, instance, stores
from app.child import Child, StartFailed
from app.embedded import NotReady, Part
from app.modelserver import START as MODEL_START
from app.modelserver import ModelServer, model_server
from app.partlog import PartLog
from app.release import ReleaseInvalid, load_release
from app.settings import Settings
from app.supervisor import Supervisor, signals

WORKER_READY = "The worker is ready."
CONTROLLER_READY = "The controller watches."
WORKER_NICE = 10
"""Embedding a pile of documents must not slow the answers down."""
PROBE_TIMEOUT = 3.0
AFTER_GRACE = 8.0
"""Seconds that a process may take beyond the grace period, before it is killed."""
PARTS_STOP = 12.0
"""Seconds that all may take beyond the grace period, before the rest is hurried: a machine that is taken away
gives half a minute."""
OWN = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONSAFEPATH": "1",
    # A question's products are small: on a busy machine a second thread makes them ten times slower.
    "OPENBLAS_NUM_THREADS": "1",
}

Say = Callable[[str], None]


class PortTaken(Exception):
    """The API's address cannot be listened on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Standalone:
    """What is to run. `model` is the name or the folder of one to serve. `verbose` shows every line of
    every part. `at_ready` runs in a thread once all is up, and must return soon after its event is set."""

    settings: Settings
    say: Say
    model: str | None = None
    verbose: bool = False
    at_ready: Callable[[threading.Event], None] = field(default=lambda stopping: None)

    @property
    def data(self) -> Path:
        return self.settings.data.resolve()

    @property
    def url(self) -> str:
        host = _reachable(self.settings.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.settings.port}"

    async def run(self) -> None:
        """Run until a signal says stop. Raises `InstanceError`, `PortTaken`, `EmbeddedError` or
        `StartFailed` when it cannot start; nothing is left behind either way."""
        _check_release(self.settings)
        stop, supervisor = asyncio.Event(), Supervisor(self.say)
        with instance.hold(self.data, self.url), signals(stop, supervisor.hurry):
            check_port(self.settings.host, self.settings.port)
            for name in await asyncio.to_thread(instance.clear_away, self.data):
                self.say(f"stopped  {name}, left behind by a run that was killed")
            (self.data / "logs").mkdir(exist_ok=True)
            with instance.sockets_folder() as sockets:
                try:
                    await _until(stop, self._serve(supervisor, sockets))
                finally:
                    late = asyncio.get_running_loop().call_later(
                        self.settings.grace + PARTS_STOP, supervisor.hurry.set
                    )
                    await supervisor.stop()
                    late.cancel()
                    instance.retire(self.data)

    async def _serve(self, supervisor: Supervisor, sockets: Path) -> None:
        announce = partial(self._announce, supervisor, sockets)
        model = await asyncio.to_thread(model_server, self.settings, self.model) if self.model else None
        parts = await self._parts(sockets)
        await supervisor.start([self._child(part, announce) for part in parts.values()])
        environment = {**self._environment(parts), **(model.environment if model else {})}
        loading = asyncio.create_task(self._load(model, supervisor, announce)) if model else None
        await asyncio.sleep(0)  # The model is started first, to be stopped after the API.
        worker = ("worker", "--nice", str(WORKER_NICE))
        workers = [
            self._quiet(name, worker, WORKER_READY, environment, announce)
            for name in _worker_names(self.settings.workers)
        ]
        controller = self._quiet("controller", ("controller",), CONTROLLER_READY, environment, announce)
        api = self._child(self._api(environment), announce)
        # Both stop side by side: what the API still accepts while it drains is queued, and kept.
        stopping = threading.Event()
        try:
            await supervisor.start([*workers, controller, api])
            announce()
            await asyncio.to_thread(self.at_ready, stopping)
            api.log.always = True
            await asyncio.Event().wait()
        finally:
            stopping.set()
            if loading:
                loading.cancel()

    async def _load(self, model: ModelServer, supervisor: Supervisor, announce: Callable[[], None]) -> None:
        """Start the model beside everything else: until it is ready, answers come from the sources alone."""
        self.say(f"loading  {model.name}; until it is ready, answers are sentences of the sources")
        try:
            await supervisor.start([self._child(model.part, announce)], timeout=MODEL_START)
        except StartFailed as error:
            self.say(f"{error}\n{model.name} cannot be served; answers go on without it.")

    async def _parts(self, sockets: Path) -> dict[str, Part]:
        """The parts that the settings name no server for."""
        wanted: dict[str, Callable[[], Part]] = {}
        if self.settings.database_url is None:
            wanted["DATABASE_URL"] = lambda: embedded.postgres(self.data / "postgres", sockets)
        if self.settings.redis_url is None:
            wanted["REDIS_URL"] = lambda: embedded.redis(self.data / "redis", sockets)
        if stores.named(self.settings) is None:
            # The API listens last: until then its port looks free.
            besides = [self.settings.port]
            wanted["MILVUS_URI"] = lambda: embedded.milvus(self.data / "milvus", embedded.free_port(besides))
        if "DATABASE_URL" in wanted and not (self.data / "postgres" / "PG_VERSION").exists():
            self.say("creating the database")
        return {name: await asyncio.to_thread(make) for name, make in wanted.items()}

    def _environment(self, parts: Mapping[str, Part]) -> dict[str, str]:
        settings = self.settings
        return {
            "PLUMBLINE_DATA": str(self.data),
            "PLUMBLINE_HOST": settings.host,
            "PLUMBLINE_PORT": str(settings.port),
            **({"PLUMBLINE_RELEASE": str(settings.release.resolve())} if settings.release else {}),
            **({"PLUMBLINE_LOG_READS": "true"} if self.verbose else {}),
            **{name: part.url for name, part in parts.items()},
        }

    def _api(self, environment: Mapping[str, str]) -> Part:
        host, port = _reachable(self.settings.host), self.settings.port

        async def ready() -> None:
            await asyncio.to_thread(_ask_api, host, port)

        return self._own("api", ("serve",), environment, ready)

    def _quiet(
        self,
        name: str,
        command: tuple[str, ...],
        awaited: str,
        environment: Mapping[str, str],
        announce: Callable[[], None],
    ) -> Child:
        """A process that listens nowhere: it is ready when its log says so."""
        log = self._log(name, awaited)

        async def ready() -> None:
            if not log.heard:
                raise NotReady(name)

        return Child(self._own(name, command, environment, ready), log, self.say, announce)

    def _own(
        self,
        name: str,
        command: tuple[str, ...],
        environment: Mapping[str, str],
        ready: Callable[[], Awaitable[None]],
    ) -> Part:
        return Part(
            name=name,
            command=(sys.executable, "-m", "app.cli", *command),
            url=self.url,
            ready=ready,
            environment={**environment, **OWN},
            folder=Path.cwd(),  # What the settings name by a relative path is meant from here.
            patience=self.settings.grace + AFTER_GRACE,
        )

    def _child(self, part: Part, announce: Callable[[], None]) -> Child:
        return Child(part, self._log(part.name), self.say, announce)

    def _log(self, name: str, awaited: str | None = None) -> PartLog:
        return PartLog(name, self.data / "logs", self.say, always=self.verbose, awaited=awaited)

    def _announce(self, supervisor: Supervisor, sockets: Path) -> None:
        urls = {child.name: child.part.url for child in supervisor.children}
        settings = self.settings
        now = instance.Running(
            pid=os.getpid(),
            url=self.url,
            database_url=urls.get("postgres") or _plain(settings.database_url),
            redis_url=urls.get("redis") or _plain(settings.redis_url),
            milvus_uri=urls.get("milvus") or settings.milvus_uri or "",
            sockets=str(sockets),
            processes={child.name: known for child in supervisor.children if (known := _known(child.pid))},
        )
        try:
            instance.announce(self.data, now)
        except OSError as error:  # A full disk must not end the care for what has just been started again.
            self.say(f"{self.data / 'run.json'} could not be written: {error.strerror}.")


def _check_release(settings: Settings) -> None:
    """Raise `StartFailed` for a release file that the API could not start with: before anything is there."""
    if settings.release is None:
        return
    try:
        load_release(settings.release)
    except ReleaseInvalid as error:
        raise StartFailed(str(error)) from None


def check_port(host: str, port: int) -> None:
    """Raise `PortTaken` unless the API can listen there."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise PortTaken(_why_not(error, host, port)) from None


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is taken. Choose another with --port or PLUMBLINE_PORT."
    if error.errno == errno.EACCES:
        return (
            f"This user may not listen on port {port}. Choose one above 1023 with --port or PLUMBLINE_PORT."
        )
    return f"Cannot listen on {host}, port {port}: {error.strerror}. Set PLUMBLINE_HOST or PLUMBLINE_PORT."


async def _until(stop: asyncio.Event, work: Coroutine[None, None, None]) -> None:
    """Run the work until it fails, which is raised, or until `stop` is set."""
    task, told = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, told}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
    finally:
        for each in (task, told):
            each.cancel()
        await asyncio.wait({task, told})


def _ask_api(host: str, port: int) -> None:
    connection = HTTPConnection(host, port, timeout=PROBE_TIMEOUT)
    try:
        connection.request("GET", "/health/ready")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        raise NotReady(f"api: {error}") from error
    finally:
        connection.close()
    if status != HTTPStatus.OK:
        raise NotReady(f"api: {status}")


def is_live(host: str, port: int) -> bool:
    """Whether what listens there is an API of ours."""
    connection = HTTPConnection(_reachable(host), port, timeout=PROBE_TIMEOUT)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().read() == b'{"status":"live"}'
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _reachable(host: str) -> str:
    """The address at which a server that listens on `host` answers this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (read, not listened on)


def _worker_names(count: int) -> list[str]:
    return ["worker"] if count == 1 else [f"worker-{n}" for n in range(1, count + 1)]


def _known(pid: int | None) -> tuple[int, float] | None:
    try:
        return (pid, float(psutil.Process(pid).create_time())) if pid else None
    except psutil.NoSuchProcess:
        return None


def _plain(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret else ""
