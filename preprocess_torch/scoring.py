"""TAP-Vid's scores of point tracks against the truth (Doersch et al. 2022, arXiv 2211.03726).

Positions are scaled to a picture of 256 × 256 first; the query frame is left out, as there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

THRESHOLDS = (1, 2, 4, 8, 16)
"""pixels of 256."""
MOVED = 2.0
"""a point counts as moving in frames where it is farther than this from where it began, pixels."""


@dataclass(frozen=True)
class TrackScore:
    """One clip's score; NaN where no point counts."""

    delta_avg: float
    """% of visible points within a threshold, mean over the thresholds."""
    delta_moving: float
    """the same on points that have moved: standing still is no merit."""
    jaccard: float
    """average Jaccard, %: position and visibility right together."""
    occlusion: float
    """% of points and frames whose visibility is right."""
    mean_error: float
    """of moving visible points, pixels."""
    median_error: float
    """the same."""
    seen_error: float
    """mean error of those among them that the tracker calls visible, pixels."""
    final_error: float
    """median error of all points in the last frame, pixels."""


def score_tracks(
    tracks: Float[np.ndarray, "T Q 2"],
    visible: Bool[np.ndarray, "T Q"],
    true_tracks: Float[np.ndarray, "T Q 2"],
    truly_visible: Bool[np.ndarray, "T Q"],
) -> TrackScore:
    """Score tracks in image sides, whose first frame is the query."""
    error = 256 * np.linalg.norm(tracks - true_tracks, axis=-1)[1:]
    moved = 256 * np.linalg.norm(true_tracks - true_tracks[:1], axis=-1)[1:] > MOVED
    said, truly = visible[1:], truly_visible[1:]
    within = error[..., None] < np.array(THRESHOLDS)
    right = (within & (said & truly)[..., None]).sum((0, 1))
    false = (said[..., None] & ~(within & truly[..., None])).sum((0, 1))
    moving = truly & moved
    return TrackScore(
        delta_avg=100 * _mean(within[truly]),
        delta_moving=100 * _mean(within[moving]),
        jaccard=100 * float(np.mean(right / np.maximum(truly.sum() + false, 1))),
        occlusion=100 * float((said == truly).mean()),
        mean_error=_mean(error[moving]),
        median_error=float(np.median(error[moving])) if moving.any() else float("nan"),
        seen_error=_mean(error[moving & said]),
        final_error=float(np.median(error[-1])),
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
