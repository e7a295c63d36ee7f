"""Which real parts a run used, and which it left out and why: the end of every run says it."""

from __future__ import annotations

import os

import pytest

REAL_PARTS = ("PostgreSQL", "Redis", "Milvus Lite", "Chromium", "vLLM on the CPU", "Weaviate")
STAND_IN = "Weaviate's stand-in"
NO_WEAVIATE = "not run against it: WEAVIATE_URL is not set"
WHOLE_INSTANCE = {"e2e", "chaos", "browser"}
"""Folders whose tests run the product itself, with all its embedded parts."""


def _parts_of(item: pytest.Item) -> list[str]:
    """The real parts that a test runs on."""
    names = set(getattr(item, "fixturenames", ()))
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    names.add(f"{parameters.get('make_store')} store")
    vllm = item.get_closest_marker("vllm") is not None
    whole = item.path.parent.name in WHOLE_INSTANCE and not vllm
    weaviate = bool(names & {"weaviate_address", "weaviate store"})
    used = (
        whole or bool(names & {"postgres_url", "database_url", "sampled"}),
        whole or bool(names & {"redis_url", "sampled"}),
        whole or bool(names & {"milvus_uri", "sampled", "milvus store"}),
        item.get_closest_marker("browser") is not None,
        vllm,
        weaviate and "WEAVIATE_URL" in os.environ,
        weaviate and "WEAVIATE_URL" not in os.environ,
    )
    return [part for part, is_used in zip((*REAL_PARTS, STAND_IN), used, strict=True) if is_used]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties += [("part", part) for part in _parts_of(item)]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which real parts ran, and which were skipped and why."""
    terminalreporter.section("real parts")
    ran = [r for key in ("passed", "failed") for r in terminalreporter.getreports(key) if r.when == "call"]
    skipped = terminalreporter.getreports("skipped")
    stood_in = sum(("part", STAND_IN) in report.user_properties for report in ran)
    for part in REAL_PARTS:
        count = sum(("part", part) in report.user_properties for report in ran)
        left_out = [report for report in skipped if ("part", part) in report.user_properties]
        reasons = {
            str(report.longrepr[-1]).removeprefix("Skipped: ")
            for report in left_out
            if isinstance(report.longrepr, tuple)
        }
        told = f"{count} tests ran on it" if count else "not used"
        if part == "Weaviate" and stood_in:
            told = f"{NO_WEAVIATE}; {stood_in} tests ran on a stand-in that speaks its protocol"
        if left_out:
            told += f"; {len(left_out)} tests skipped: {'; '.join(sorted(reasons))}"
        terminalreporter.write_line(f"{part:<16} {told}")
