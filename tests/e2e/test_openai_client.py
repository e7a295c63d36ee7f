"""The official OpenAI client, unchanged but for its base URL, against a whole instance; and one whose model
dies in mid-answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from eval.bench.paced import PacedServer
from tests import live
from tests.live import Instance
from tests.paced import serving

QUESTION = "What caused the gateway outage of 14 March 2025?"
DYING = "paced?length=40&rate=20&after=5&wrong=die"


def _client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="sk-anything", max_retries=0)


def test_it_chats_and_finds_the_citation(sampled: Instance) -> None:
    with _client(sampled.url) as client:
        answer = client.chat.completions.create(
            model="plumbline", messages=[{"role": "user", "content": QUESTION}]
        )
    assert "certificate" in (answer.choices[0].message.content or "")
    assert answer.model_extra is not None
    cited = answer.model_extra["plumbline"]["citations"]
    assert any("gateway-outage" in one["document_id"] and "certificate" in one["text"] for one in cited)
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def test_it_streams_the_same_answer(sampled: Instance) -> None:
    with _client(sampled.url) as client:
        stream = client.chat.completions.create(
            model="plumbline",
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "certificate" in text
    assert chunks[-1].usage is not None
    assert any(c.choices and c.choices[0].finish_reason == "stop" for c in chunks)


def test_it_lists_models(sampled: Instance) -> None:
    with _client(sampled.url) as client:
        assert "plumbline" in [model.id for model in client.models.list()]


@pytest.fixture(scope="module")
def dying(parts_folder: Path) -> Iterator[Instance]:
    """An instance whose model drops the connection after five tokens."""
    folder = parts_folder / "dying"
    folder.mkdir(mode=0o711)
    with serving(PacedServer()) as url:
        environment = {"PLUMBLINE_MODEL_URL": url, "PLUMBLINE_MODEL": DYING}
        with live.instance(folder, "--no-sample", environment=environment) as one:
            text = "The gateway outage of 14 March 2025 was caused by a certificate."
            live.add(one, {"id": "outage", "text": text})
            yield one


def test_the_death_of_the_model_in_mid_stream_is_an_error(dying: Instance) -> None:
    with _client(dying.url) as client:
        stream = client.chat.completions.create(
            model="plumbline", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        said: list[str] = []
        with pytest.raises(openai.APIError, match=r"broke|died|ended|connection"):
            said.extend(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
