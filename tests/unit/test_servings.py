"""Releases made ready: built once, the last few kept, and the champion's the one that serves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from app.release import DEFAULT_RELEASE, Release, load_release
from app.serving import KEPT, Serving, Servings, Stages, degraded

FIRST = load_release(DEFAULT_RELEASE)


def named(name: str) -> Release:
    return replace(FIRST, body=FIRST.body.model_copy(update={"name": name}))


class Built:
    """Remembers what was built."""

    def __init__(self, champion: Callable[[], Release] = lambda: FIRST) -> None:
        self.names: list[str] = []
        self.servings = Servings(champion, self.build)

    async def build(self, release: Release) -> Serving:
        self.names.append(release.name)
        # Nobody asks here what it answers with.
        return Serving(release=release, index=cast(Any, None), model=cast(Any, None))


async def test_a_release_is_built_once() -> None:
    built = Built()
    for _ in range(3):
        await built.servings.prepare(named("a"))
    assert built.names == ["a"]
    ready = built.servings.ready(named("a"))
    assert ready
    assert ready.release == named("a")
    assert built.servings.ready(named("b")) is None


async def test_those_prepared_last_are_kept_and_asking_again_counts() -> None:
    built = Built()
    await built.servings.prepare(named("asked for again"))
    await built.servings.prepare(named("forgotten"))
    for n in range(KEPT - 1):
        await built.servings.prepare(named("asked for again"))
        await built.servings.prepare(named(f"r{n}"))
    assert built.servings.ready(named("asked for again"))
    assert built.servings.ready(named("forgotten")) is None
    assert built.servings.ready(named("r0"))
    assert len(built.names) == KEPT + 1


async def test_the_champion_serves_whoever_that_is_now_and_however_many_others_were_made_ready() -> None:
    champion = named("old")
    built = Built(lambda: champion)
    await built.servings.prepare(champion)
    assert built.servings.current().release.name == "old"
    for n in range(2 * KEPT):
        await built.servings.prepare(named(f"r{n}"))
    assert built.servings.current().release.name == "old"
    champion = named("new")
    await built.servings.prepare(champion)
    assert built.servings.current().release.name == "new"


async def test_a_release_that_cannot_be_built_is_not_ready_and_is_tried_again() -> None:
    tries = []

    async def build(release: Release) -> Serving:
        tries.append(release.name)
        raise OSError("no embedder")

    servings = Servings(lambda: FIRST, build)
    for _ in range(2):
        with pytest.raises(OSError, match="no embedder"):
            await servings.prepare(named("a"))
    assert tries == ["a", "a"]
    assert servings.ready(named("a")) is None


def test_a_stage_that_is_passed_twice_has_the_time_of_both() -> None:
    stages = Stages()
    stages.add("model", 1.0)
    stages.add("model", 0.5)
    with stages.measure("model"):
        pass
    assert stages.seconds["model"] >= 1.5


def test_what_several_stages_went_without_is_named_once_in_order() -> None:
    assert degraded(("rerank", "cache"), (), ("cache", "model:none")) == ("rerank", "cache", "model:none")
