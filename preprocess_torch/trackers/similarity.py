"""Move lost points with the visible points of their entity that have moved as they did.

An entity need not be rigid: the fingers of a gripper slide against its hand. So each point has
companions, the visible points whose offset from it has stayed the same so far, near ones first,
and follows the similarity (rotation, scale, shift) that fits its companions' last step.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

COMPANIONS = 12
"""points to which a similarity is fitted."""
MIN_COMPANIONS = 4
"""with fewer a lost point stays where it is."""


class Companions:
    """Running record of how far each pair of points has moved against each other."""

    def __init__(self, queries: Float[np.ndarray, "Q 2"], entity_id: Int[np.ndarray, " Q"]):
        self._start = queries.astype(np.float64)
        offsets = self._start[:, None] - self._start[None]
        self._apart = np.sqrt((offsets**2).sum(-1))
        self.drift = np.zeros_like(self._apart)
        self._other = (entity_id[:, None] != entity_id[None]) | np.eye(len(queries), dtype=bool)

    def observe(self, points: Float[np.ndarray, "Q 2"], visible: Bool[np.ndarray, " Q"]) -> None:
        """Take in where the visible points are now."""
        moved = points - self._start
        against = np.sqrt(((moved[:, None] - moved[None]) ** 2).sum(-1))
        both = visible[:, None] & visible[None]
        self.drift = np.where(both, np.maximum(self.drift, against), self.drift)

    def _nearest(
        self, wanted: Int[np.ndarray, " n"], seen: Bool[np.ndarray, " Q"]
    ) -> tuple[Int[np.ndarray, "n k"], Bool[np.ndarray, "n k"]]:
        """The companions of each point, best first, and which of them are any."""
        # a point that is far away drifts by rotation and scale alone: hence the ratio
        cost = self.drift[wanted] / (10 + self._apart[wanted]) + 1e-3 * self._apart[wanted]
        cost = np.where(seen[None] & ~self._other[wanted], cost, np.inf)
        nearest = np.argsort(cost, axis=1, kind="stable")[:, :COMPANIONS]
        return nearest, np.isfinite(np.take_along_axis(cost, nearest, axis=1))

    def agreeing(
        self,
        before: Float[np.ndarray, "Q 2"],
        after: Float[np.ndarray, "Q 2"],
        seen: Bool[np.ndarray, " Q"],
        within: float,
    ) -> Int[np.ndarray, " Q"]:
        """How many companions of each point have made the same step, up to `within` pixels."""
        nearest, usable = self._nearest(np.arange(len(before)), seen)
        step = after - before
        apart = np.linalg.norm(step[nearest] - step[:, None], axis=-1)
        return (usable & (apart < within)).sum(1)

    def predict(
        self,
        before: Float[np.ndarray, "Q 2"],
        after: Float[np.ndarray, "Q 2"],
        seen: Bool[np.ndarray, " Q"],
        wanted: Int[np.ndarray, " n"],
    ) -> Float[np.ndarray, "n 2"]:
        """Where the points `wanted` (indices) go, given the step `before` → `after` of the points
        `seen`."""
        if len(wanted) == 0:
            return np.zeros((0, 2))
        nearest, usable = self._nearest(wanted, seen)
        start, end = _complex(before)[nearest], _complex(after)[nearest]
        weight = usable.astype(np.float64)
        turn, shift = np.ones(len(wanted), complex), np.zeros(len(wanted), complex)
        for _ in range(4):  # reweighted least squares: outliers lose their say
            turn, shift = _fit(start, end, weight)
            residual = abs(turn[:, None] * start + shift[:, None] - end)
            weight = usable / (1 + (residual / 0.5) ** 2)
        here = _complex(before)[wanted]
        there = np.where(usable.sum(1) >= MIN_COMPANIONS, turn * here + shift, here)
        return np.stack([np.real(there), np.imag(there)], axis=-1)


def _complex(points: np.ndarray) -> np.ndarray:
    return points[..., 0] + 1j * points[..., 1]


def _fit(start: np.ndarray, end: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted least squares of `end = turn · start + shift` over the last axis, in complex
    numbers."""
    total = np.maximum(weight.sum(-1), 1e-9)
    mean_start, mean_end = (weight * start).sum(-1) / total, (weight * end).sum(-1) / total
    centred_start, centred_end = start - mean_start[:, None], end - mean_end[:, None]
    spread = (weight * abs(centred_start) ** 2).sum(-1)
    product = (weight * centred_start.conj() * centred_end).sum(-1)
    # clumped companions say nothing about rotation: a prior of 4 px² an axis pulls towards a pure
    # shift
    turn = (product + 4 * total) / (spread + 4 * total)
    return turn, mean_end - turn * mean_start
