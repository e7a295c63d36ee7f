"""What the service recorded of a trial that ended badly, put together as `postmortem` reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from app.cli.client import Client
from app.cli.paths import release as at
from app.release import parse_release
from eval.types import EvalError, ReleaseRef

BADLY = ("rolled_back", "failed")

Body = Mapping[str, Any]


def record(client: Client, reference: str) -> dict[str, Any]:
    """Of a release, the latest trial that was rolled back or failed. Raises `EvalError` without one."""
    found = client.get(at(reference, "trials"))
    ended = [trial for trial in found["trials"] if trial["state"] in BADLY]
    if not ended:
        raise EvalError(f"No trial of release {found['id']} was rolled back or failed.")
    trial = ended[-1]
    affected = trial["affected"]
    return {
        "trial": trial["id"],
        "kind": trial["kind"],
        "candidate": _ref(client.get(at(trial["release"]))),
        "champion": _ref(client.get(at(trial["control"]))),
        "started_at": trial["started_at"],
        "steps": list(_steps(trial, found["audit"])),
        "evidence": list(_evidence(trial)),
        "decision": _decision(trial),
        "forced": found["forced"],
        "affected": affected["parts"],
        "timeline": [_entry(entry) for entry in found["audit"]],
        "first_request": affected["first"],
        "last_request": affected["last"],
    }


def _entry(entry: Body) -> dict[str, Any]:
    """Of the evidence only why: its numbers have a place of their own."""
    told = {name: value for name, value in entry["evidence"].items() if name not in ("evidence", "trial")}
    if decision := told.get("decision"):
        told["decision"] = decision.get("why", "")
    return {**entry, "evidence": told}


def _ref(told: Body) -> dict[str, Any]:
    release = parse_release(json.dumps(told["release"]))
    return asdict(
        ReleaseRef(
            id=release.id,
            name=release.name,
            fingerprint=release.fingerprint,
            canonical=release.canonical(),
        )
    )


def _steps(trial: Body, audit: list[Body]) -> Iterator[dict[str, Any]]:
    """The first, with which it began, and those that the audit holds; `units` as they were by then."""
    planned = trial["evidence"].get("steps") or [{"share": trial["plan"].get("share", 1.0)}]
    yield {"at": trial["started_at"], "share": planned[0]["share"]}
    for entry in audit:
        told = entry["evidence"]
        if entry["what"] == "release.step" and told["trial"] == trial["id"]:
            units = told["evidence"].get("units", {}).get("candidate", 0)
            yield {"at": entry["at"], "share": told["share"], "units": units}


def _evidence(trial: Body) -> Iterator[dict[str, Any]]:
    """The e-values over time, and those on which it was decided."""
    last = (trial["decision"] or {}).get("evidence") or trial["evidence"]
    thresholds = {one["metric"]: one["threshold"] for one in last.get("metrics", ())}
    begin = datetime.fromisoformat(trial["started_at"])
    for seconds, values in last.get("path", ()):
        for metric, e_value in values.items():
            point = (begin + timedelta(seconds=seconds)).isoformat()
            yield _point(point, metric, e_value, thresholds[metric])
    for one in last.get("metrics", ()):
        # A test that has rejected has done so for good, whatever its value is by the end.
        rejected = one["highest"] >= one["threshold"]
        e_value = one["highest"] if rejected else one["e_value"]
        yield _point(trial["ended_at"], one["metric"], e_value, one["threshold"])


def _point(moment: str, metric: str, e_value: float, threshold: float) -> dict[str, Any]:
    return {"at": moment, "metric": metric, "e_value": e_value, "threshold": threshold}


def _decision(trial: Body) -> dict[str, Any]:
    decision = trial["decision"] or {}
    return {
        "at": trial["ended_at"],
        "outcome": trial["state"],
        "reason": decision.get("why", "No reason was kept."),
        "metric": decision.get("metric"),
    }
