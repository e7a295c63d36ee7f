"""Where original files are kept: under their hash, one set of folders per tenant.

Content never changes under its name, so a second put of the same bytes is no write, and `get` can check what
it reads. A local folder is written so that it survives a power cut; other stores through fsspec keep their
own promises (an S3 object is there whole or not at all).
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ingestion.errors import NotFound, Quarantined, StorageUnavailable

T = TypeVar("T")

_DIGEST = re.compile(r"[0-9a-f]{64}")
_INCOMING = "incoming"

_WITHOUT_FOLDERS = {"s3", "s3a", "gs", "gcs", "az", "abfs"}
_S3 = {"config_kwargs": {"connect_timeout": 3, "read_timeout": 20, "retries": {"max_attempts": 1}}}
"""A server that is away is told of within seconds; whoever asked tries again."""


class Blobs:
    """`url` is a folder's path or an fsspec URL such as `s3://bucket/prefix` (the extra `s3`; key, region and
    endpoint come from AWS_ACCESS_KEY_ID and its kin).

    Every call raises `StorageUnavailable` when the store is full, gone or may not be used.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._backend = open_backend(url)

    async def put(self, tenant: str, content: bytes) -> str:
        """Keep the bytes; once this returns they survive any crash. The answer is their SHA-256 in hex."""
        return await self._call(lambda: self._put(tenant, content))

    async def get(self, tenant: str, digest: str) -> bytes:
        """The bytes with this SHA-256. Raises `NotFound`, or `Quarantined` when they were changed."""
        return await self._call(lambda: self._get(tenant, digest))

    async def remove(self, tenant: str, digest: str) -> None:
        """Forget the bytes. Removing what is not there is no error."""
        key = _key(tenant, digest)
        await self._call(lambda: self._backend.remove(key))

    @property
    def local(self) -> bool:
        """Whether what is removed is gone at once, from a folder of this machine."""
        return isinstance(self._backend, _Folder)

    async def ping(self) -> None:
        """Raise `StorageUnavailable` unless files can be kept now."""
        await self._call(self._backend.ping)

    def _put(self, tenant: str, content: bytes) -> str:
        digest = _sha256(content)
        self._backend.write(_key(tenant, digest), content)
        return digest

    def _get(self, tenant: str, digest: str) -> bytes:
        content = self._backend.read(_key(tenant, digest))
        if content is None:
            raise NotFound("file", digest)
        if _sha256(content) != digest:
            raise Quarantined(
                "damaged", "The stored file is not what was sent: its hash differs. Send it again."
            )
        return content

    async def _call(self, function: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(function)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StorageUnavailable(f"The store of original files ({self._place()}): {reason}.") from error

    def _place(self) -> str:
        """The URL without what may be a password in it."""
        return re.sub(r"//[^/@]*@", "//", self._url.split("?")[0])


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _key(tenant: str, digest: str) -> str:
    """The tenant's name is hashed: no name can lead out of its folder, whatever is in it."""
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"not a SHA-256 in hex: {digest[:80]!r}")
    folder = _sha256(tenant.encode("utf-8", "surrogatepass"))[:32]
    return f"{folder}/{digest[:2]}/{digest}"


class Backend(Protocol):
    """Where content is kept by its key, whole or not at all. Calls raise `OSError`."""

    def write(self, key: str, content: bytes) -> None: ...

    def create(self, key: str, content: bytes) -> None:
        """Keep it unless there is something by this key, whoever wrote it."""
        ...

    def names(self) -> list[str]:
        """Of what lies at the top."""
        ...

    def read(self, key: str) -> bytes | None: ...

    def remove(self, key: str) -> None: ...

    def ping(self) -> None: ...


def open_backend(url: str) -> Backend:
    try:
        files, root = fsspec.url_to_fs(url, **(_S3 if url.startswith("s3") else {}))
    except (ImportError, ValueError) as error:
        raise StorageUnavailable(f"Files cannot be kept in {url.split('?')[0]!r}: {error}") from None
    return _Folder(Path(root)) if isinstance(files, LocalFileSystem) else _Remote(files, root.rstrip("/"))


