"""A data folder and the one process that may use it.

`DATA/lock` is held for as long as the instance runs and says by whom; `DATA/run.json` tells other commands
where its parts are; `DATA/instance.json` remembers between runs what was done once. Sockets lie in a short
private folder elsewhere, because their paths may have 100 characters at most.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

SOCKETS_PREFIX = "plumbline-"
LONGEST_SOCKETS_PATH = 60
LOCK_ATTEMPTS = 4


class InstanceError(Exception):
    """The data folder cannot be used; the message says what to do."""


class InstanceBusy(InstanceError):
    """Another process uses the data folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """What other commands may know of a running instance. `processes` maps a name to the process number
    and the time that it was started, which together name one process for good."""

    pid: int
    url: str
    database_url: str = ""
    redis_url: str = ""
    milvus_uri: str = ""
    sockets: str = ""
    processes: Mapping[str, tuple[int, float]] = field(default_factory=dict)


@contextmanager
def hold(data: Path, url: str) -> Iterator[None]:
    """Hold the data folder; raise `InstanceBusy`, which names the holder, when another process does."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = _locked(data / "lock")
    except OSError as error:
        raise _unusable(data, error) from None
    try:
        try:
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "url": url}))
            file.flush()
        except OSError as error:
            raise _unusable(data, error) from None
        yield
    finally:
        (data / "lock").unlink(missing_ok=True)
        with suppress(OSError):  # What could not be written is in its buffer still.
            file.close()


def _unusable(data: Path, error: OSError) -> InstanceError:
    return InstanceError(f"The data folder {data} cannot be used: {error.strerror}.")


def _locked(path: Path) -> IO[str]:
    for attempt in range(LOCK_ATTEMPTS):
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(file.read())
            file.close()
            if attempt < LOCK_ATTEMPTS - 1:  # It may only be someone looking, for an instant.
                time.sleep(0.05)
                continue
            raise InstanceBusy(
                f"The data folder {path.parent.resolve()} is in use by {holder}. Stop that one "
                f"(plumbline stop --data {path.parent}), or name another folder with --data."
            ) from None
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
        file.close()  # The last holder removed the file between our open and our lock.
    raise InstanceBusy(f"The data folder {path.parent.resolve()} is being taken and left by other processes.")


def _holder(text: str) -> str:
    try:
        said = json.loads(text)
        return f"process {said['pid']}, which answers at {said['url']}"
    except (ValueError, KeyError, TypeError):
        return "a process that is just starting or stopping"


def is_held(data: Path) -> bool:
    """Whether a process holds the data folder now."""
    try:
        with (data / "lock").open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def running(data: Path) -> Running | None:
    """The instance that runs on this data folder, or None."""
    found = _last_run(data)
    return found if found and is_held(data) else None


def _last_run(data: Path) -> Running | None:
    try:
        said = json.loads((data / "run.json").read_text())
        said["processes"] = {name: (int(pid), float(at)) for name, (pid, at) in said["processes"].items()}
        return Running(**said)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def announce(data: Path, now: Running) -> None:
    """Write `run.json`, whole or not at all; it holds addresses with passwords, so only we may read it."""
    _write(data / "run.json", asdict(now))


def retire(data: Path) -> None:
    """The instance has stopped."""
    (data / "run.json").unlink(missing_ok=True)


def remembered(data: Path) -> dict[str, Any]:
    """What earlier runs noted about this instance; empty for a new one."""
    try:
        said = json.loads((data / "instance.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InstanceError(f"{data / 'instance.json'} cannot be read: {error}.") from None
    return said if isinstance(said, dict) else {}


def remember(data: Path, **facts: str) -> None:
    _write(data / "instance.json", {**remembered(data), **facts})


def _write(path: Path, body: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(body, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


@contextmanager
def sockets_folder() -> Iterator[Path]:
    """A folder for sockets that nobody else may enter, gone afterwards."""
    root = tempfile.gettempdir()
    if len(root) > LONGEST_SOCKETS_PATH:
        root = "/tmp"  # noqa: S108  (mkdtemp makes a private folder in it)
    folder = Path(tempfile.mkdtemp(prefix=SOCKETS_PREFIX, dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_away(data: Path, patience: float = 10.0) -> list[str]:
    """End what a supervisor that was killed left running on this folder; returns the names.

    Only call it while holding the folder. A process is known by its number and its start time, so that a
    number given to somebody else since is left alone.
    """
    import psutil

    last = _last_run(data)
    if last is None:
        return []
    left = {name: found for name, who in last.processes.items() if (found := _process(*who))}
    _, alive = psutil.wait_procs(list(left.values()), timeout=patience / 2)  # They were told at its death.
    for process in alive:
        process.send_signal(signal.SIGQUIT if process.name() == "postgres" else signal.SIGKILL)
    psutil.wait_procs(alive, timeout=patience)
    sockets = Path(last.sockets)
    if sockets.name.startswith(SOCKETS_PREFIX) and not sockets.is_symlink():
        shutil.rmtree(sockets, ignore_errors=True)
    retire(data)
    return sorted(left)


def _runs(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _process(pid: int, started: float) -> Any:
    import psutil

    try:
        found = psutil.Process(pid)
        same = abs(found.create_time() - started) < 1 and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return found if same else None


def stop(data: Path, patience: float = 60.0) -> bool:
    """Ask the instance on this folder to stop, and wait until it has; False when none runs."""
    if not is_held(data):
        return False
    try:
        pid = int(json.loads((data / "lock").read_text())["pid"])
    except (OSError, ValueError, KeyError) as error:
        raise InstanceError(f"{data / 'lock'} does not say who holds it: {error}.") from None
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        pass  # It went by itself in between.
    except PermissionError:
        raise InstanceError(f"Process {pid} belongs to another user; only that user can stop it.") from None
    end = time.monotonic() + patience
    while is_held(data) or _runs(pid):
        if time.monotonic() > end:
            raise InstanceError(f"Process {pid} was asked to stop and still runs after {patience:.0f} s.")
        time.sleep(0.1)
    return True
