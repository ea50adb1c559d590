"""What cameras see, without OpenGL: camera poses of a model and label images by ray casting."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from relam_jax.envs.simulator import MjData, MjModel, mujoco
from relam_jax.envs.tasks import Camera
from relam_jax.geometry import CameraPose

VISIBLE_GROUPS = np.array([1, 1, 1, 0, 0, 0], np.uint8)
"""The geom groups that a camera shows; the others are collision shapes."""


class Surface(NamedTuple):
    """What each pixel (or ray) of one view hits."""

    body: Int[np.ndarray, "*P"]
    """body id, −1 where nothing is hit."""
    local: Float[np.ndarray, "*P 3"]
    """the point hit, metres, in the frame of its body; zero where nothing is hit."""
    depth: Float[np.ndarray, "*P"]
    """metres along the optical axis, inf where nothing is hit."""


def camera_pose(model: MjModel, camera: Camera) -> CameraPose:
    """The upright pose of a camera that is fixed in the world (square images).

    Raises ValueError if the model has no such camera or if it is mounted on a moving body.
    """
    if camera.position and camera.target and camera.fovy:
        position = np.array(camera.position)
        rotation = _look_at(position, np.array(camera.target))
        return CameraPose(position, rotation, camera.fovy)
    index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, camera.name)
    if index < 0 or model.cam_bodyid[index] != 0:
        raise ValueError(f"the model has no camera {camera.name!r} that is fixed in the world")
    position = np.array(model.cam_pos[index] if camera.position is None else camera.position)
    if camera.target is None:
        matrix = np.zeros(9)
        mujoco.mju_quat2Mat(matrix, model.cam_quat[index])
        rotation = matrix.reshape(3, 3)
    else:
        rotation = _look_at(position, np.array(camera.target))
    if rotation[2, 1] < 0:  # its y axis points down: roll by 180° about the optical axis
        rotation = rotation * np.array([-1.0, -1.0, 1.0])
    fovy = float(model.cam_fovy[index]) if camera.fovy is None else camera.fovy
    return CameraPose(position, rotation, fovy)


def _look_at(position: np.ndarray, target: np.ndarray) -> Float[np.ndarray, "3 3"]:
    """An upright camera's axes."""
    back = position - target
    back /= np.linalg.norm(back)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(back, right), back], axis=1)


def pixel_centres(size: int) -> Float[np.ndarray, "H W 2"]:
    """Image points (image sides) of the pixel centres of a square image."""
    centre = (np.arange(size) + 0.5) / size
    return np.stack(np.meshgrid(centre, centre), axis=-1)


def rays(points: Float[np.ndarray, "*P 2"], camera: CameraPose) -> Float[np.ndarray, "*P 3"]:
    """Rays through image points: directions, world frame, one metre long along the optical axis."""
    half = np.tan(0.5 * np.radians(camera.fovy))
    x = (2 * points[..., 0] - 1) * half * camera.aspect
    y = (1 - 2 * points[..., 1]) * half
    return np.stack([x, y, -np.ones_like(x)], axis=-1) @ camera.rotation.T


def cast(
    model: MjModel,
    data: MjData,
    camera: CameraPose,
    points: Float[np.ndarray, "*P 2"],
) -> Surface:
    """What the rays through image points hit. `data` needs up-to-date kinematics."""
    direction = rays(points, camera).reshape(-1, 3)
    length = np.linalg.norm(direction, axis=-1)
    geom = np.full(len(direction), -1, np.int32)
    distance = np.full(len(direction), -1.0)
    unit = (direction / length[:, None]).ravel()
    mujoco.mj_multiRay(
        model, data, camera.position, unit, VISIBLE_GROUPS, 1, -1, geom, distance, len(geom), 1e6
    )
    hit = geom >= 0
    body = np.where(hit, model.geom_bodyid[geom], -1)
    depth = np.where(hit, distance / length, np.inf)
    world = camera.position + np.where(hit, depth, 0)[:, None] * direction
    offset = world - data.xpos[body]
    local = np.einsum("pji,pj->pi", data.xmat[body].reshape(-1, 3, 3), offset)
    local[~hit] = 0
    shape = points.shape[:-1]
    return Surface(body.reshape(shape), local.reshape(*shape, 3), depth.reshape(shape))
