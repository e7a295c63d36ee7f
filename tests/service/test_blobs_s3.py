"""Original files in S3, against a server that speaks its protocol."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Iterator

import httpx
import pytest

pytest.importorskip("s3fs")
pytest.importorskip("moto.server")

import s3fs
from moto.server import ThreadedMotoServer

from ingestion.blobs import Blobs, open_backend
from ingestion.errors import NotFound, Quarantined, StorageUnavailable
from ingestion.receipts import FORMAT, Receipts

BUCKET = "documents"
HELLO = hashlib.sha256(b"hello").hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    """An S3 of its own, found as any other is: by AWS's own variables."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    given = {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "DEFAULT_REGION": "us-east-1"}
    for name, value in {**given, "ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    httpx.post(f"http://{host}:{port}/moto-api/reset").raise_for_status()
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir(BUCKET)
    yield started
    started.stop()


async def test_two_hosts_share_what_one_of_them_kept(server: ThreadedMotoServer) -> None:
    one, other = Blobs(f"s3://{BUCKET}/plumbline"), Blobs(f"s3://{BUCKET}/plumbline")
    await one.ping()
    assert await one.put("acme", b"hello") == HELLO
    assert await one.put("acme", b"hello") == HELLO
    assert await other.get("acme", HELLO) == b"hello"
    with pytest.raises(NotFound):
        await other.get("another tenant", HELLO)
    await other.remove("acme", HELLO)
    await other.remove("acme", HELLO)
    with pytest.raises(NotFound):
        await one.get("acme", HELLO)


def test_hosts_share_receipts_and_the_key_that_signs_them(server: ThreadedMotoServer) -> None:
    one, other = (Receipts(f"s3://{BUCKET}/plumbline/receipts") for _ in range(2))
    assert one.ids() == set()
    one.draft("a", {"salt": "ab"})
    assert other.drafted("a") == {"salt": "ab"}
    for host, erasure in ((one, "a"), (other, "b")):
        host.sign(erasure, {"format": FORMAT, "id": erasure, "tenant": "acme"})
    assert (one.drafted("a"), one.ids()) == ({}, {"a", "b"})
    assert [(found.signed, found.ours) for found in one.all()] == [(True, True)] * 2


def test_a_key_that_another_host_was_faster_with_stays(server: ThreadedMotoServer) -> None:
    files = open_backend(f"s3://{BUCKET}/receipts")
    files.create("signing.key", b"first")
    files.create("signing.key", b"second")
    assert files.read("signing.key") == b"first"


async def test_receipts_that_cannot_be_reached_are_told_as_such(server: ThreadedMotoServer) -> None:
    kept = Receipts(f"s3://{BUCKET}/receipts")
    server.stop()
    with pytest.raises(StorageUnavailable, match="store of receipts"):
        kept.ids()


async def test_many_files_at_once_are_each_kept_whole(server: ThreadedMotoServer) -> None:
    blobs = Blobs(f"s3://{BUCKET}")
    contents = [bytes([number]) * 100_000 for number in range(12)]
    digests = await asyncio.gather(*(blobs.put("acme", content) for content in contents))
    assert await asyncio.gather(*(blobs.get("acme", digest) for digest in digests)) == contents


async def test_a_file_that_was_changed_is_not_read_as_what_was_sent(server: ThreadedMotoServer) -> None:
    blobs = Blobs(f"s3://{BUCKET}/plumbline")
    await blobs.put("acme", b"hello")
    files = s3fs.S3FileSystem()
    [path] = [path for path in files.find(f"{BUCKET}/plumbline") if path.endswith(HELLO)]
    files.pipe_file(path, b"help!")
    files.invalidate_cache()
    with pytest.raises(Quarantined):
        await blobs.get("acme", HELLO)


async def test_a_bucket_that_is_not_there_is_told_of_and_not_made(server: ThreadedMotoServer) -> None:
    blobs = Blobs("s3://documemts/plumbline")
    with pytest.raises(StorageUnavailable, match="documemts"):
        await blobs.ping()
    with pytest.raises(StorageUnavailable):
        await blobs.put("acme", b"hello")
    assert s3fs.S3FileSystem().ls("", refresh=True) == [BUCKET]


async def test_a_server_that_is_away_is_a_typed_outage_within_seconds(server: ThreadedMotoServer) -> None:
    blobs = Blobs(f"s3://{BUCKET}/plumbline")
    await blobs.put("acme", b"hello")
    server.stop()
    async with asyncio.timeout(15):
        with pytest.raises(StorageUnavailable, match=BUCKET):
            await blobs.get("acme", HELLO)
        with pytest.raises(StorageUnavailable):
            await blobs.put("acme", b"other")
