"""What `plumbline doctor` says of the parts that the settings name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from sqlalchemy import make_url, text

from app.database import open_engine
from app.doctor import Finding, examine
from app.settings import load_settings
from tests.weaviate_stand_in import stand_in

# What a busy machine does to the import of a part's client.
_SLOWLY = """
import asyncio, importlib.abc, json, sys, time
from app import doctor
from app.settings import load_settings

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("sqlalchemy.dialects.postgresql.asyncpg", "redis.asyncio", "pymilvus"):
            time.sleep(1.5)

assert not {"redis", "pymilvus", "sqlalchemy"} & sys.modules.keys()
sys.meta_path.insert(0, Slow())
doctor.PATIENCE = 1.0
findings = asyncio.run(doctor.examine(load_settings()))
print(json.dumps({one.name: one.detail for one in findings if one.state == "fail"}))
"""


async def test_a_part_is_not_away_because_its_client_is_slow_to_load(
    tmp_path: Path, database_url: str, redis_url: str, milvus_uri: str
) -> None:
    addresses = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "MILVUS_URI": milvus_uri}
    done = subprocess.run(
        [sys.executable, "-c", _SLOWLY],
        env={**os.environ, **addresses, "PLUMBLINE_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


async def _findings(data: Path, url: str, grpc_url: str | None = None) -> dict[str, Finding]:
    settings = load_settings({}, data=data, weaviate_url=url, weaviate_grpc_url=grpc_url)
    return {finding.name: finding for finding in await examine(settings)}


async def test_a_store_that_answers_is_in_order_and_none_other_is_asked_for(tmp_path: Path) -> None:
    with stand_in() as address:
        found = await _findings(tmp_path, address.url, address.grpc_url)
    assert found["weaviate"].state == "ok"
    assert address.url in found["weaviate"].detail
    assert not {"milvus", "milvus-lite", "milvus access"} & found.keys()


async def test_a_store_that_is_away_is_told_with_its_reason(tmp_path: Path) -> None:
    found = await _findings(tmp_path, "http://127.0.0.1:9")
    assert found["weaviate"].state == "fail"
    assert "Weaviate failed" in found["weaviate"].detail


async def test_a_port_that_an_api_listens_on_is_in_order_and_any_other_use_is_not(tmp_path: Path) -> None:
    said = [b'{"status":"live"}', b"Welcome"]

    class Answering(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said.pop(0))

    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        Thread(target=server.serve_forever).start()
        settings = load_settings({}, data=tmp_path, port=server.server_port)
        states = [
            next(finding.state for finding in await examine(settings) if finding.name == "port") for _ in "12"
        ]
        server.shutdown()
    assert states == ["ok", "fail"]


async def test_a_database_that_answers_and_takes_nothing_more_is_not_in_order(
    tmp_path: Path, database_url: str
) -> None:
    async def found(account: str) -> Finding:
        url = make_url(database_url).set(username=account).render_as_string(hide_password=False)
        findings = await examine(load_settings({}, data=tmp_path, database_url=url))
        return next(finding for finding in findings if finding.name == "postgres")

    admin = open_engine(database_url).execution_options(isolation_level="AUTOCOMMIT")
    database = make_url(database_url).database
    async with admin.connect() as connection:
        await connection.execute(text("CREATE ROLE reader LOGIN"))
        try:
            await connection.execute(text("ALTER ROLE reader SET default_transaction_read_only = on"))
            only_reads = await found("reader")
            await connection.execute(text("ALTER ROLE reader RESET default_transaction_read_only"))
            await connection.execute(text(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC"))
            cannot_try = await found("reader")
        finally:
            await connection.execute(text(f"GRANT TEMPORARY ON DATABASE {database} TO PUBLIC"))
            await connection.execute(text("DROP ROLE reader"))
    await admin.dispose()
    assert only_reads.state == "fail"
    assert only_reads.detail.endswith("cannot execute CREATE TABLE AS in a read-only transaction")
    assert cannot_try.state == "ok"