class _Folder:
    """A local folder. A file is complete and on the disk before it gets its name, and its name is on the disk
    before `write` returns."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, key: str, content: bytes) -> None:
        path = self._root / key
        if self.read(key) == content:
            _sync_folder(path.parent)  # Whoever wrote it may not have come that far yet.
            return
        self._make(path.parent)
        incoming = self._root / _INCOMING
        self._make(incoming)
        while not self._written(incoming / f"{path.name}.{secrets.token_hex(4)}", path, content):
            pass  # `remove` took what was half written for what a killed process had left.
        _sync_folder(path.parent)

    def _written(self, partial: Path, path: Path, content: bytes) -> bool:
        try:
            _write_synced(partial, content)
            partial.replace(path)
        except FileNotFoundError:
            if path.parent.is_dir() and partial.parent.is_dir():
                return False
            raise
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return True

    def create(self, key: str, content: bytes) -> None:
        self._make((self._root / key).parent)
        incoming = self._root / _INCOMING
        self._make(incoming)
        partial = incoming / f"{key.rsplit('/', 1)[-1]}.{secrets.token_hex(4)}"
        _write_synced(partial, content)
        try:
            with suppress(FileExistsError):
                (self._root / key).hardlink_to(partial)
        finally:
            partial.unlink(missing_ok=True)
        _sync_folder((self._root / key).parent)

    def names(self) -> list[str]:
        return [path.name for path in self._root.iterdir()] if self._root.exists() else []

    def read(self, key: str) -> bytes | None:
        try:
            return (self._root / key).read_bytes()
        except FileNotFoundError:
            return None

    def remove(self, key: str) -> None:
        path = self._root / key
        path.unlink(missing_ok=True)
        # What a process that was killed had not finished is the same text.
        for partial in (self._root / _INCOMING).glob(f"{path.name}.*"):
            partial.unlink(missing_ok=True)

    def ping(self) -> None:
        self._make(self._root)
        probe = self._root / f".ping-{secrets.token_hex(4)}"
        try:
            probe.write_bytes(b"ping")
        finally:
            probe.unlink(missing_ok=True)

    def _make(self, folder: Path) -> None:
        """Create a folder so that its name is on the disk too."""
        if folder.is_dir():
            return
        self._make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(folder.parent)


def _write_synced(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Remote:
    """Any other fsspec file system. Where keys are no folders none is made: it would be the bucket."""

    def __init__(self, files: fsspec.AbstractFileSystem, root: str) -> None:
        self._files = files
        self._root = root
        protocol = files.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)
        self._folders = not names & _WITHOUT_FOLDERS

    def write(self, key: str, content: bytes) -> None:
        path = f"{self._root}/{key}"
        if self.read(key) == content:
            return
        with _faults():
            self._prepare(path)
            self._files.pipe_file(path, content)

    def _prepare(self, path: str) -> None:
        if self._folders:
            self._files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)

    def create(self, key: str, content: bytes) -> None:
        with suppress(FileExistsError), _faults():
            self._prepare(f"{self._root}/{key}")
            self._files.pipe_file(f"{self._root}/{key}", content, mode="create")

    def names(self) -> list[str]:
        try:
            with _faults():
                found = self._files.ls(self._root, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return [path.rstrip("/").rsplit("/", 1)[-1] for path in found]

    def read(self, key: str) -> bytes | None:
        try:
            with _faults():
                content: bytes = self._files.cat_file(f"{self._root}/{key}")
        except FileNotFoundError:
            return None
        return content

    def remove(self, key: str) -> None:
        try:
            with _faults():
                self._files.rm_file(f"{self._root}/{key}")
        except FileNotFoundError:
            return

    def ping(self) -> None:
        with _faults():
            self._files.ls(self._root.split("/", 1)[0], refresh=True)


@contextmanager
def _faults() -> Iterator[None]:
    """Each file system raises errors of its own when its server is away: they become `OSError`s."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}".split("\n")[0][:300]) from error
