"""What the HTTP tests stand on: the running service, the model on its stage, a tenant of one's own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from app.access import Access
from app.main import Server, configured, create_app
from app.types import Scope
from app.wiring import Services
from llm.scripted import Script, Scripted
from llm.types import Call, ChatModel, Delta
from tests.openapi import Contract

ACCEPT = {"Accept": "application/json, text/event-stream"}


@dataclass(slots=True)
class Stage:
    """Whichever model a test puts there; extractive when none does."""

    usual: ChatModel
    now: ChatModel | None = None

    @property
    def name(self) -> str:
        return "extractive"

    def stream(self, call: Call) -> AsyncGenerator[Delta, None]:
        return (self.now or self.usual).stream(call)

    @contextmanager
    def plays(self, *scripts: Script) -> Iterator[Scripted]:
        self.now = model = Scripted(*scripts, name="extractive")
        try:
            yield model
        finally:
            self.now = None


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant of its own for one test. `key` makes further keys; `http` has one with every right."""

    name: str
    url: str
    access: Access
    secret: str
    http: httpx.AsyncClient

    async def key(
        self, *scopes: Scope, groups: frozenset[str] | None = None, tenant: str | None = None
    ) -> dict[str, str]:
        _, secret = await self.access.create_key(
            tenant or self.name, "key", groups=groups, scopes=scopes or ("read", "write")
        )
        return {"Authorization": f"Bearer {secret}"}

    async def add(self, *documents: dict[str, Any], collection: str = "default") -> None:
        """Hand documents in and wait until they can be found."""
        body = {"collection": collection, "documents": list(documents)}
        reply = await self.http.post("/v1/documents", json=body)
        assert reply.status_code == 202, reply.text
        for job in reply.json()["jobs"]:
            await self.done(job["id"])

    async def done(self, job_id: str) -> dict[str, Any]:
        async with asyncio.timeout(60):
            while True:
                job: dict[str, Any] = (await self.http.get(f"/v1/jobs/{job_id}")).json()
                if job["status"] not in ("queued", "running"):
                    return job
                await asyncio.sleep(0.05)


@dataclass(slots=True)
class House:
    """The running service. `url` wants keys, `open_url` answers without one. `stages` are the models of
    single releases, by their ids; every other plays on `stage`. What tenants are answered is held against the
    OpenAPI document."""

    services: Services
    stage: Stage
    stages: dict[str, ChatModel] = field(default_factory=dict)
    url: str = ""
    open_url: str = ""
    clients: list[httpx.AsyncClient] = field(default_factory=list)
    contract: Contract = field(init=False)

    def __post_init__(self) -> None:
        self.contract = Contract(self.services.settings)

    async def tenant(self) -> Tenant:
        name = f"t{uuid.uuid4().hex[:10]}"
        access = self.services.access
        _, secret = await access.create_key(name, "all", groups=None, scopes=("admin", "operate"))
        headers = {"Authorization": f"Bearer {secret}"}
        hooks = {"response": [self.contract.check]}
        client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, event_hooks=hooks)
        self.clients.append(client)
        return Tenant(name, self.url, access, secret, client)


class _Quiet(Server):
    """Leaves the signals to pytest."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(services: Services) -> AsyncIterator[str]:
    """The application on a real socket of its own; yields its URL."""
    stopping = asyncio.Event()
    config = configured(create_app(services.settings, services, stopping), "127.0.0.1", 0, 20)
    server = _Quiet(config, lambda: None, stopping)
    task = asyncio.create_task(server.serve())
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    assert server.started, "the server did not start"
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


def tool_call(version: str, tool: str, **arguments: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The call of a tool, and its headers, as a client of this version of the Model Context Protocol sends
    them."""
    params: dict[str, Any] = {"name": tool, "arguments": arguments}
    headers = {**ACCEPT, "MCP-Protocol-Version": version}
    if version >= "2026":
        prefix = "io.modelcontextprotocol"
        params["_meta"] = {
            f"{prefix}/protocolVersion": version,
            f"{prefix}/clientInfo": {"name": "test", "version": "1"},
            f"{prefix}/clientCapabilities": {},
        }
        headers |= {"Mcp-Method": "tools/call", "Mcp-Name": tool}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}, headers
