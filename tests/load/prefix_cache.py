"""How much of its prompts vLLM has in its prefix cache, for several layouts of the same prompts.

    python -m tests.load.prefix_cache --url http://127.0.0.1:8000/v1 --model tiny
    python -m tests.load.prefix_cache --vllm .venv-vllm/bin/python        (starts a tiny model on the CPU)

The questions of the handbook data set, drawn by Zipf's law, go through the whole query path (search, context,
template, client) with kept answers left out; vLLM counts what it is asked for and what it has. Each layout is
a tenant of its own, so that by their salts none finds what another left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from app import deadline
from app.settings import Settings, load_settings
from app.types import Answer, Question
from app.wiring import Replacements, Services, open_services, open_worker
from eval.bench import bed
from ingestion.types import NewDocument
from llm.prompts import load_template
from llm.types import Message
from retrieval.stores.memory import MemoryStore
from retrieval.types import Filter
from tests.load.vllm import server, source_options
from tests.vllm_server import ROOT, metric

SAMPLE = ROOT / "app" / "sample"
CASES = ROOT / "eval" / "datasets" / "handbook" / "cases.jsonl"
RELEASE = """
name = "prefix"
[[models]]
name = "{model}"
[sampling]
max_tokens = 1
[prompts]
answer = "{prompt}"
[context]
order = "{order}"
max_characters = 9000
"""
LAYOUTS = {
    "question before passages, by score": ("first.md", "score"),
    "question after passages, by score": ("answer", "score"),
    "question after passages, canonical": ("answer", "canonical"),
}
"""The last is the one that ships."""
ASKED = "<question>\n{question}\n</question>"
FLYING = 4


def question_first() -> str:
    """The shipped template with the question before the passages."""
    text = load_template("answer").text
    head, user = text.replace(ASKED, "").split("# user\n", 1)
    return f"{head}# user\n{ASKED}\n\n{user}"


def drawn(count: int) -> list[str]:
    """Questions by Zipf's law, the same on every run."""
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    questions = [case["question"] for case in cases if case.get("kind") != "summary"]
    chance = np.random.default_rng(17)
    order = chance.permutation(len(questions))
    weights = 1 / np.arange(1, len(questions) + 1)
    return [questions[order[n]] for n in chance.choice(len(questions), count, p=weights / weights.sum())]


@asynccontextmanager
async def service(url: str, model: str, prompt: str, order: str, tenant: str) -> AsyncIterator[Services]:
    """The query side with the sample corpus in a memory store."""
    async with bed.made() as one:
        (one.folder / "first.md").write_text(question_first())
        release = one.folder / "release.toml"
        release.write_text(RELEASE.format(model=model, prompt=prompt, order=order))
        named = {**one.environment, "PLUMBLINE_RELEASE": str(release), "PLUMBLINE_MODEL_URL": url}
        settings = load_settings(named, **_values(named))
        store = MemoryStore()
        async with open_services(settings, Replacements(store=store)) as services:
            await _fill(services, settings, store, tenant)
            yield services


def _values(named: dict[str, str]) -> dict[str, str]:
    """Settings are read from this process's environment; these go over it."""
    return {name.removeprefix("PLUMBLINE_").lower(): value for name, value in named.items()}


async def _fill(services: Services, settings: Settings, store: MemoryStore, tenant: str) -> None:
    stop = asyncio.Event()
    async with open_worker(settings, Replacements(store=store)) as work:
        working = asyncio.ensure_future(work(stop))
        try:
            jobs = await services.intake.put(tenant, [_new(path) for path in sorted(SAMPLE.rglob("*.*"))])
            for job in jobs:
                while (await services.intake.job(tenant, job.id)).state in ("queued", "running"):
                    await asyncio.sleep(0.1)
        finally:
            stop.set()
            await working


def _new(path: Path) -> NewDocument:
    return NewDocument(
        id=f"{path.parent.name}:{path.name}",
        content=path.read_bytes(),
        filename=path.name,
        collection=path.parent.name,
    )


async def ask(services: Services, tenant: str, text: str) -> int:
    """Tokens of the prompt that the question became."""
    question = Question(
        messages=(Message("user", text),),
        where=Filter(tenant=tenant, groups=None),
        deadline=deadline.after(300),
        cache="off",
    )
    async with aclosing(services.chat.ask(question)) as events:
        async for event in events:
            if isinstance(event, Answer):
                return event.usage.prompt_tokens
    raise RuntimeError("no answer")


async def rate(services: Services, url: str, tenant: str, questions: Sequence[str]) -> dict[str, Any]:
    """Hit rates over all questions, and over those that are asked for the first time: the others may be
    answered from kept answers, and vLLM then never sees them."""
    before, sizes = _counters(url), list[int]()

    async def send(texts: Sequence[str]) -> dict[str, float]:
        waiting = list(texts)

        async def work() -> None:
            while waiting:
                sizes.append(await ask(services, tenant, waiting.pop()))

        await asyncio.gather(*(work() for _ in range(FLYING)))
        queries, hits = (after - then for after, then in zip(_counters(url), before, strict=True))
        return {"queries": queries, "hits": hits, "hit_rate": round(hits / queries, 4)}

    new = list(dict.fromkeys(questions))
    first, again = await send(new), list(questions)
    for text in new:
        again.remove(text)
    everything = await send(again)
    size = round(sum(sizes) / len(sizes))
    return {
        "questions": len(sizes),
        "new": len(new),
        "prompt_tokens": size,
        "first": first,
        "all": everything,
    }


def _counters(url: str) -> tuple[float, float]:
    return metric(url, "vllm:prefix_cache_queries_total"), metric(url, "vllm:prefix_cache_hits_total")


async def run(url: str, options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (prompt, order) in LAYOUTS.items():
        tenant = f"t{uuid.uuid4().hex[:12]}"
        async with service(url, options.model, prompt, order, tenant) as services:
            found[name] = await rate(services, url, tenant, drawn(options.questions))
        first, everything = found[name]["first"]["hit_rate"], found[name]["all"]["hit_rate"]
        print(f"{name:<40} all {everything:.3f}  asked for the first time {first:.3f}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Prefix-cache hit rates by layout.")
    source_options(parser)
    parser.add_argument("--questions", type=int, default=300)
    options = parser.parse_args()
    with server(options) as url:
        print(json.dumps(uvloop.run(run(url, options)), indent=1))


if __name__ == "__main__":
    main()
