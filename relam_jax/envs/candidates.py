"""Points on the entities that could be followed, found in the first frame without a renderer.

Each pixel of the first frame that shows an entity is lifted to the body it lies on. Of these, C an
entity and view are kept, by the same rule as in the videos (keypoints/sampling.py).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from relam_jax.envs.scene import cast, pixel_centres
from relam_jax.envs.simulator import MjData, MjModel
from relam_jax.geometry import CameraPose, project
from relam_jax.keypoints.sampling import erode, spread_pixels

IMAGE_SIZE = 256
"""pixels a side of the image that candidates are found in: that of the recorded videos."""


class BodyPoints(NamedTuple):
    """Candidates of one initial state: points fixed on bodies."""

    points: Float[np.ndarray, "V E C 2"]
    """float32, image sides, in the first frame."""
    valid: Bool[np.ndarray, "V E C"]
    """False: padding."""
    body: Int[np.ndarray, "V E C"]
    """body ids."""
    local: Float[np.ndarray, "V E C 3"]
    """metres, in the frame of the body."""


def find_candidates(
    model: MjModel,
    data: MjData,
    cameras: tuple[CameraPose, ...],
    entities: tuple[tuple[int, ...], ...],
    count: int,
    rng: np.random.Generator,
) -> BodyPoints:
    """Find `count` candidates a view and entity (its bodies). `data` needs up-to-date kinematics.

    Where an entity shows fewer than `count` pixels the rest is padding; where it shows none, all of
    it is, and lies at the origin of its first body.
    """
    shape = (len(cameras), len(entities), count)
    found = BodyPoints(
        np.zeros((*shape, 2), np.float32),
        np.zeros(shape, bool),
        np.zeros(shape, np.int64),
        np.zeros((*shape, 3)),
    )
    grid = pixel_centres(IMAGE_SIZE)
    for view, camera in enumerate(cameras):
        for entity, bodies in enumerate(entities):
            near = _may_show(model, data, camera, bodies, grid)
            pixels = grid[near]
            surface = cast(model, data, camera, pixels)
            mask = np.zeros(near.shape, bool)
            mask[near] = np.isin(surface.body, bodies)
            ray = np.cumsum(near).reshape(near.shape) - 1  # index into what was cast
            column, row = spread_pixels(erode(mask), count, rng).astype(int).T
            chosen = ray[row, column]
            if len(chosen) == 0:
                found.body[view, entity] = bodies[0]
                found.points[view, entity] = project(data.xpos[bodies[0]], camera)
                continue
            padded = np.resize(chosen, count)
            found.valid[view, entity, : len(chosen)] = True
            found.points[view, entity] = pixels[padded]
            found.body[view, entity] = surface.body[padded]
            found.local[view, entity] = surface.local[padded]
    return found


def label_images(
    model: MjModel,
    data: MjData,
    cameras: tuple[CameraPose, ...],
    entities: tuple[tuple[int, ...], ...],
    size: int,
) -> UInt8[np.ndarray, "V H W"]:
    """Which entity each pixel shows: 0 none, i the i-th from 1. `data` needs up-to-date
    kinematics."""
    out, grid = np.zeros((len(cameras), size, size), np.uint8), pixel_centres(size)
    of_body = np.zeros(model.nbody + 1, np.uint8)  # the last one is for rays that hit nothing
    for number, bodies in enumerate(entities, start=1):
        of_body[list(bodies)] = number
    for view, camera in enumerate(cameras):
        near = _may_show(model, data, camera, tuple(b for bodies in entities for b in bodies), grid)
        out[view][near] = of_body[cast(model, data, camera, grid[near]).body]
    return out


def _may_show(
    model: MjModel,
    data: MjData,
    camera: CameraPose,
    bodies: tuple[int, ...],
    grid: Float[np.ndarray, "H W 2"],
) -> Bool[np.ndarray, "H W"]:
    """Pixels near enough to the bodies to show them: discs around their bounding spheres."""
    near = np.zeros(grid.shape[:2], bool)
    focal = 0.5 / np.tan(0.5 * np.radians(camera.fovy))
    for geom in np.flatnonzero(np.isin(model.geom_bodyid, bodies) & (model.geom_group <= 2)):
        centre, radius = data.geom_xpos[geom], model.geom_rbound[geom]
        depth = (camera.position - centre) @ camera.rotation[:, 2] - radius
        if depth <= 0:  # around or behind the camera
            near[:] |= depth > -2 * radius
            continue
        reach = 1.2 * focal * radius / depth + 2 / len(grid)
        near |= ((grid - project(centre, camera)) ** 2).sum(-1) < reach**2
    return near
