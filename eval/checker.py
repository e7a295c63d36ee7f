"""Measures the check of answers against sentences that people labelled: is each borne out by its source?

Every set is split in two by a rule that looks at no label. On the first part the weights in `app.support`
were fitted (`fitted` does it again); the figures are of the second, with the threshold and the weights that
ship.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app import evidence
from app.evidence import Evidence, Statement
from app.support import FEW, NEAREST, judged, measures
from eval.types import EvalError
from llm.types import Scorer

PENALTY = 0.5
"""Of the squared weights, against fitting noise."""
NEWTON_STEPS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A sentence, the text it is said to rest on, and whether people found that it does. `group` is the same
    for sentences that are to be compared; `held_out` says that nothing was fitted on it."""

    dataset: str
    group: str
    text: str
    question: str
    source: str
    supported: bool
    held_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the check made of it: `meaning` and `words` are the measures with and without an embedder."""

    item: Labelled
    score: float
    verdict: str
    meaning: Mapping[str, float]
    words: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one set. A sentence counts as found supported from the shipped threshold on. `precision` and
    `recall` are of supported sentences, `caught_precision` and `caught` of those that are not; `ranked` is
    the share of groups whose supported sentence scores higher, None without such groups."""

    dataset: str
    sentences: int
    supported: int
    precision: float
    recall: float
    caught_precision: float
    caught: float
    auc: float
    ranked: float | None


def halueval(file: Path) -> list[Labelled]:
    """HaluEval's questions with the right and an invented answer."""
    found = []
    for number, row in enumerate(_lines(file)):
        for supported, field in ((True, "right_answer"), (False, "hallucinated_answer")):
            found.append(
                Labelled(
                    dataset="halueval",
                    group=str(number),
                    text=row[field],
                    question=row["question"],
                    source=row["knowledge"],
                    supported=supported,
                    held_out=number % 2 == 1,
                )
            )
    return found


def qags(file: Path) -> list[Labelled]:
    """QAGS: sentences of summaries, faithful to the article or not by the majority of three people."""
    return [
        Labelled(
            dataset="qags",
            group=row["id"],
            text=row["sentence"],
            question="",
            source=row["article"],
            supported=row["faithful"],
            held_out=int(row["id"].split("-")[1]) % 2 == 1,
        )
        for row in _lines(file)
    ]


def scifact(folder: Path) -> list[Labelled]:
    """SciFact's claims with the abstracts they cite: supported, contradicted, or neither."""
    texts = {row["_id"]: row["text"] for row in _lines(folder / "corpus.jsonl")}
    found: dict[tuple[str, str], Labelled] = {}
    for file, held_out in (("claims_train.jsonl", False), ("claims_validation.jsonl", True)):
        for row in _lines(folder / file):
            named = [row["evidence_doc_id"]] if row["evidence_doc_id"] else _ids(row["cited_doc_ids"])
            for document in named:
                if document in texts:
                    found[row["id"], document] = Labelled(
                        dataset="scifact",
                        group=f"{row['id']}/{document}",
                        text=row["claim"],
                        question="",
                        source=texts[document],
                        supported=row["evidence_label"] == "SUPPORT",
                        held_out=held_out,
                    )
    return list(found.values())


async def measured(
    items: Sequence[Labelled], score: Scorer, progress: Callable[[str, int, int], None]
) -> list[Measured]:
    """Every sentence checked as an answer's sentences are."""
    read: dict[str, Evidence] = {}
    found = []
    for done, item in enumerate(items, start=1):
        source = read.setdefault(item.source, evidence.read(item.source))
        found.append(await _measured(item, source, score))
        progress("checking", done, len(items))
    return found


async def _measured(item: Labelled, source: Evidence, score: Scorer) -> Measured:
    claim = Statement(item.text)
    agreement = evidence.compare(claim, [source])
    asked = f"{item.question} {item.text}" if len(claim.known) <= FEW else item.text
    near = [window.statement.text for window in evidence.nearest(claim, source, NEAREST)]
    similarity = max(await score("eval", asked, near))
    decided = agreement.quoted or bool(agreement.numbers)
    judgement = judged(agreement, None if decided else similarity)
    return Measured(
        item=item,
        score=judgement.score,
        verdict=judgement.verdict,
        meaning=measures(agreement, similarity),
        words=measures(agreement),
    )


