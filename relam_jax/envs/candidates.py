"""Points on the entities that could be followed, found in the first frame without a renderer.

Each pixel of the first frame that shows an entity is lifted to the body it lies on. Of these, C an
entity and view are kept, the same number from each body (on a whole drawer unit, only 8 of 32 would
lie on the part that moves), away from outlines where there is a choice, spread as far as possible.
Deterministic.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from relam_jax.envs.scene import Surface, cast, pixel_centres
from relam_jax.envs.simulator import MjData, MjModel
from relam_jax.geometry import CameraPose, farthest_point_sampling, project

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
            chosen = _choose(surface, near, bodies, count)
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


def _choose(
    surface: Surface, near: Bool[np.ndarray, "H W"], bodies: tuple[int, ...], count: int
) -> Int[np.ndarray, " n"]:
    """Indices into the rays that were cast of at most `count` points, evenly over the bodies."""
    image = np.full(near.shape, -1)
    image[near] = surface.body
    same = np.ones(near.shape, bool)
    for axis in (0, 1):
        for shift in (-1, 1):
            same &= np.roll(image, shift, axis) == image
    inner, rows_columns = same[near], np.argwhere(near).astype(float)
    queues = []
    for body in bodies:
        pixels = np.flatnonzero(surface.body == body)
        inside = pixels[inner[pixels]]
        pool = inside if len(inside) >= count // len(bodies) else pixels
        if len(pool):
            order, valid = farthest_point_sampling(
                rows_columns[pool], np.ones(len(pool), bool), min(count, len(pool))
            )
            queues.append(list(pool[order[valid]]))
    chosen: list[int] = []
    while queues and len(chosen) < count:  # one of each body in turn
        for queue in queues:
            chosen.append(queue.pop(0))
        queues = [queue for queue in queues if queue]
    return np.array(chosen[:count], np.int64)
