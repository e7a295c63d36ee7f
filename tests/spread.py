"""How a run is spread over worker processes (`pytest -n 3`), and how it loses nothing.

A worker starts real parts of its own when one of its tests first asks for them, so tests go to workers by
files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_OF_THE_PAGE = ("page", "page_accessible", "page_address", "page_rights", "page_texts", "page_under_way")
_BROWSER = tuple(f"browser/test_{name}.py" for name in (*_OF_THE_PAGE, "release_page"))
_SAMPLED = (*_BROWSER, "e2e/test_openai_client.py", "e2e/test_up.py")
_VLLM = ("e2e/test_vllm.py", "e2e/test_vllm_judge.py", "e2e/test_vllm_up.py")
TOGETHER = {**dict.fromkeys(_SAMPLED, "sampled"), **dict.fromkeys(_VLLM, "vLLM")}
"""Files that go to one worker, since they share what is dear: an instance with the sample takes as long to
start as fifty tests do, and a vLLM 3 GB."""
SHOWN = 20


def register(config: pytest.Config) -> None:
    """Called when pytest is configured. In a worker, and for a run in one process, there is nothing to do."""
    if not hasattr(config, "workerinput") and config.getoption("dist") != "no":
        config.pluginmanager.register(Whole())


class Groups(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types.
    """Hands out groups of files, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return TOGETHER.get("/".join(Path(file).parts[-2:]), file)

    def remove_node(self, node: Any) -> str | None:
        """The test at which this process died, if it did. What is left of its groups goes to others, without
        that test, at which they would die too. (The scheduler that this one extends hands out all of them
        again, and hangs at a group of which nothing is left.)"""
        groups = self.assigned_work.pop(node)
        open_tests: list[str] = [
            test for group in groups.values() for test, is_over in group.items() if not is_over
        ]
        if not open_tests:
            return None
        for name, group in groups.items():
            left = {test: False for test, is_over in group.items() if not is_over and test != open_tests[0]}
            if left:
                self.workqueue[name] = left
        for other in self.nodes:
            self._reschedule(other)
        return open_tests[0]


class Whole:
    """In the process that hands tests out: what was collected was also run, or the run fails."""

    def __init__(self) -> None:
        self._collected: set[str] = set()
        self._over: set[str] = set()

    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: object) -> Groups:
        config.option.loadscopereorder = False
        return Groups(config, log)

    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._collected.update(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # The test at which a worker died is reported as none of its steps.
        if report.when not in ("setup", "call"):
            self._over.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._lost() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if lost := self._lost():
            terminalreporter.section(f"{len(lost)} tests were collected and not run", red=True)
            for nodeid in lost[:SHOWN]:
                terminalreporter.write_line(nodeid)

    def _lost(self) -> list[str]:
        return sorted(self._collected - self._over)
