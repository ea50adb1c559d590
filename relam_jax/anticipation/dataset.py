"""From records to training examples: the keypoints of each keyframe of each clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from relam_jax.keypoints.keyframes import KeyframeConfig, fill_hidden, find_keyframes
from relam_jax.keypoints.schema import KeypointRecord
from relam_jax.keypoints.selection import (
    EpisodeTracks,
    SelectionConfig,
    group_by_entity,
    select,
    well_seen,
)

NUM_MOMENTS = 9
"""W, odd."""


class PlanExamples(NamedTuple):
    """D clips, S1 = S + 1 keyframes, the first frame being row 0, C candidates an entity and
    view."""

    points: Float[np.ndarray, "D S1 V E C 2"]
    visibility: Bool[np.ndarray, "D S1 V E C"]
    """the point is seen in that keyframe, and belongs to the well-seen ones of the clip."""
    first_seen: Bool[np.ndarray, "D V E C"]
    """the point is seen in the first frame, whatever becomes of it."""
    around: Float[np.ndarray, "D S W V E C 2"]
    """where the points are at W moments around each keyframe but the first, which is the middle
    one."""
    num_stages: Int[np.ndarray, " D"]
    frames: Int[np.ndarray, "D S1"]
    """the frame of each keyframe in its clip."""
    counts_alone: Int[np.ndarray, " D"]
    """keyframes each clip would have had by itself."""
    view_names: tuple[str, ...]
    entity_names: tuple[str, ...]


def moments(frames: Int[np.ndarray, " S1"], leeway: float) -> Float[np.ndarray, "S W"]:
    """W times around each keyframe but the first, as far as `leeway` frames and half-way to its
    neighbours. The last has no leeway: it is what the task is about."""
    gaps = np.diff(frames)
    reach = np.minimum(leeway, np.minimum(gaps, np.append(gaps[1:], 0)) / 2)
    return frames[1:, None] + reach[:, None] * np.linspace(-1, 1, NUM_MOMENTS)


def at_moments(
    tracks: EpisodeTracks, times: Float[np.ndarray, "S W"]
) -> Float[np.ndarray, "S W V E C 2"]:
    """Where the points are at these times, between frames if need be; hidden ones in between."""
    flat = tracks.points.reshape(len(tracks.points), -1, 2)
    seen = tracks.visibility.reshape(len(flat), -1)
    filled = fill_hidden(flat, seen).reshape(tracks.points.shape)
    early = np.floor(times).astype(int)
    late = np.minimum(early + 1, len(filled) - 1)
    share = (times - early)[..., None, None, None, None]
    return (1 - share) * filled[early] + share * filled[late]


def build_examples(
    records: Sequence[KeypointRecord], selection: SelectionConfig, keyframes: KeyframeConfig
) -> PlanExamples:
    """Find the keyframes of a task's records jointly and read off all well-seen candidates there.

    Raises:
        ValueError: the records are of different tasks, views or entities, or there are none.
    """
    if not records:
        raise ValueError("there are no keypoint records to learn from: run `make preprocess` first")
    first = records[0]
    for r in records:
        if (r.task, r.view_names, r.entity_names) != (
            first.task,
            first.view_names,
            first.entity_names,
        ):
            raise ValueError(
                f"record {r.video_id} ({r.task}, {r.view_names}, {r.entity_names}) "
                f"does not fit {first.video_id} "
                f"({first.task}, {first.view_names}, {first.entity_names}): use one folder a task"
            )
    found = find_keyframes([select(r, selection) for r in records], keyframes)
    frames = np.concatenate([np.zeros_like(found.frames[:, :1]), found.frames], axis=1)
    points, around, visibility, first_seen = [], [], [], []
    for record, at in zip(records, frames, strict=True):
        tracks = group_by_entity(record)
        points.append(tracks.points[at])
        around.append(at_moments(tracks, moments(at, keyframes.leeway)))
        visibility.append(tracks.visibility[at] & well_seen(tracks, selection))
        first_seen.append(tracks.visibility[0])
    return PlanExamples(
        np.nan_to_num(np.stack(points)).astype(np.float32),
        np.stack(visibility),
        np.stack(first_seen),
        np.nan_to_num(np.stack(around)).astype(np.float32),
        np.full(len(records), frames.shape[1] - 1),
        frames,
        found.counts_alone,
        first.view_names,
        first.entity_names,
    )
