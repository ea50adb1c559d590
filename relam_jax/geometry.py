"""Rotations, pinhole projection and farthest point sampling, for numpy and jax arrays alike.

Each function takes its array namespace from its first argument (`__array_namespace__`), so the same
code runs offline on records and jitted in the training loop. This module itself never imports jax.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

Array = Any  # numpy or jax


@dataclass(frozen=True)
class CameraPose:
    """A fixed pinhole camera in MuJoCo's convention: it looks along its own −z, x right, y up."""

    position: Float[np.ndarray, " 3"]
    """metres, world frame."""
    rotation: Float[np.ndarray, "3 3"]
    """columns are the camera's axes in the world frame."""
    fovy: float
    """vertical field of view, degrees."""
    aspect: float = 1.0
    """width / height of the image."""


def project(world: Float[Array, "*B 3"], camera: CameraPose) -> Float[Array, "*B 2"]:
    """World points (metres) → image points in image sides. Points behind the camera come out as
    NaN."""
    xp = world.__array_namespace__()
    local = (world - camera.position) @ camera.rotation
    depth = xp.where(local[..., 2] < 0, -local[..., 2], xp.nan)
    focal = 0.5 / np.tan(0.5 * np.radians(camera.fovy))  # in image heights
    x = 0.5 + focal / camera.aspect * local[..., 0] / depth
    y = 0.5 - focal * local[..., 1] / depth
    return xp.stack([x, y], axis=-1)


def matrices(quaternion: Float[Array, "*B 4"]) -> Float[Array, "*B 9"]:
    """Rotation matrices (rows after one another) of unit quaternions, wxyz."""
    xp = quaternion.__array_namespace__()
    w, x, y, z = xp.moveaxis(quaternion, -1, 0)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return xp.stack(rows, axis=-1)


def farthest_point_sampling(
    points: Float[Array, "Q D"], eligible: Array, count: int
) -> tuple[Array, Array]:
    """Indices (count,) of points that lie as far from one another as greedy choice allows, and
    which are real.

    The first is the eligible point nearest to the eligible centroid, so that the choice is
    deterministic and does not depend on the order of the points (ties aside). Where fewer than
    `count` points are
    eligible, the rest repeat the first and are marked False.
    """
    xp = points.__array_namespace__()
    weight = eligible[:, None].astype(points.dtype)
    centroid = (xp.where(eligible[:, None], points, 0) * weight).sum(0) / xp.maximum(
        weight.sum(), 1
    )
    to_centroid = xp.where(eligible, ((points - centroid) ** 2).sum(-1), xp.inf)
    first = xp.argmin(to_centroid)
    indices, gap = [first], xp.where(eligible, xp.inf, -xp.inf)
    for _ in range(count - 1):
        step = ((points - points[indices[-1]]) ** 2).sum(-1)
        gap = xp.where(xp.arange(len(points)) == indices[-1], -xp.inf, xp.minimum(gap, step))
        indices.append(xp.argmax(gap))
    valid = xp.arange(count) < eligible.sum()
    return xp.where(valid, xp.stack(indices), first), valid
