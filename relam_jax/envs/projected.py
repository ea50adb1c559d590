"""Keypoints without a tracker: points fixed on bodies, projected through the cameras (an oracle).

All environments at once, in numpy. Axes as in `protocol`: N, V, E, K.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from relam_jax.envs.candidates import BodyPoints
from relam_jax.envs.scene import VISIBLE_GROUPS
from relam_jax.envs.simulator import MjData, MjModel, mujoco
from relam_jax.geometry import CameraPose, project

_OCCLUSION_TOLERANCE = 0.01
"""metres: a point is hidden when something lies this much in front of it."""
_BEHIND = -1.0
"""image point (both coordinates) that stands for a point behind the camera."""


class FollowedPoints:
    """The candidates that each environment follows through its episode."""

    def __init__(
        self,
        found: Sequence[BodyPoints],
        indices: Int[np.ndarray, "N V E K"],
        bodies: Int[np.ndarray, " B"],
    ) -> None:
        """`found`: the candidates of each environment; `bodies`: the sorted ids they lie on."""

        def chosen(values: Sequence[np.ndarray]) -> np.ndarray:
            stacked = np.stack(values)
            index = indices.reshape(indices.shape + (1,) * (stacked.ndim - indices.ndim))
            return np.take_along_axis(stacked, index, axis=3)

        self.valid: np.ndarray = chosen([f.valid for f in found])
        self._slot = np.searchsorted(bodies, chosen([f.body for f in found]))
        self._local = chosen([f.local for f in found])
        self._row = np.arange(len(found))[:, None, None, None]

    def world(
        self, xpos: Float[np.ndarray, "N B 3"], xmat: Float[np.ndarray, "N B 9"]
    ) -> Float[np.ndarray, "N V E K 3"]:
        """Where the points are, metres, given the poses of the bodies."""
        turn = xmat[self._row, self._slot].reshape(*self._slot.shape, 3, 3)
        turned = np.matmul(turn, self._local[..., None])[..., 0]
        return xpos[self._row, self._slot] + turned


def image_points(
    world: Float[np.ndarray, "N V E K 3"], cameras: tuple[CameraPose, ...]
) -> tuple[Float[np.ndarray, "N V E K 2"], Bool[np.ndarray, "N V E K"]]:
    """(float32 points in image sides, whether they lie inside the image). Never NaN."""
    views = [project(world[:, v], camera) for v, camera in enumerate(cameras)]
    points = np.nan_to_num(np.stack(views, axis=1), nan=_BEHIND).astype(np.float32)
    return points, np.all((points >= 0) & (points <= 1), axis=-1)


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
