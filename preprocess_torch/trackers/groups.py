"""How the points of an entity move together, where each of them says what it knows.

A point on a corner knows its step, one on an edge only the part across the edge, one on a plain
surface nothing. So each step comes with a gain, a 2 × 2 matrix between 0 (knows nothing) and 1, and
a motion is the affine one that fits the steps where the gains say that they are known.

An entity need not be rigid: the fingers of a gripper slide against its hand, and a handle stands
off its door. So each point has an affine motion of its own, to which near points, and those that
have kept their place towards it so far, say most; where these know little it is the entity's.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

_UNIT = 20.0
"""pixels that count as one in the linear terms."""
_ROUNDS = 2
"""of reweighting."""


class Group:
    """The points of one entity and how they have moved against its common motion so far."""

    def __init__(self, start: Float[np.ndarray, "Q 2"], near: float, kept: float):
        self.start = start.astype(np.float64)
        self._near, self._kept = near, kept
        apart = np.linalg.norm(self.start[:, None] - self.start[None], axis=-1)
        self._apart, self._drift = apart, np.zeros_like(apart)
        self._weight = self._companionship()

    def _companionship(self) -> np.ndarray:
        close = 1 / (1 + (self._apart / self._near) ** 2)
        loyal = 1 / (1 + (self._drift / (self._kept * (10 + self._apart))) ** 2) ** 2
        return close * loyal + 1e-4

    def observe(self, points: Float[np.ndarray, "Q 2"], seen: Bool[np.ndarray, " Q"]) -> None:
        """Take in where the seen points are now."""
        if seen.sum() < 2:
            return
        gain = np.tile(np.eye(2), (len(points), 1, 1)) * seen[:, None, None]
        common = self.motion(self.start, points, gain, 2.0, local=False)[0]
        off = points - common
        against = np.linalg.norm(off[:, None] - off[None], axis=-1)
        both = seen[:, None] & seen[None]
        self._drift = np.where(both, np.maximum(self._drift, against), self._drift)
        self._weight = self._companionship()

    def motion(
        self,
        before: Float[np.ndarray, "Q 2"],
        after: Float[np.ndarray, "Q 2"],
        gain: Float[np.ndarray, "Q 2 2"],
        scale: float,
        local: bool = True,
    ) -> tuple[Float[np.ndarray, "Q 2"], Float[np.ndarray, " Q"]]:
        """Where each point of `before` goes with its companions, and by what factor areas change
        there (negative: turned over).

        Residuals beyond `scale` pixels lose their say.
        """
        step = after - before
        centre = before.mean(0)
        y = np.concatenate([np.ones((len(before), 1)), (before - centre) / _UNIT], 1)
        outer = (y[:, :, None] * y[:, None, :]).reshape(-1, 1, 9)
        moment = (gain.reshape(-1, 4, 1) * outer).reshape(-1, 36)
        ridge = np.diag([1e-6, 1.0, 1.0, 1e-6, 1.0, 1.0]) * 0.003
        tie = np.eye(6)
        # the entity's
        theta = np.zeros(6)
        left = step
        robust = np.ones(len(before))
        for _ in range(5):
            right = (gain @ step[:, :, None])[:, :, 0]
            right = (right[:, :, None] * y[:, None, :]).reshape(-1, 6)
            theta = np.linalg.solve(_square(robust @ moment)[0] + ridge, robust @ right)
            left = step - y @ theta.reshape(2, 3).T
            robust = 1 / (1 + ((gain @ left[:, :, None])[:, :, 0] ** 2).sum(-1) / scale**2)
        common = before + step - left
        if not local:
            return common, np.ones(len(before))
        # each point's deviation from it
        right = (gain @ left[:, :, None])[:, :, 0]
        right = (right[:, :, None] * y[:, None, :]).reshape(-1, 6)
        weight = self._weight
        delta = np.zeros((len(before), 2, 3))
        for _ in range(_ROUNDS):
            total = (weight @ moment).reshape(-1, 36)
            delta = np.linalg.solve(_square(total) + tie, (weight @ right)[..., None])
            delta = delta.reshape(-1, 2, 3)
            off = left.T - delta @ y.T  # (i, 2, j): of point j from the motion of point i
            x = gain[:, 0, 0] * off[:, 0] + gain[:, 0, 1] * off[:, 1]
            z = gain[:, 1, 0] * off[:, 0] + gain[:, 1, 1] * off[:, 1]
            weight = self._weight / (1 + (x * x + z * z) / scale**2)
        jac = np.eye(2) + (theta.reshape(2, 3) + delta)[:, :, 1:] / _UNIT
        return common + np.einsum("iab,ib->ia", delta, y), np.linalg.det(jac)


def _square(moment: np.ndarray) -> np.ndarray:
    """(…, 36) sums of gain ⊗ y yᵀ → (…, 6, 6) in the order of the six parameters."""
    m = moment.reshape(-1, 2, 2, 3, 3)
    return m.transpose(0, 1, 3, 2, 4).reshape(-1, 6, 6)


def gains(
    patches: Float[np.ndarray, "Q P 3"], valid: Float[np.ndarray, "Q P"], texture: float
) -> Float[np.ndarray, "Q 2 2"]:
    """G (G + c)⁻¹ with G the structure tensor of a patch, c the energy of a mean gradient
    `texture`.

    Pixels that are not `valid`, and their neighbours, do not count.
    """
    side = int(np.sqrt(patches.shape[1]))
    grid = patches.reshape(-1, side, side, 3)
    ok = valid.reshape(-1, side, side)
    ok = ok[:, 1:-1, 2:] * ok[:, 1:-1, :-2] * ok[:, 2:, 1:-1] * ok[:, :-2, 1:-1]
    ok = ok[..., None]
    dx = (grid[:, 1:-1, 2:] - grid[:, 1:-1, :-2]) / 2 * ok
    dy = (grid[:, 2:, 1:-1] - grid[:, :-2, 1:-1]) / 2 * ok
    xx, xy, yy = (dx * dx).mean((1, 2, 3)), (dx * dy).mean((1, 2, 3)), (dy * dy).mean((1, 2, 3))
    c = texture**2
    # (G + c)⁻¹ = [[yy + c, −xy], [−xy, xx + c]] / det, and G (G + c)⁻¹ = 1 − c (G + c)⁻¹
    det = (xx + c) * (yy + c) - xy * xy
    inverse = np.stack([yy + c, -xy, -xy, xx + c], -1).reshape(-1, 2, 2) / det[:, None, None]
    return np.eye(2) - c * inverse