def figures(found: Sequence[Measured]) -> list[Figures]:
    """Of the held-out part of each set, in the order in which they come."""
    held = [one for one in found if one.item.held_out]
    names = dict.fromkeys(one.item.dataset for one in held)
    return [_figures(name, [one for one in held if one.item.dataset == name]) for name in names]


def fitted(found: Sequence[Measured], of: Callable[[Measured], Mapping[str, float]]) -> dict[str, float]:
    """Weights for the measures by logistic regression on the parts that are not held out, in which every set
    and either label weighs the same."""
    train = [one for one in found if not one.item.held_out]
    names = list(of(train[0]))
    table = np.array([[of(one)[name] for name in names] for one in train])
    labels = np.array([float(one.item.supported) for one in train])
    kinds = [(one.item.dataset, one.item.supported) for one in train]
    share = np.array([1 / kinds.count(kind) for kind in kinds])
    weights = _regression(table, labels, share * len(train) / share.sum(), names.index("bias"))
    return {name: round(float(weight), 2) for name, weight in zip(names, weights, strict=True)}


def markdown(rows: Sequence[Figures]) -> str:
    head = (
        "| set | sentences (supported) | precision | recall | unsupported: precision | recall | AUC "
        "| right above wrong |\n|---|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(
        f"| {row.dataset} | {row.sentences} ({row.supported}) | {row.precision:.3f} | {row.recall:.3f} | "
        f"{row.caught_precision:.3f} | {row.caught:.3f} | {row.auc:.3f} | "
        f"{'' if row.ranked is None else f'{row.ranked:.3f}'} |\n"
        for row in rows
    )


def _figures(name: str, found: Sequence[Measured]) -> Figures:
    said = [one.verdict == "supported" for one in found]
    true = [one.item.supported for one in found]
    both = sum(s and t for s, t in zip(said, true, strict=True))
    neither = sum(not s and not t for s, t in zip(said, true, strict=True))
    return Figures(
        dataset=name,
        sentences=len(found),
        supported=sum(true),
        precision=_share(both, sum(said)),
        recall=_share(both, sum(true)),
        caught_precision=_share(neither, len(said) - sum(said)),
        caught=_share(neither, len(true) - sum(true)),
        auc=_auc([one.score for one in found], true),
        ranked=_ranked(found),
    )


def _auc(scores: Sequence[float], true: Sequence[bool]) -> float:
    """The chance that a supported sentence scores higher than another; ties count half."""
    right = np.array([s for s, t in zip(scores, true, strict=True) if t])[:, None]
    wrong = np.array([s for s, t in zip(scores, true, strict=True) if not t])[None, :]
    return float(np.mean((right > wrong) + 0.5 * (right == wrong))) if right.size and wrong.size else math.nan


def _ranked(found: Sequence[Measured]) -> float | None:
    groups: dict[str, dict[bool, float]] = {}
    for one in found:
        groups.setdefault(one.item.group, {})[one.item.supported] = one.score
    pairs = [group for group in groups.values() if len(group) == 2]
    return _share(sum(pair[True] > pair[False] for pair in pairs), len(pairs)) if pairs else None


def _regression(table: Any, labels: Any, share: Any, bias: int) -> Any:
    """Weighted logistic regression by Newton's method; the bias is not penalised."""
    weights = np.zeros(table.shape[1])
    penalty = np.full(table.shape[1], PENALTY)
    penalty[bias] = 1e-9
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-(table @ weights)))
        gradient = table.T @ (share * (p - labels)) + penalty * weights
        hessian = (table * (share * p * (1 - p))[:, None]).T @ table + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        weights = weights - step
        if np.abs(step).max() < 1e-6:
            break
    return weights


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _ids(text: str) -> list[str]:
    return re.findall(r"\d+", text)


def _lines(file: Path) -> Iterable[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise EvalError(f"Cannot read {file}: {error}") from None
