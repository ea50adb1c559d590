"""`lucas_kanade`: pyramidal Lucas-Kanade flow with checks, on a CPU and without weights.

A point counts as seen while (1) the flow there and back again ends where it began, and (2) the patch
around it looks like the one it started from, or like its own slow average. A point that fails moves with
its companions (similarity.py) until the patch of frame 0 is found again near where it should be.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.trackers.base import Tracks
from preprocess_torch.trackers.similarity import Companions

VERSION = 1
"""Part of the provenance: raise it when tracks change."""


@dataclass(frozen=True)
class LucasKanadeConfig:
    """Lengths are pixels of the working image, whose short side is at least `short_side`."""

    short_side: int = 256
    """smaller videos are enlarged to this (cubic): at 128 px δ_avg rises from 58 to 71."""
    window: int = 7
    """side of the flow's window; larger ones mix what moves apart."""
    levels: int = 3
    """pyramid levels above the image."""
    round_trip: float = 1.0
    """largest error of forward-backward flow."""
    patch: int = 7
    """side of the patch whose look is compared."""
    gate: float = 25.0
    """largest mean absolute difference of patches, grey levels of 255."""
    average: float = 0.05
    """weight of a new frame in the slow average of a patch."""
    recover: float = 3.0
    """a lost point is taken up again within this distance of where its companions put it."""


class LucasKanadeTracker:
    """See the module's docstring."""

    def __init__(self, config: LucasKanadeConfig | None = None):
        self.config = config or LucasKanadeConfig()
        cv2.setNumThreads(1)  # one process a core is what scales; also keeps results the same

    def describe(self) -> dict[str, Any]:
        """See `Tracker`."""
        return {"name": "lucas_kanade", "version": VERSION, **asdict(self.config)}

    def inputs(self, path: Path) -> tuple[Path, ...]:
        """Nothing but the video."""
        return ()

    def track(
        self,
        frames: UInt8[np.ndarray, "T H W 3"],
        queries: Float[np.ndarray, "Q 2"],
        entity_id: Int[np.ndarray, " Q"],
        path: Path,
    ) -> Tracks:
        """See `Tracker`."""
        c = self.config
        size, scale = _working_size(frames.shape[1:3], c.short_side)
        first = _resize(frames[0], size)
        # OpenCV's integers are pixel centres, hence the half
        start = (queries * scale - 0.5).astype(np.float32)
        companions = Companions(start, entity_id)
        patch_0 = _patches(first, start, c.patch)
        slow, points, visible = patch_0, start, np.ones(len(start), bool)
        previous = first
        all_points, all_visible = [start], [visible]
        all_confidence = [np.ones(len(start), np.float32)]
        for frame in frames[1:]:
            image = _resize(frame, size)
            moved, error = self._there_and_back(previous, image, points, points)
            difference = self._difference(image, moved, patch_0, slow)
            good = visible & (error < c.round_trip) & (difference < c.gate)
            lost = np.flatnonzero(~good)
            guess = companions.predict(points, moved, good, lost).astype(np.float32)
            moved[lost] = guess
            # is the patch of frame 0 where a lost point should be?
            if len(lost):
                found, back = self._there_and_back(first, image, start[lost], guess)
                look = self._difference(image, found, patch_0[lost], patch_0[lost])
                near = np.linalg.norm(found - guess, axis=-1) < c.recover
                again = near & (back < c.round_trip) & (look < c.gate)
                moved[lost[again]] = found[again]
                good[lost[again]] = True
                error[lost], difference[lost] = back, look
            patches = _patches(image, moved, c.patch)
            slow = np.where(good[:, None, None], (1 - c.average) * slow + c.average * patches, slow)
            companions.observe(moved, good)
            trust = 1 - 0.5 * error / c.round_trip - 0.5 * difference / c.gate
            all_points.append(moved)
            all_visible.append(good)
            all_confidence.append(np.where(good, np.clip(trust, 0, 1), 0).astype(np.float32))
            previous, points, visible = image, moved, good
        return Tracks(
            ((np.stack(all_points) + 0.5) / scale).astype(np.float32),
            np.stack(all_visible),
            np.stack(all_confidence),
        )

    def _there_and_back(
        self, a: np.ndarray, b: np.ndarray, start: np.ndarray, guess: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Flow of `start` from image a to b, begun at `guess`, and the error of the way back."""
        c = self.config
        options = {
            "winSize": (c.window, c.window),
            "maxLevel": c.levels,
            "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
            "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
        }
        there, found, _ = cv2.calcOpticalFlowPyrLK(a, b, start, guess.copy(), **options)
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(b, a, there, start.copy(), **options)
        error = np.linalg.norm(back - start, axis=-1)
        height, width = b.shape[:2]
        inside = ((there >= 0) & (there <= (width - 1, height - 1))).all(-1)
        ok = (found[:, 0] > 0) & (found_back[:, 0] > 0) & inside & np.isfinite(error)
        return np.where(np.isfinite(there), there, start), np.where(ok, error, np.inf)

    def _difference(
        self, image: np.ndarray, points: np.ndarray, patch_0: np.ndarray, slow: np.ndarray
    ) -> np.ndarray:
        """Mean absolute difference to the nearer of the two reference patches, a point."""
        here = _patches(image, points, self.config.patch)
        return np.minimum(abs(here - patch_0).mean((1, 2)), abs(here - slow).mean((1, 2)))


def _working_size(shape: tuple[int, ...], short_side: int) -> tuple[tuple[int, int], np.ndarray]:
    """(width, height) of the working image, and its scale (2,) against the video."""
    height, width = shape
    factor = max(1.0, short_side / min(height, width))
    size = (round(width * factor), round(height * factor))
    return size, np.array([size[0] / width, size[1] / height])


def _resize(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if frame.shape[1::-1] == size:
        return frame
    return cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)


def _patches(image: np.ndarray, points: np.ndarray, side: int) -> np.ndarray:
    """Patches (Q, side², 3) float32 around sub-pixel points; the image's edge is repeated."""
    reach = np.arange(side, dtype=np.float32) - side // 2
    dy, dx = (axis.ravel() for axis in np.meshgrid(reach, reach, indexing="ij"))
    x, y = points[:, :1] + dx, points[:, 1:] + dy
    patches = cv2.remap(
        image,
        x.astype(np.float32),
        y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return patches.astype(np.float32)


def build(config: PreprocessConfig) -> LucasKanadeTracker:
    """Defaults; `config` has nothing to say here."""
    return LucasKanadeTracker()
