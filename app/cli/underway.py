"""What is on its way into the index: whoever asks meanwhile is told that it cannot be found yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from app.cli.client import Client


@contextmanager
def under_way(client: Client) -> Iterator[Callable[[], str]]:
    """Look at the queue beside what is asked in the block; what is returned says at its end what the answer
    does not know, nothing where that is nothing or cannot be told."""
    with ThreadPoolExecutor(1) as beside:
        yield beside.submit(_not_yet, client).result


def _not_yet(client: Client) -> str:
    from app.cli.client import ClientError

    try:
        queue = client.get("/v1/queue")
    except ClientError:
        return ""
    count = queue["queued"] + queue["running"]
    one = count == 1
    documents = f"{count:,} {'document' if one else 'documents'}"
    if not count:
        return ""
    if queue["state"] == "open":
        told = f"{documents} {'is' if one else 'are'} still being read."
    else:
        told = f"{documents} {'waits' if one else 'wait'}: the queue is held back."
    return f"{told} This does not know {'it' if one else 'them'} yet."
