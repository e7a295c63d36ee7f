"""langchain-milvus given the same chunks, in an environment of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app.embedders import find_embedder
from app.settings import load_settings
from eval.bench.bulk import Chunks
from eval.types import InstanceFailed

SCRIPT = Path(__file__).with_name("peer_langchain.py")


@dataclass(frozen=True, slots=True)
class Peer:
    """`python` has langchain-milvus, langchain-huggingface, sentence-transformers and milvus-lite. It gets
    the first `most` chunks."""

    python: Path
    most: int | None

    async def measure(self, texts: Sequence[str], made: Chunks) -> dict[str, Any]:
        """Seconds that it takes to embed and write them, its model loaded before."""
        given = texts[: self.most]
        with TemporaryDirectory(prefix="plumbline-bench-") as folder:
            chunks = Path(folder, "chunks.jsonl")
            lines = "".join(json.dumps(text) + "\n" for text in given)
            await asyncio.to_thread(chunks.write_text, lines, encoding="utf-8")
            model = find_embedder(made.embedder.spec.name, load_settings())
            told = await self._run(chunks, model, Path(folder))
        tokens = sum(len(made.embedder.token_spans(text)) for text in given)
        return {
            "chunks": len(given),
            "seconds": told["seconds"],
            "tokens_per_second": round(tokens / told["seconds"]),
            "versions": told["versions"],
        }

    async def _run(self, chunks: Path, model: Path, folder: Path) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            *(str(self.python), "-I", str(SCRIPT), str(chunks), str(model), str(folder / "peer.db")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            said, wrong = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            raise InstanceFailed(f"The peer failed: {wrong.decode(errors='replace').strip()[-800:]}")
        told: dict[str, Any] = json.loads(said.splitlines()[-1])
        return told
