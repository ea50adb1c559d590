"""One keypoint record: everything that was tracked in the synchronised clips of one episode.

Axes: V views, T frames, Q candidate slots (the same layout in each view), E entities.
Numpy only: this file is what `preprocess_torch` and `relam_jax` share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class KeypointRecord:
    """All candidate tracks of one episode; selection (Θ, K, keyframes) happens later, on the record."""

    video_id: str
    """`<task>/<episode_id>`, unique in a data set."""
    episode_id: str
    task: str
    fps: float
    image_size: tuple[int, int]
    """(H, W) of the video in pixels, the same for all views."""
    view_names: tuple[str, ...]
    entity_names: tuple[str, ...]
    tracks: Float[np.ndarray, "V T Q 2"]
    """float32, (x, y) in image sides."""
    visibility: Bool[np.ndarray, "V T Q"]
    """False where the point is hidden, lost, or the slot is padding in this view."""
    confidence: Float[np.ndarray, "V T Q"]
    """float32 in [0, 1]; 0 for padding."""
    entity_id: Int[np.ndarray, " Q"]
    """int32 index into entity_names."""
    query_frame: int
    """frame in which the candidates were chosen (0)."""
    first_frames: tuple[bytes, ...]
    """JPEG of the query frame, one a view."""
    source_sha256: tuple[str, ...]
    """of the video files, one a view."""
    provenance: str
    """JSON: schema version, tools with versions, models with sha256, parameters, seed."""

    @property
    def num_frames(self) -> int:
        """T."""
        return self.tracks.shape[1]
