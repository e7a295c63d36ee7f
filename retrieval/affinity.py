"""Passages about the same thing lend each other score.

A passage close in meaning to others that match well is likely to match too, whatever words it uses: the
cluster hypothesis, as score regularisation (Diaz, "Regularizing query-based retrieval scores", Information
Retrieval 10, 2007). Needs no further question to the store, because hits bring their vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retrieval.types import Hit

_ENOUGH = 10
"""Documents from which a passage's neighbours count in full: where hits are of a few long ones, the best of
each says little about the passages of the others."""

_ON_ONE_THREAD = 1 << 18
"""Multiplications up to which OpenBLAS uses one thread (its SMP_THRESHOLD_MIN times
GEMM_MULTITHREAD_THRESHOLD)."""

Scores = npt.NDArray[np.float32]


def smooth(hits: Sequence[Hit], weight: float, depth: int) -> list[Hit]:
    """The same hits, best first, with scores in [0, 1], of which none is lower than before.

    Each of the best `depth` gets `score + (1 - score) * weight * m`, `m` being the mean score of the others
    weighted by affinity, a power of the cosine of their vectors. So a sure hit stays, and one in doubt
    follows its neighbours. Of a document only the best passage lends, or a long one would vouch for itself;
    the fewer documents lend, the less weight they have. `hits` come best first; a hit without a vector is
    left as it is.
    """
    near = [hit for hit in hits[:depth] if hit.vector is not None]
    if weight == 0 or len(near) < 2:
        return list(hits)
    lends = _first_of_each(near)
    weight *= min(1.0, (float(lends.sum()) - 1) / _ENOUGH)
    scores = np.array([hit.score for hit in near])
    vectors = np.concatenate([hit.vector for hit in near if hit.vector is not None]).reshape(len(near), -1)
    raised = scores + (1 - scores) * weight * _neighbours(vectors, scores.astype(np.float32), lends)
    new = np.maximum(scores, np.minimum(raised, 1)).tolist()
    rated = [(-score, hit.chunk.id, hit) for hit, score in zip(near, new, strict=True)]
    rated += [(-hit.score, hit.chunk.id, hit) for hit in hits[:depth] if hit.vector is None]
    rated.sort()
    return [*(Hit(hit.chunk, -score, hit.vector) for score, _, hit in rated), *hits[depth:]]


def _first_of_each(hits: Sequence[Hit]) -> npt.NDArray[np.float32]:
    """1 for the best passage of each document, 0 for the others."""
    first: dict[str, int] = {}
    for number, hit in enumerate(hits):
        first.setdefault(hit.chunk.document_id, number)
    lends = np.zeros(len(hits), dtype=np.float32)
    lends[list(first.values())] = 1
    return lends


def _neighbours(vectors: npt.NDArray[np.float32], scores: Scores, lends: Scores) -> Scores:
    """For each the affinity-weighted mean score of the others that lend; 0 where none is near.

    Affinity is the cosine to the power of 4.5: at 0.5 a neighbour counts a 23rd of one that says the same.
    """
    cosines = np.maximum(_cosines(vectors), 0)
    # A fifth of the time that the general power takes.
    affinity = np.square(np.square(cosines)) * np.sqrt(cosines)
    affinity.ravel()[:: len(affinity) + 1] = 0  # of each to itself
    affinity *= lends
    total = affinity.sum(axis=1)
    mean: Scores = np.divide(affinity @ scores, total, out=np.zeros_like(scores), where=total > 0)
    return np.minimum(mean, 1)


def _cosines(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of each to each, by blocks that OpenBLAS multiplies on the calling thread: its threads wait for one
    another, which on a busy machine takes a thousand times as long."""
    count, dimension = vectors.shape
    rows = max(1, _ON_ONE_THREAD // (count * dimension))
    return np.concatenate([vectors[at : at + rows] @ vectors.T for at in range(0, count, rows)])
