"""Passages about the same thing lend each other score.

A passage close in meaning to others that match well is likely to match too, whatever words it uses: the
cluster hypothesis, as score regularisation (Diaz, "Regularizing query-based retrieval scores", Information
Retrieval 10, 2007). Needs no further question to the store, because hits bring their vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from retrieval.types import Hit, hit_of

_ENOUGH = 10
"""Documents from which a passage's neighbours count in full: where hits are of a few long ones, the best of
each says little about the passages of the others."""

_ON_ONE_THREAD = 1 << 18
"""Multiplications up to which OpenBLAS uses one thread (its SMP_THRESHOLD_MIN times
GEMM_MULTITHREAD_THRESHOLD)."""

_NONE = 1e-30
"""Affinity below which nobody is near."""


def smooth(hits: Sequence[Hit], weight: float, depth: int, most: int | None = None) -> list[Hit]:
    """The best `most` (by default all) of the same hits, best first, with scores in [0, 1], of which none is
    lower than before.

    Each of the best `depth` gets `score + (1 - score) * weight * m`, `m` being the mean score of the others
    weighted by affinity, a power of the cosine of their vectors. So a sure hit stays, and one in doubt
    follows its neighbours. Of a document only the best passage lends, or a long one would vouch for itself;
    the fewer documents lend, the less weight they have. `hits` come best first; a hit without a vector is
    left as it is.
    """
    near = [hit for hit in hits[:depth] if hit.vector is not None]
    if weight == 0 or len(near) < 2:
        return list(hits[:most])
    lenders = _first_of_each(near)
    weight *= min(1.0, (len(lenders) - 1) / _ENOUGH)
    scores = np.array([hit.score for hit in near])
    vectors = np.concatenate([hit.vector for hit in near if hit.vector is not None]).reshape(len(near), -1)
    raised = scores + (1 - scores) * weight * _neighbours(vectors, lenders, scores[lenders])
    rated = [
        (-score, hit.chunk.id, hit) for hit, score in zip(near, np.minimum(raised, 1).tolist(), strict=True)
    ]
    rated += [(-hit.score, hit.chunk.id, hit) for hit in hits[:depth] if hit.vector is None]
    rated.sort()
    smoothed = [hit_of((hit.chunk, -score, hit.vector)) for score, _, hit in rated[:most]]
    return [*smoothed, *hits[depth:most]]


def _first_of_each(hits: Sequence[Hit]) -> list[int]:
    """The places of the best passages of each document."""
    first: dict[str, int] = {}
    for number, hit in enumerate(hits):
        first.setdefault(hit.chunk.document_id, number)
    return list(first.values())


def _neighbours(
    vectors: npt.NDArray[np.float32], lenders: Sequence[int], lent: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """For each the affinity-weighted mean of what the others lend; 0 where none is near.

    Affinity is the cosine to the power of 4.5: at 0.5 a neighbour counts a 23rd of one that says the same.
    """
    cosines = _cosines(vectors, vectors if len(lenders) == len(vectors) else vectors[lenders])
    np.maximum(cosines, 0, out=cosines)
    # A fifth of the time that the general power takes.
    affinity = np.sqrt(cosines)
    np.square(np.square(cosines, out=cosines), out=cosines)
    affinity *= cosines
    affinity[lenders, np.arange(len(lenders))] = 0  # of each to itself
    mean: npt.NDArray[np.float64] = (affinity @ lent) / np.maximum(affinity.sum(axis=1), _NONE)
    return mean


def _cosines(vectors: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Of each to each, by blocks that OpenBLAS multiplies on the calling thread: its threads wait for one
    another, which on a busy machine takes a thousand times as long."""
    count, dimension = others.shape
    rows = max(1, _ON_ONE_THREAD // (count * dimension))
    found = np.empty((len(vectors), count), dtype=np.float32)
    for at in range(0, len(vectors), rows):
        np.matmul(vectors[at : at + rows], others.T, out=found[at : at + rows])
    return found
