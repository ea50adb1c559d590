"""Frames of the demonstrations that keypoint records are of."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from preprocess_torch.discover import find_clips
from preprocess_torch.video import Timing
from relam_jax.agents.frames import stacked
from relam_jax.keypoints.records import read_records


def demonstration_frames(
    records: Path, videos: Path, frame_size: int, view_names: tuple[str, ...] = ()
) -> list[UInt8[np.ndarray, "_ H H C"]]:
    """The clips of a folder of records in these views, or in their first one, stacked as channels,
    `frame_size` pixels a side, a frame an env_step.

    Raises:
        FileNotFoundError: there are no records.
        ValueError: their videos are not in `videos`, or others of the same name are.
    """
    hint = "name the folder of the videos that the records are of with --videos"
    if not videos.is_dir():
        raise ValueError(f"this reward learns from videos, but there are none at {videos}: {hint}")
    clips, out = {clip.episode_id: clip for clip in find_clips(videos)}, []
    for record in read_records(records):
        clip, views = clips.get(record.episode_id), []
        digests = dict(zip(record.view_names, record.source_sha256, strict=True))
        for view in view_names or record.view_names[:1]:
            sources = [v.source for v in clip.views if v.name == view] if clip else []
            if not sources:
                raise ValueError(
                    f"{videos} holds no video of {record.video_id} in the view {view}: {hint}"
                )
            if sources[0].digest() != digests.get(view):
                raise ValueError(
                    f"the video of {record.video_id} in {videos} is not the one that the record of "
                    f"{records} is of: {hint}"
                )
            frames = sources[0].read(Timing()).frames
            if len(frames) != record.num_frames:
                raise ValueError(
                    f"the video of {record.video_id} has {len(frames)} frames, its record "
                    f"{record.num_frames}: this reward needs records without --fps and --trim"
                )
            views.append([shrunk(frame, frame_size) for frame in frames])
        out.append(stacked(np.stack(views, axis=1)))
    return out


def shrunk(image: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Each pixel the mean of the area that it covers."""
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
