"""From records to training examples: the keypoints of each keyframe of each clip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from relam_jax.keypoints.keyframes import KeyframeConfig, find_keyframes
from relam_jax.keypoints.schema import KeypointRecord
from relam_jax.keypoints.selection import SelectionConfig, group_by_entity, select, well_seen


class PlanExamples(NamedTuple):
    """D clips, S1 = S + 1 keyframes, the first frame being row 0, C candidates an entity and
    view."""

    points: Float[np.ndarray, "D S1 V E C 2"]
    visibility: Bool[np.ndarray, "D S1 V E C"]
    """the point is seen in that keyframe, and belongs to the well-seen ones of the clip."""
    first_seen: Bool[np.ndarray, "D V E C"]
    """the point is seen in the first frame, whatever becomes of it."""
    num_stages: Int[np.ndarray, " D"]
    frames: Int[np.ndarray, "D S1"]
    """the frame of each keyframe in its clip."""
    counts_alone: Int[np.ndarray, " D"]
    """keyframes each clip would have had by itself."""
    view_names: tuple[str, ...]
    entity_names: tuple[str, ...]


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
    points, visibility, first_seen = [], [], []
    for record, at in zip(records, frames, strict=True):
        tracks = group_by_entity(record)
        points.append(tracks.points[at])
        visibility.append(tracks.visibility[at] & well_seen(tracks, selection))
        first_seen.append(tracks.visibility[0])
    return PlanExamples(
        np.nan_to_num(np.stack(points)).astype(np.float32),
        np.stack(visibility),
        np.stack(first_seen),
        np.full(len(records), frames.shape[1] - 1),
        frames,
        found.counts_alone,
        first.view_names,
        first.entity_names,
    )
