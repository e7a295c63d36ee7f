from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ingestion import blobs as module
from ingestion.blobs import Blobs, open_backend
from ingestion.errors import NotFound, Quarantined, StorageUnavailable

HELLO = hashlib.sha256(b"hello").hexdigest()


@pytest.fixture(params=["path", "file-url", "memory-url"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    """The same behaviour over a folder and over another fsspec file system."""
    urls = {
        "path": str(tmp_path / "blobs"),
        "file-url": f"file://{tmp_path}/blobs",
        "memory-url": f"memory://{tmp_path.name}",
    }
    return Blobs(urls[request.param])


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@contextmanager
def full_disk() -> Iterator[None]:
    """Writing any byte to any file fails, as the kernel does it on a full disk or quota."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


async def test_what_was_put_is_got_by_its_hash(blobs: Blobs) -> None:
    await blobs.ping()
    assert await blobs.put("acme", b"hello") == HELLO
    assert await blobs.put("acme", b"hello") == HELLO
    assert await blobs.get("acme", HELLO) == b"hello"
    assert await blobs.get("acme", await blobs.put("acme", b"")) == b""


async def test_a_removed_file_is_not_found(blobs: Blobs) -> None:
    digest = await blobs.put("acme", b"hello")
    await blobs.remove("acme", digest)
    await blobs.remove("acme", digest)
    with pytest.raises(NotFound):
        await blobs.get("acme", digest)


async def test_a_tenant_cannot_get_anothers_file(blobs: Blobs) -> None:
    digest = await blobs.put("acme", b"hello")
    with pytest.raises(NotFound):
        await blobs.get("rival", digest)
    await blobs.remove("rival", digest)
    assert await blobs.get("acme", digest) == b"hello"


@pytest.mark.parametrize("tenant", ["../../etc", "/etc", "", ".", "a/b", "\0", "ü" * 300, "\ud800"])
async def test_no_tenant_name_leads_out_of_the_folder(tmp_path: Path, tenant: str) -> None:
    blobs = Blobs(str(tmp_path / "blobs"))
    assert await blobs.get(tenant, await blobs.put(tenant, b"hello")) == b"hello"
    assert [path.relative_to(tmp_path / "blobs").parts[1:] for path in files(tmp_path)] == [
        (HELLO[:2], HELLO)
    ]


@pytest.mark.parametrize("digest", ["../x", "", HELLO.upper(), HELLO + "/..", HELLO[:-1]])
async def test_what_is_no_hash_is_no_path(blobs: Blobs, digest: str) -> None:
    with pytest.raises(ValueError, match="SHA-256"):
        await blobs.get("acme", digest)


async def test_a_file_that_was_changed_on_the_disk_is_not_given_out(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    digest = await blobs.put("acme", b"hello")
    (stored,) = files(tmp_path)
    stored.write_bytes(b"hellx")
    with pytest.raises(Quarantined) as caught:
        await blobs.get("acme", digest)
    assert caught.value.reason == "damaged"
    await blobs.put("acme", b"hello")
    assert await blobs.get("acme", digest) == b"hello"


async def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    kept = await blobs.put("acme", b"hello")
    with full_disk():
        with pytest.raises(StorageUnavailable):
            await blobs.put("acme", b"more than fits")
        with pytest.raises(StorageUnavailable):
            await blobs.ping()
        assert await blobs.get("acme", kept) == b"hello"
    assert len(files(tmp_path)) == 1
    await blobs.ping()
    await blobs.put("acme", b"more than fits")


async def test_a_disk_without_space_is_told(tmp_path: Path) -> None:
    """On a real file system of a few hundred kilobytes, where the machine lets us mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    mounted = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        blobs = Blobs(str(place))
        with pytest.raises(StorageUnavailable, match=os.strerror(errno.ENOSPC)):
            await blobs.put("acme", os.urandom(2**20))
        assert await blobs.get("acme", await blobs.put("acme", b"small")) == b"small"
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_a_place_that_cannot_be_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    blobs = Blobs(str(tmp_path / "file" / "blobs"))
    with pytest.raises(StorageUnavailable):
        await blobs.ping()
    with pytest.raises(StorageUnavailable):
        await blobs.put("acme", b"hello")


def test_a_store_that_is_not_installed_is_told() -> None:
    with pytest.raises(StorageUnavailable, match="nosuch"):
        Blobs("nosuch://key:secret@bucket")


async def test_many_puts_at_once_all_arrive(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    contents = [f"document {n % 300}".encode() for n in range(400)]
    digests = await asyncio.gather(*(blobs.put("acme", c) for c in contents))
    assert [await blobs.get("acme", d) for d in digests] == contents
    assert len(files(tmp_path)) == 300


async def test_a_writer_killed_at_any_moment_leaves_whole_files_only() -> None:
    folder = Path(tempfile.mkdtemp(prefix="plb-"))
    script = (
        "import asyncio, os, sys\nfrom ingestion.blobs import Blobs\n"
        "async def main():\n"
        "    blobs = Blobs(sys.argv[1])\n"
        "    while True:\n"
        "        print(await blobs.put('acme', os.urandom(200_000)), flush=True)\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", script, str(folder)]
    try:
        for _ in range(3):
            writer = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True)
            assert writer.stdout is not None
            acknowledged = [await asyncio.to_thread(writer.stdout.readline) for _ in range(5)]
            writer.kill()
            acknowledged += writer.stdout.readlines()
            writer.stdout.close()
            writer.wait()
            blobs = Blobs(str(folder))
            for line in acknowledged:
                if line.endswith("\n"):
                    assert len(await blobs.get("acme", line.strip())) == 200_000
    finally:
        shutil.rmtree(folder)


async def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_the_put_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut cannot be had here; what is asked of the kernel can be seen."""
    root = tmp_path / "blobs"
    synced: list[tuple[str, bool]] = []

    def named() -> bool:
        return any(path.name == HELLO for path in files(root))

    def fsync(descriptor: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), named()))

    monkeypatch.setattr(os, "fsync", fsync)
    await Blobs(str(root)).put("acme", b"hello")
    (path,) = files(root)
    content = [had_name for name, had_name in synced if name.startswith(f"{root}/incoming/{HELLO}")]
    assert content == [False]
    assert synced[-1] == (str(path.parent), True)
    above = {str(folder) for folder in path.parents if folder.is_relative_to(tmp_path)}
    assert above <= {name for name, _ in synced}
    synced.clear()
    await Blobs(str(root)).put("acme", b"hello")
    assert synced == [(str(path.parent), True)], "whoever wrote it may be killed before it did so"


async def test_nobody_else_on_the_machine_may_read_the_files(tmp_path: Path) -> None:
    root = tmp_path / "blobs"
    await Blobs(str(root)).put("acme", b"hello")
    folders = [path for path in root.rglob("*") if path.is_dir()]
    assert {path.stat().st_mode & 0o777 for path in [root, *folders]} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in files(root)} == {0o600}


async def test_what_a_killed_writer_left_of_a_file_is_removed_with_it(tmp_path: Path) -> None:
    blobs = Blobs(str(tmp_path))
    await blobs.put("acme", b"hello")
    (tmp_path / "incoming" / f"{HELLO}.abcd0123").write_bytes(b"hel")
    await blobs.remove("acme", HELLO)
    assert files(tmp_path) == []


async def test_a_file_that_is_removed_while_it_is_written_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, removed = module._write_synced, list[Path]()

    def taken_away(path: Path, content: bytes) -> None:
        write(path, content)
        if not removed:
            removed.append(path)
            path.unlink()

    monkeypatch.setattr(module, "_write_synced", taken_away)
    blobs = Blobs(str(tmp_path))
    await blobs.put("acme", b"hello")
    assert await blobs.get("acme", HELLO) == b"hello"


def test_what_is_created_first_stays(tmp_path: Path) -> None:
    backend = open_backend(str(tmp_path))
    backend.create("key", b"first")
    backend.create("key", b"second")
    assert backend.read("key") == b"first"
    assert [path.name for path in files(tmp_path)] == ["key"]
