"""The judge and the metrics that ask it, against a real web server that replies as a test wants."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.embedded import free_port
from eval.cli import commands
from eval.console import CANNOT
from eval.judge import OUTAGES, PRIORITY, Bounds, Judge, JudgeSettings, bounded, judge_settings
from eval.metrics.embeddings import Embeddings
from eval.metrics.judged import judge_metrics
from eval.metrics.measure import score
from eval.types import Case, EvalError, Gold, JudgeFailed, Passage, Reply, Sample, Score, Summarized
from tests.replying import Body, Replying, replying

Answer = Callable[[Body], tuple[int, object]]
SCHEMA = {"title": "Said", "type": "object", "properties": {"said": {"type": "string"}}}

GOOD = Passage(document_id="leave", chunk_id="1-0", text="Everybody has 28 days of paid leave.", number=1)
OTHER = Passage(document_id="remote", chunk_id="2-0", text="Three days a week from home.", number=2)
CASE = Case(
    id="leave", question="How many days of leave?", gold=(Gold("leave", "28 days"),), reference="28 days."
)
SUMMARY = Case(id="sum", kind="summary", question="", gold=(Gold("leave"),), reference="28 days.", words=50)
REPLY = Reply(
    text="It is 28 days. [1]",
    citations=(GOOD,),
    sources=(GOOD, OTHER),
    model="extractive",
    release="0123456789ab",
    degraded=(),
    seconds=0.1,
)
ANSWERED = Sample(case_id="leave", reply=REPLY, hits=(OTHER, GOOD), errors={})
SUMMARIZED = Sample(
    case_id="sum",
    summary=Summarized(
        text="It is 28 days. [1]",
        citations=(GOOD,),
        coverage=1.0,
        sections_cited=1.0,
        model="extractive",
        release="0123456789ab",
        degraded=(),
        seconds=0.1,
    ),
    errors={},
)


def asked(answer: Answer, *waiting: int) -> Replying:
    """A judge's server. With `waiting` it has gauges that show these lengths of its queue, then 0."""
    lengths = list(waiting)

    def gauges(path: str) -> tuple[int, str]:
        now = lengths.pop(0) if lengths else 0
        return 200, f'vllm:num_requests_waiting{{engine="0"}} {now}.0\n'

    return Replying(lambda path, body: answer(body), gauges) if waiting else Replying(lambda _, b: answer(b))


@contextmanager
def serving(server: Replying) -> Iterator[str]:
    with replying(server) as url:
        yield f"{url}/v1"


def said(content: object, finish: str = "stop") -> tuple[int, object]:
    text = content if isinstance(content, str) else json.dumps(content)
    return 200, {"choices": [{"message": {"content": text}, "finish_reason": finish}]}


def read(text: str) -> str:
    found: str = json.loads(text)["said"]
    if not found:
        raise ValueError("it says nothing")
    return found


async def test_a_verdict_is_asked_for_in_json_of_a_bounded_schema_after_all_readers() -> None:
    server = asked(lambda body: said({"said": "yes"}))
    with serving(server) as url:
        async with Judge(JudgeSettings(url=url, model="big", key="secret")) as judge:
            assert await judge.ask("Is it?", SCHEMA, read) == "yes"
    [body] = server.bodies
    assert body["messages"] == [{"role": "user", "content": "Is it?"}]
    assert (body["model"], body["temperature"], body["priority"]) == ("big", 0.0, PRIORITY)
    form = body["response_format"]
    assert (form["type"], form["json_schema"]["name"]) == ("json_schema", "Said")
    assert form["json_schema"]["schema"]["properties"]["said"]["maxLength"] == Bounds().characters
    assert server.headers[0]["Authorization"] == "Bearer secret"


async def test_a_verdict_is_kept_for_the_same_model_prompt_schema_and_repeat_only(tmp_path: Path) -> None:
    server = asked(lambda body: said({"said": f"{body['seed']} {body['model']}"}))
    with serving(server) as url:
        for model, prompt, repeat, requests in (
            ("big", "Is it?", 0, 1),
            ("big", "Is it?", 0, 1),
            ("big", "Is it?", 1, 2),
            ("small", "Is it?", 0, 3),
            ("big", "Is it not?", 0, 4),
        ):
            async with Judge(JudgeSettings(url=url, model=model, cache=tmp_path)) as judge:
                assert await judge.ask(prompt, SCHEMA, read, repeat=repeat) == f"{repeat} {model}"
            assert len(server.bodies) == requests


