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
    """All candidate tracks of one episode; selection (Θ, K, keyframes) happens later, on the
    record."""

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
    """float32, (x, y) in image sides; where a point is lost, its best guess; (0, 0) for padding."""
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

    @property
    def num_views(self) -> int:
        """V."""
        return self.tracks.shape[0]

    @property
    def num_slots(self) -> int:
        """Q."""
        return self.tracks.shape[2]


def check_record(record: KeypointRecord) -> None:
    """Raise a `ValueError` that names the record and the field which contradicts the schema."""
    views, frames, slots = record.tracks.shape[:3]

    def demand(condition: bool, what: str) -> None:
        if not condition:
            raise ValueError(f"record {record.video_id!r}: {what}")

    demand(record.tracks.shape == (views, frames, slots, 2), "tracks is not (V, T, Q, 2)")
    demand(frames > 0 and slots > 0 and views > 0, "tracks has an empty axis")
    demand(record.tracks.dtype == np.float32, "tracks is not float32")
    demand(bool(np.isfinite(record.tracks).all()), "tracks holds NaN or infinity")
    for name, dtype in (("visibility", np.bool_), ("confidence", np.float32)):
        array = getattr(record, name)
        demand(array.shape == (views, frames, slots), f"{name} is not (V, T, Q)")
        demand(array.dtype == dtype, f"{name} is not {np.dtype(dtype).name}")
    demand(
        bool(((record.confidence >= 0) & (record.confidence <= 1)).all()),
        "confidence leaves [0, 1]",
    )
    ids = record.entity_id
    demand(ids.shape == (slots,) and ids.dtype == np.int32, "entity_id is not (Q,) int32")
    demand(
        bool(((ids >= 0) & (ids < len(record.entity_names))).all()),
        "entity_id points past entity_names",
    )
    for name in ("view_names", "first_frames", "source_sha256"):
        demand(len(getattr(record, name)) == views, f"{name} has not one entry a view")
    demand(0 <= record.query_frame < frames, "query_frame is outside the clip")
