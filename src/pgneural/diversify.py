"""Choosing among hits: unlike one another (maximal marginal relevance), few of a group, on the right side of pairs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgneural.types import Distance, Vector


def mmr(
    scores: Sequence[float], vectors: Vector, k: int, diversity: float, distance: Distance = Distance.COSINE
) -> list[int]:
    """Return the places of k candidates, each the best of those left: good, and unlike those chosen before.

    Carbonell and Goldstein 1998, with the scores put between 0 and 1.

    Args:
        scores: Of each candidate, larger is better; only their order and distances matter.
        vectors: Of each candidate, shape (n, d).
        k: How many to choose.
        diversity: 0 keeps the ranking, 1 looks at nothing but how unlike the candidates are.
        distance: How the vectors are compared; of inner products, only the direction counts.
    """
    relevance = np.asarray(scores, dtype=np.float64)
    spread = np.ptp(relevance) if len(relevance) else 0.0
    relevance = (relevance - relevance.min()) / spread if spread > 0 else np.ones_like(relevance)
    direction = Distance.COSINE if distance is Distance.INNER_PRODUCT else distance
    chosen: list[int] = []
    nearest: NDArray[Any] = np.zeros(len(relevance))  # to those chosen so far
    while len(chosen) < min(k, len(relevance)):
        worth = (1 - diversity) * relevance - diversity * nearest
        worth[chosen] = -np.inf
        best = int(np.argmax(worth))
        chosen.append(best)
        like_it = likeness(vectors, vectors[best : best + 1], direction)[:, 0]
        nearest = like_it if len(chosen) == 1 else np.maximum(nearest, like_it)
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


def agreement(vectors: Vector, context: Vector, distance: Distance = Distance.COSINE) -> NDArray[np.int64]:
    """Return for each vector of how many pairs more it is nearer to the first than to the second.

    The ranking of discovery searches (Qdrant's documentation, "Discovery API"): the pairs cut the space in two, and
    a vector counts by the halves that it is in, not by how far.

    Args:
        vectors: Shape (n, d).
        context: Shape (pairs, 2, d).
        distance: How they are compared.
    """
    like = likeness(vectors, context.reshape(-1, context.shape[-1]), distance)
    return np.asarray(np.sign(like[:, 0::2] - like[:, 1::2]).sum(axis=1), dtype=np.int64)


def likeness(vectors: Vector, others: Vector, distance: Distance) -> Vector:
    """Return the scores of vectors, shape (n, d), to others, shape (m, d), as (n, m); as ``neural.score`` has them."""
    if distance in (Distance.COSINE, Distance.INNER_PRODUCT):
        both = (unit(vectors), unit(others)) if distance is Distance.COSINE else (vectors, others)
        return np.asarray(both[0] @ both[1].T, dtype=np.float32)
    return np.stack([1 / (1 + _distances(vectors, other, distance)) for other in others], axis=1)


def _distances(vectors: Vector, other: Vector, distance: Distance) -> Vector:
    apart = np.abs(vectors - other)
    if distance is Distance.L2:
        return np.asarray(np.linalg.norm(apart, axis=1), dtype=np.float32)
    if distance is Distance.JACCARD:
        either = np.maximum(vectors, other).sum(axis=1)
        return np.asarray(apart.sum(axis=1) / np.maximum(either, 1), dtype=np.float32)
    return np.asarray(apart.sum(axis=1), dtype=np.float32)


def unit(vectors: Vector) -> Vector:
    """Return vectors, shape (n, d), at length 1; zero stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: Vector = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return directions


def hashable(value: Any) -> Hashable:
    """Return a value of a column as one that can be counted by: a list or an object as its JSON."""
    return json.dumps(value, default=str, sort_keys=True) if isinstance(value, (list, dict)) else value