async def test_what_is_no_verdict_fails_and_is_not_kept(tmp_path: Path) -> None:
    replies = [
        said({"said": ""}),
        said('{"said": "y', "length"),
        said("no JSON"),
        (200, {}),
        said({"said": "y"}),
    ]
    server = asked(lambda body: replies.pop(0))
    with serving(server) as url:
        async with Judge(JudgeSettings(url=url, model="big", cache=tmp_path)) as judge:
            for reason in ("it says nothing", "limit of tokens", "no verdict", "has no 'choices'"):
                with pytest.raises(JudgeFailed, match=reason):
                    await judge.ask("Is it?", SCHEMA, read)
            assert await judge.ask("Is it?", SCHEMA, read) == "y"


async def test_a_server_that_takes_no_priority_is_asked_without(tmp_path: Path) -> None:
    def answer(body: Body) -> tuple[int, object]:
        return (400, {"error": "priority is not enabled"}) if "priority" in body else said({"said": "yes"})

    server = asked(answer)
    with serving(server) as url:
        async with Judge(JudgeSettings(url=url, model="big")) as judge:
            assert await judge.ask("Is it?", SCHEMA, read) == "yes"
            assert await judge.ask("Is it?", SCHEMA, read) == "yes"
    assert ["priority" in body for body in server.bodies] == [True, False, False]


async def test_nothing_is_sent_while_requests_wait_at_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.judge.POLL", 0.01)
    server = asked(lambda body: said({"said": f"after {len(server.looks)}"}), 3, 1, 0)
    with serving(server) as url:
        async with Judge(JudgeSettings(url=url, model="big")) as judge:
            assert await judge.ask("Is it?", SCHEMA, read) == "after 3"


async def test_a_queue_that_stays_full_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.judge.POLL", 0.01)
    monkeypatch.setattr("eval.judge.PATIENCE", 0.05)
    server = asked(lambda body: said({"said": "yes"}), *[1] * 1000)
    with serving(server) as url:
        async with Judge(JudgeSettings(url=url, model="big")) as judge:
            with pytest.raises(JudgeFailed, match="waited"):
                await judge.ask("Is it?", SCHEMA, read)
    assert server.bodies == []


async def test_a_server_without_gauges_is_looked_at_once() -> None:
    server = asked(lambda body: said({"said": "yes"}))
    with serving(server) as url:
        async with Judge(JudgeSettings(url=url, model="big")) as judge:
            for prompt in ("One?", "Two?"):
                await judge.ask(prompt, SCHEMA, read)
    assert len(server.looks) == 1


async def test_a_busy_server_is_asked_again_and_a_refusal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eval.judge.POLL", 0.001)
    replies = [(503, {}), (429, {}), said({"said": "yes"}), (400, {"error": "too long"})]
    server = asked(lambda body: replies.pop(0))
    with serving(server) as url:
        async with Judge(JudgeSettings(url=url, model="big")) as judge:
            assert await judge.ask("Is it?", SCHEMA, read) == "yes"
            with pytest.raises(JudgeFailed, match=r"400.*too long"):
                await judge.ask("Is it?", SCHEMA, read)
    assert len(server.bodies) == 4


async def test_a_judge_that_is_away_is_found_out_and_not_waited_for_again() -> None:
    async with Judge(JudgeSettings(url=f"http://127.0.0.1:{free_port()}/v1", model="big")) as judge:
        for _ in range(OUTAGES):
            with pytest.raises(JudgeFailed, match="not reached: ConnectError"):
                await judge.ask("Is it?", SCHEMA, read)
        with pytest.raises(JudgeFailed, match="is away"):
            await judge.ask("Is it?", SCHEMA, read)


async def test_a_judge_that_fails_every_other_time_is_not_away() -> None:
    asked_for = itertools.count()

    def answer(body: Body) -> tuple[int, object]:
        if next(asked_for) % 2:
            raise ConnectionAbortedError("it breaks the connection")
        return said({"said": "y"})

    with serving(asked(answer)) as url:
        async with Judge(JudgeSettings(url=url, model="big")) as judge:
            judge._outages = OUTAGES - 2
            for _ in range(2):
                assert await judge.ask("Is it?", SCHEMA, read) == "y"
                with pytest.raises(JudgeFailed, match="not reached"):
                    await judge.ask("Is it?", SCHEMA, read)
            assert await judge.ask("Is it?", SCHEMA, read) == "y"


