"""Choosing among hits: unlike one another (maximal marginal relevance), few of a group, on the right side of pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from pgneural.types import Vector


def mmr(scores: Sequence[float], vectors: Vector, k: int, diversity: float) -> list[int]:
    """Return the places of k candidates, each the best of those left: good, and unlike those chosen before.

    Carbonell and Goldstein 1998, with the scores put between 0 and 1.

    Args:
        scores: Of each candidate, larger is better; only their order and distances matter.
        vectors: Of each candidate, shape (n, d).
        k: How many to choose.
        diversity: 0 keeps the ranking, 1 looks at nothing but how unlike the candidates are.
    """
    relevance = np.asarray(scores, dtype=np.float64)
    spread = np.ptp(relevance) if len(relevance) else 0.0
    relevance = (relevance - relevance.min()) / spread if spread > 0 else np.ones_like(relevance)
    directions = unit(vectors)
    chosen: list[int] = []
    nearest = np.zeros(len(relevance))  # to those chosen so far
    while len(chosen) < min(k, len(relevance)):
        worth = (1 - diversity) * relevance - diversity * nearest
        worth[chosen] = -np.inf
        best = int(np.argmax(worth))
        chosen.append(best)
        likeness = directions @ directions[best]
        nearest = likeness if len(chosen) == 1 else np.maximum(nearest, likeness)
    return chosen


def few_of_each(groups: Sequence[Hashable], each: int) -> list[int]:
    """Return the places of the first so many candidates of each group, in order."""
    taken: Counter[Hashable] = Counter()
    places = []
    for place, group in enumerate(groups):
        taken[group] += 1
        if taken[group] <= each:
            places.append(place)
    return places


def agreement(vectors: Vector, context: Vector) -> NDArray[np.int64]:
    """Return for each vector of how many pairs more it is nearer to the first than to the second.

    The ranking of discovery searches (Qdrant's documentation, "Discovery API"): the pairs cut the space in two, and
    a vector counts by the halves that it is in, not by how far.

    Args:
        vectors: Shape (n, d).
        context: Shape (pairs, 2, d).
    """
    likeness = unit(vectors) @ unit(context.reshape(-1, context.shape[-1])).T
    sides = np.sign(likeness[:, 0::2] - likeness[:, 1::2])
    return np.asarray(sides.sum(axis=1), dtype=np.int64)


def unit(vectors: Vector) -> Vector:
    """Return vectors, shape (n, d), at length 1; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: Vector = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return directions
