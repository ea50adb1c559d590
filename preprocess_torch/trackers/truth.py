"""`truth`: the simulator's own tracks, for benchmarks and as an upper bound. Never a result of
the method.

`experiments/record_demos.py --truth` writes `000.cam0.truth.npz` beside `000.cam0.mp4`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import ClipError
from preprocess_torch.trackers.base import Tracks


class TruthTracker:
    """Projects the bodies' poses, which the recorder kept, into the camera."""

    def describe(self) -> dict[str, Any]:
        """See `Tracker`."""
        return {"name": "truth", "version": 1}

    def inputs(self, path: Path) -> tuple[Path, ...]:
        """The recorder's file."""
        return (truth_file(path),)

    def track(
        self,
        frames: UInt8[np.ndarray, "T H W 3"],
        queries: Float[np.ndarray, "Q 2"],
        entity_id: Int[np.ndarray, " Q"],
        path: Path,
        labels: UInt8[np.ndarray, "H W"] | None = None,
    ) -> Tracks:
        """See `Tracker`."""
        from relam_jax.envs import truth  # numpy alone

        file = truth_file(path)
        if not file.is_file():
            raise ClipError(f"has no truth: {file.name} is missing (record_demos.py --truth)")
        sides = np.array(frames.shape[2:0:-1], np.float64)
        tracks, visible = truth.load(file).tracks(queries / sides)
        if len(tracks) != len(frames):
            raise ClipError(f"{file.name} has {len(tracks)} frames, the video {len(frames)}")
        visible = np.asarray(visible, bool)
        points = np.nan_to_num(np.asarray(tracks) * sides).astype(np.float32)
        return Tracks(points, visible, visible.astype(np.float32))


def truth_file(path: Path) -> Path:
    """`000.cam0.mp4` → `000.cam0.truth.npz`."""
    return path.with_name(f"{path.stem}.truth.npz")


def build(config: PreprocessConfig) -> TruthTracker:
    """Needs no settings."""
    return TruthTracker()
