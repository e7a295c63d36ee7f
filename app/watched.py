"""A request in a canary, watched to its end: its outcome is recorded however it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.assignment import Assigned
from app.errors import ClientGone, DeadlineExceeded
from app.outcomes import Facts, Outcomes, facts_of_fault, facts_of_given_up, is_fault

_GIVEN_UP = (asyncio.CancelledError, GeneratorExit, ClientGone)


@dataclass(slots=True)
class Watched:
    """`facts` are to be set when the request has its answer. `anew` is False when it came from a cache."""

    begin: float = field(default_factory=time.perf_counter)
    facts: Facts | None = None
    anew: bool = True

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begin


@contextmanager
def watched(
    outcomes: Outcomes, assigned: Assigned, *, kind: str, tenant: str, answer: str, deadline: float
) -> Iterator[Watched]:
    """Record what comes of the block under the name `answer`. An error that is the caller's, or that any
    release would have met, is none of the release's; a caller who gave up tells how long it took at least.
    Whoever cuts the block off after its deadline, it was the answer that was late."""
    watch = Watched()
    try:
        yield watch
    except _GIVEN_UP:
        # After its answer a stream is closed in the same way.
        watch.facts = watch.facts or _cut_off(watch.seconds, deadline)
        raise
    except Exception as error:
        if is_fault(error):
            watch.facts = facts_of_fault(error, watch.seconds)
        raise
    finally:
        part = assigned.enrolled
        counted = assigned.counted and watch.anew
        # Of the champion's requests only the evidence is of use; of the candidate's, whom they reached.
        if part is not None and watch.facts is not None and (counted or part.candidate):
            outcomes.record(
                {
                    "trial": part.trial,
                    "candidate": part.candidate,
                    "counted": counted,
                    "kind": kind,
                    "tenant": tenant,
                    "unit": part.unit,
                    "propensity": part.propensity,
                    "answer": answer,
                    "facts": dict(watch.facts),
                }
            )


def _cut_off(seconds: float, deadline: float) -> Facts:
    if asyncio.get_running_loop().time() < deadline:
        return facts_of_given_up(seconds)
    return facts_of_fault(DeadlineExceeded("The answer was not complete in time."), seconds)
