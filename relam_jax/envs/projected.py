"""Keypoints without a tracker: points fixed on bodies, projected through the cameras (an oracle).

All environments at once, in numpy or, where the simulator's poses are jax arrays, on their device.
Axes as in `protocol`: N, V, E, K.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from relam_jax.envs.candidates import BodyPoints
from relam_jax.envs.scene import VISIBLE_GROUPS
from relam_jax.envs.simulator import MjData, MjModel, mujoco
from relam_jax.geometry import Array, CameraPose, project

_OCCLUSION_TOLERANCE = 0.01
"""metres: a point is hidden when something lies this much in front of it."""
_BEHIND = -1.0
"""image point (both coordinates) that stands for a point behind the camera."""


class FollowedPoints(NamedTuple):
    """The candidates that each environment follows through its episode."""

    valid: Bool[Array, "N V E K"]
    """False: padding."""
    slot: Int[Array, "N V E K"]
    """the body it lies on, as a row of the poses."""
    local: Float[Array, "N V E K 3"]
    """metres, in the body's frame."""

    @classmethod
    def of(
        cls,
        found: Sequence[BodyPoints],
        indices: Int[np.ndarray, "N V E K"],
        bodies: Int[np.ndarray, " B"],
    ) -> FollowedPoints:
        """`found`: the candidates of each environment; `bodies`: the sorted ids they lie on."""

        def chosen(values: Sequence[np.ndarray]) -> np.ndarray:
            stacked = np.stack(values)
            index = indices.reshape(indices.shape + (1,) * (stacked.ndim - indices.ndim))
            return np.take_along_axis(stacked, index, axis=3)

        slot = np.searchsorted(bodies, chosen([f.body for f in found]))
        return cls(chosen([f.valid for f in found]), slot, chosen([f.local for f in found]))

    def world(
        self, xpos: Float[Array, "N B 3"], xmat: Float[Array, "N B 9"]
    ) -> Float[Array, "N V E K 3"]:
        """Where the points are, metres, given the poses of the bodies."""
        row = np.arange(len(xpos))[:, None, None, None]
        turn = xmat[row, self.slot].reshape(*self.slot.shape, 3, 3)
        return xpos[row, self.slot] + (turn @ self.local[..., None])[..., 0]


def image_points(
    world: Float[Array, "N V E K 3"], cameras: tuple[CameraPose, ...]
) -> tuple[Float[Array, "N V E K 2"], Bool[Array, "N V E K"]]:
    """(float32 points in image sides, whether they lie inside the image). Never NaN."""
    xp = world.__array_namespace__()
    views = [project(world[:, v], camera) for v, camera in enumerate(cameras)]
    points = xp.nan_to_num(xp.stack(views, axis=1), nan=_BEHIND).astype(np.float32)
    return points, ((points >= 0) & (points <= 1)).all(-1)


def hidden(
    model: MjModel,
    data: MjData,
    world: Float[np.ndarray, "V E K 3"],
    cameras: tuple[CameraPose, ...],
) -> Bool[np.ndarray, "V E K"]:
    """Whether something lies in front of each point of one environment (a ray from the camera)."""
    out = np.zeros(world.shape[:-1], bool)
    count = out[0].size
    geom, distance = np.zeros(count, np.int32), np.zeros(count)
    for view, camera in enumerate(cameras):
        ray = world[view].reshape(-1, 3) - camera.position
        length = np.linalg.norm(ray, axis=-1)
        unit = (ray / length[:, None]).ravel()
        mujoco.mj_multiRay(
            model, data, camera.position, unit, VISIBLE_GROUPS, 1, -1, geom, distance, count, 1e6
        )
        blocked = (geom >= 0) & (distance < length - _OCCLUSION_TOLERANCE)
        out[view] = blocked.reshape(out.shape[1:])
    return out
