"""Which candidate tracks count: visibility, motion range Θ, and farthest point sampling to K
(method §1).

Pure functions of (record, config). `choose` runs on numpy (records) and on jax (the planner, which
puts the anticipated motion in the place of the observed one).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from relam_jax.geometry import farthest_point_sampling
from relam_jax.keypoints.schema import KeypointRecord

Array = Any  # numpy or jax


@dataclass(frozen=True)
class SelectionConfig:
    """What makes a candidate a keypoint."""

    min_motion: float = 0.05
    """Θ: least motion range of a point, image sides."""
    min_visible: float = 0.7
    """Least share of the frames in which a point is seen."""
    num_keypoints: int = 4
    """K: keypoints an entity and view."""
    goal_entities: tuple[str, ...] = ()
    """Entities that mark a goal: they stand still and are exempt from Θ. The plan depends on where
    they are, but nothing has to bring them anywhere."""


class EpisodeTracks(NamedTuple):
    """A record's candidates grouped by entity: slot c of entity e in view v."""

    points: Float[np.ndarray, "T V E C 2"]
    visibility: Bool[np.ndarray, "T V E C"]


def group_by_entity(record: KeypointRecord) -> EpisodeTracks:
    """Bring (V, T, Q) tracks into (T, V, E, C); C is the largest number of slots of any entity."""
    slots = [np.flatnonzero(record.entity_id == e) for e in range(len(record.entity_names))]
    width = max(len(s) for s in slots)
    gather = np.stack([np.resize(s, width) if len(s) else np.zeros(width, int) for s in slots])
    real = np.stack([np.arange(width) < len(s) for s in slots])
    points = record.tracks[:, :, gather].transpose(1, 0, 2, 3, 4)
    visibility = record.visibility[:, :, gather].transpose(1, 0, 2, 3) & real
    return EpisodeTracks(np.ascontiguousarray(points), np.ascontiguousarray(visibility))


def motion_range(
    points: Float[Array, "T *B 2"], visibility: Bool[Array, "T *B"]
) -> Float[Array, "*B"]:
    """Diagonal of the bounding box of a point's visible track, image sides; 0 if never seen."""
    xp = points.__array_namespace__()
    seen = visibility[..., None]
    low = xp.where(seen, points, xp.inf).min(0)
    high = xp.where(seen, points, -xp.inf).max(0)
    extent = xp.where(visibility.any(0)[..., None], high - low, 0.0)
    return xp.sqrt((extent**2).sum(-1))


def choose(
    start: Float[Array, "V E C 2"],
    seen: Bool[Array, "V E C"],
    motion: Float[Array, "V E C"],
    exempt: Bool[np.ndarray, " E"],
    config: SelectionConfig,
) -> tuple[Int[Array, "V E K"], Bool[Array, "V E K"]]:
    """Indices of K candidates an entity and view, and which of them are real.

    A candidate is eligible if `seen` and its motion reaches Θ. An entity of which no point reaches
    Θ in a view keeps all its seen points there: it must not vanish from the reward (a button moves
    little).
    """
    xp = start.__array_namespace__()
    moving = seen & (motion >= config.min_motion)
    entity_moves = moving.any(2) & ~exempt
    eligible = xp.where(entity_moves[..., None], moving, seen)
    views, entities, _ = seen.shape
    picks = [
        [
            farthest_point_sampling(start[v, e], eligible[v, e], config.num_keypoints)
            for e in range(entities)
        ]
        for v in range(views)
    ]
    indices = xp.stack([xp.stack([index for index, _ in row]) for row in picks])
    valid = xp.stack([xp.stack([real for _, real in row]) for row in picks])
    return indices, valid


def well_seen(tracks: EpisodeTracks, config: SelectionConfig) -> Bool[np.ndarray, "V E C"]:
    """Candidates seen in the first frame and in at least `min_visible` of all frames."""
    return tracks.visibility[0] & (tracks.visibility.mean(0) >= config.min_visible)


def select(record: KeypointRecord, config: SelectionConfig) -> EpisodeTracks:
    """The K keypoints an entity and view of a record; padding is never visible."""
    tracks = group_by_entity(record)
    exempt = np.isin(record.entity_names, config.goal_entities)
    motion = motion_range(tracks.points, tracks.visibility)
    indices, valid = choose(tracks.points[0], well_seen(tracks, config), motion, exempt, config)
    points = np.take_along_axis(tracks.points, indices[None, ..., None], axis=3)
    visibility = np.take_along_axis(tracks.visibility, indices[None], axis=3) & valid
    return EpisodeTracks(points, visibility)