async def test_a_kept_verdict_that_was_cut_off_is_asked_for_again(tmp_path: Path) -> None:
    server = asked(lambda body: said({"said": "y"}))
    with serving(server) as url:
        for requests in (1, 2, 2):
            async with Judge(JudgeSettings(url=url, model="big", cache=tmp_path)) as judge:
                assert await judge.ask("Is it?", SCHEMA, read) == "y"
            assert len(server.bodies) == requests
            if requests == 1:
                [kept] = tmp_path.glob("*/*.json")
                kept.write_text('{"sai')


async def test_a_call_has_a_deadline() -> None:
    stop = threading.Event()

    def answer(body: Body) -> tuple[int, object]:
        stop.wait(10)
        return said({"said": "late"})

    with serving(asked(answer)) as url:
        async with Judge(JudgeSettings(url=url, model="big", timeout=0.1)) as judge:
            with pytest.raises(JudgeFailed, match=r"within 0\.1 s"):
                await judge.ask("Is it?", SCHEMA, read)
        stop.set()


def test_every_part_of_a_schema_has_an_end() -> None:
    inner = {"type": "object", "properties": {"verdict": {"type": "integer"}, "why": {"type": "string"}}}
    schema = {
        "type": "object",
        "properties": {"items": {"type": "array", "items": {"$ref": "#/$defs/One"}}},
        "$defs": {"One": inner},
    }
    found = bounded(schema, Bounds(characters=40, items=3))
    assert found["additionalProperties"] is False
    assert found["properties"]["items"] == {
        "type": "array",
        "items": {"$ref": "#/$defs/One"},
        "minItems": 1,
        "maxItems": 3,
    }
    one = found["$defs"]["One"]
    assert one["additionalProperties"] is False
    assert one["properties"]["verdict"] == {"type": "integer", "minimum": 0, "maximum": 1}
    assert one["properties"]["why"]["maxLength"] == 40


def test_half_a_judge_is_none_and_its_key_is_not_shown(tmp_path: Path) -> None:
    wanted: dict[str, Any] = {"key": "secret", "repeats": 3, "cache": tmp_path}
    assert judge_settings(url=None, model=None, **wanted) is None
    for url, model in (("http://x/v1", None), (None, "big"), ("x:80", "big")):
        with pytest.raises(EvalError, match="--judge-url"):
            judge_settings(url=url, model=model, **wanted)
    found = judge_settings(url="http://x/v1/", model="big", **wanted)
    assert found
    assert (found.url, found.name) == ("http://x/v1", "big x3")
    assert found.temperature > 0
    assert "secret" not in repr(found)


def test_the_command_takes_its_judge_from_options_and_environment() -> None:
    half = CliRunner().invoke(commands, ["run"], env={"PLUMBLINE_JUDGE_URL": "http://127.0.0.1:1/v1"})
    assert half.exit_code == CANNOT
    assert "--judge-model" in half.output


VERDICTS: dict[str, object] = {
    "StatementGeneratorOutput": {"statements": ["It is 28.", "It is paid."]},
    "NLIStatementOutput": {
        "statements": [
            {"statement": "It is 28.", "reason": "said", "verdict": 1},
            {"statement": "It is paid.", "reason": "not said", "verdict": 0},
        ]
    },
    "AnswerRelevanceOutput": {"question": "How much leave?", "noncommittal": 0},
    "ContextRecallOutput": {
        "classifications": [
            {"statement": "28", "reason": "said", "attributed": 1},
            {"statement": "paid", "reason": "not said", "attributed": 0},
        ]
    },
    "ClaimDecompositionOutput": {"claims": ["It is 28.", "It is paid."]},
    "ExtractedKeyphrases": {"keyphrases": ["28 days"]},
    "QuestionsGenerated": {"questions": ["Is it 28?", "Is it paid?"]},
    "AnswersGenerated": {"answers": ["1", "0"]},
}


