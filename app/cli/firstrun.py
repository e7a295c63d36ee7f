"""What `plumbline up` does once all is ready: fill a new instance with the sample corpus, show one cited
answer, and say where the service is."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app import instance
from app.cli.answer import answer_lines
from app.cli.client import Client, ClientError
from app.cli.sources import find
from app.cli.upload import Outcome, finished, hand_in
from app.settings import Settings

SAMPLE = Path(__file__).parents[1] / "sample"
SAMPLE_QUESTION = "How many days a week may people work remotely?"
SAY_EVERY = 2.0


@dataclass(frozen=True, slots=True)
class FirstRun:
    """Called in a thread of its own; returns soon after `stopping` is set. Never raises what the service
    answers: an instance without its sample is still an instance."""

    settings: Settings
    say: Callable[[str], None]
    sample: bool

    @property
    def _open(self) -> bool:
        from app.access import opened

        return opened(self.settings)

    def __call__(self, stopping: threading.Event) -> None:
        running = instance.running(self.settings.data)
        if running is None:
            return
        key = self.settings.key.get_secret_value() if self.settings.key else None
        try:
            with Client(running.url, key) as client:
                self._fill(client, stopping)
        except ClientError as error:
            if not stopping.is_set():
                self.say(f"The sample corpus was not taken in: {error}")
        if not stopping.is_set():
            self._tell(running.url)

    def _fill(self, client: Client, stopping: threading.Event) -> None:
        """Ingest the sample into a new instance; one that was cut short at that starts over."""
        if instance.remembered(self.settings.data).get("sample"):
            return
        if not self.sample:
            instance.remember(self.settings.data, sample="declined")
            return
        if not (self._open or self.settings.key):
            self.say(
                "The sample corpus was left out: it needs a key with the scope `write` in PLUMBLINE_KEY."
            )
            return
        from ingestion.intake import EXTENSIONS  # It brings the whole of SQLAlchemy along.

        sources = find([str(SAMPLE)], EXTENSIONS).sources
        known = {source.id for source in sources}
        if any(
            document["id"] not in known for document in client.get("/v1/documents", limit=500)["documents"]
        ):
            instance.remember(self.settings.data, sample="not needed")
            return
        handed_in = hand_in(client, sources, {}, lambda done, total: None, most=self.settings.upload_limit)
        self.say(f"sample   {len(handed_in)} documents handed in")
        if not self._wait(client, handed_in, stopping):
            return
        self._show_answer(client)
        instance.remember(self.settings.data, sample="ingested")

    def _wait(self, client: Client, outcomes: list[Outcome], stopping: threading.Event) -> bool:
        """Whether every job ended; a line tells how far they are."""
        began, told = time.monotonic(), 0.0
        ended: list[Outcome] = []
        for outcome in finished(client, outcomes, stopping):
            ended.append(outcome)
            if sys.stdout.isatty() or time.monotonic() - told > SAY_EVERY or len(ended) == len(outcomes):
                told = time.monotonic()
                self.say(f"sample   {len(ended)} of {len(outcomes)} documents")
            if outcome.failed:
                self.say(f"sample   {outcome.document_id}: {outcome.status}, {outcome.message}")
        if len(ended) == len(outcomes):
            good = sum(not outcome.failed for outcome in ended)
            self.say(f"sample   {good} documents indexed in {time.monotonic() - began:.1f} s")
        return len(ended) == len(outcomes)

    def _show_answer(self, client: Client) -> None:
        messages = [{"role": "user", "content": SAMPLE_QUESTION}]
        reply = client.post("/v1/chat/completions", {"model": "plumbline", "messages": messages})
        self.say("")
        self.say(f"  > {SAMPLE_QUESTION}")
        for line in answer_lines(reply["choices"][0]["message"]["content"], reply["plumbline"]):
            self.say(f"  {line}")
        self.say("")

    def _tell(self, url: str) -> None:
        lines = [f"Plumbline is ready at {url}", f"data in {self.settings.data}"]
        if self._open:
            lines.append("open to this machine without a key; `plumbline keys create` makes keys")
        lines.append("Ctrl-C stops it")
        width = max(map(len, lines))
        edge = "+" + "-" * (width + 2) + "+"
        for line in (edge, *(f"| {line:<{width}} |" for line in lines), edge):
            self.say(line)