def verdict(body: Body) -> tuple[int, object]:
    """One of two things is right, whatever is asked; a passage is useful that speaks of leave."""
    name = body["response_format"]["json_schema"]["name"]
    if name == "ContextPrecisionOutput":
        given = body["messages"][0]["content"].rpartition("Now perform the same")[2]
        return said({"reason": "read", "verdict": int("28 days of paid leave" in given)})
    return said(VERDICTS[name])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("judge_faithfulness", 0.5),
        ("judge_answer_relevancy", 1.0),
        # The only useful passage is the second of two.
        ("judge_context_precision", 0.5),
        ("judge_context_recall", 0.5),
        # One claim right and one wrong, both ways: precision and recall are 1/2.
        ("judge_factual_correctness", 0.5),
        # Half of it one question of two, half how much shorter the summary is than the text.
        ("judge_summary_score", 0.25 + (1 - len("It is 28 days.") / len(GOOD.text)) / 2),
        ("judge_summary_faithfulness", 0.5),
    ],
)
async def test_ragas_makes_the_score_of_the_judges_verdicts(name: str, value: float) -> None:
    with serving(asked(verdict)) as url:
        found = await _scored(JudgeSettings(url=url, model="big"), name)
    assert found == Score(pytest.approx(value))  # type: ignore[arg-type]


async def test_a_line_break_within_a_reply_does_not_make_it_none() -> None:
    broken = said('{"question": "How much\n leave?", "noncommittal": 0}')
    with serving(asked(lambda body: broken)) as url:
        found = await _scored(JudgeSettings(url=url, model="big"), "judge_answer_relevancy")
    assert found == Score(pytest.approx(1.0))  # type: ignore[arg-type]


async def test_an_evasive_answer_is_not_relevant() -> None:
    evasive = said({"question": "How much leave?", "noncommittal": 1})
    with serving(asked(lambda body: evasive)) as url:
        found = await _scored(JudgeSettings(url=url, model="big"), "judge_answer_relevancy")
    assert found == Score(0.0)


async def test_a_score_is_the_mean_of_its_repeats() -> None:
    def answer(body: Body) -> tuple[int, object]:
        return said({"classifications": [{"statement": "x", "reason": "y", "attributed": body["seed"] % 2}]})

    server = asked(answer)
    with serving(server) as url:
        found = await _scored(JudgeSettings(url=url, model="big", repeats=4), "judge_context_recall")
    assert found == Score(0.5)
    assert sorted(body["seed"] for body in server.bodies) == [0, 1, 2, 3]


async def test_a_repeat_that_fails_makes_the_score_the_judges_failure_and_no_number() -> None:
    def answer(body: Body) -> tuple[int, object]:
        return verdict(body) if body["seed"] == 0 else (400, {"error": "broken"})

    with serving(asked(answer)) as url:
        found = await _scored(JudgeSettings(url=url, model="big", repeats=2), "judge_context_recall")
    assert (found.value, found.fault) == (None, "judge")
    assert "400" in (found.error or "")


async def test_replies_that_make_no_score_are_the_judges_failure() -> None:
    with serving(asked(lambda body: said({"statements": []}))) as url:
        found = await _scored(JudgeSettings(url=url, model="big"), "judge_faithfulness")
    assert (found.value, found.fault) == (None, "judge")


async def test_a_lost_answer_is_the_releases_failure_and_an_empty_one_is_0_without_asking() -> None:
    server = asked(verdict)
    with serving(server) as url:
        settings = JudgeSettings(url=url, model="big")
        lost = Sample(case_id="leave", errors={"chat": "503, down", "search": "503, down"})
        assert await _scored(settings, "judge_faithfulness", lost) == Score(None, "503, down", "release")
        nothing = Sample(case_id="leave", reply=_replied(""), hits=(), errors={})
        for name in ("judge_faithfulness", "judge_answer_relevancy", "judge_context_precision"):
            assert await _scored(settings, name, nothing) == Score(0.0)
    assert server.bodies == []


async def _scored(settings: JudgeSettings, name: str, sample: Sample | None = None) -> Score:
    async with Judge(settings) as judge:
        metrics = judge_metrics(judge, Embeddings(_embed), {"leave": GOOD.text}.__getitem__)
        [metric] = [one for one in metrics if one.name == name]
        case = SUMMARY if metric.applies(SUMMARY) else CASE
        return await score(metric, case, sample or (SUMMARIZED if case is SUMMARY else ANSWERED))


async def _embed(texts: Sequence[str]) -> Sequence[Sequence[float]]:
    return [[1.0, 0.0] if "leave" in text else [0.0, 1.0] for text in texts]


def _replied(text: str) -> Reply:
    return Reply(
        text=text,
        citations=(),
        sources=(GOOD,),
        model="extractive",
        release="0123456789ab",
        degraded=(),
        seconds=0.1,
    )
