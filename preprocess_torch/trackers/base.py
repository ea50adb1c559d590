"""What a tracker is: it follows points from the first frame through a clip.

Pixels here have their origin at the image's corner: the centre of pixel (column c, row r) is
(c + 0.5, r + 0.5), so that a division by (W, H) gives image sides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8


@dataclass(frozen=True)
class Tracks:
    """Q points over T frames; frame 0 is the query."""

    points: Float[np.ndarray, "T Q 2"]
    """pixels from the corner; the best guess where the point is not seen."""
    visibility: Bool[np.ndarray, "T Q"]
    confidence: Float[np.ndarray, "T Q"]
    """in [0, 1]."""


@runtime_checkable
class Tracker(Protocol):
    """Built once a process; `track` must not change its state."""

    def describe(self) -> dict[str, Any]:
        """Name and parameters, for the provenance; a change of them means that clips are done
        again."""
        ...

    def inputs(self, path: Path) -> tuple[Path, ...]:
        """Files besides the video at `path` on which its tracks depend."""
        ...

    def track(
        self,
        frames: UInt8[np.ndarray, "T H W 3"],
        queries: Float[np.ndarray, "Q 2"],
        entity_id: Int[np.ndarray, " Q"],
        path: Path,
        labels: UInt8[np.ndarray, "H W"] | None = None,
    ) -> Tracks:
        """Follow `queries` (pixels from the corner, frame 0).

        `labels`: the masks of frame 0, index of the entity + 1, 0 for none. Raises `ClipError`
        when that cannot be."""
        ...


class Seen(NamedTuple):
    """Q points in one frame; see `Tracks`."""

    points: Float[np.ndarray, "Q 2"]
    visibility: Bool[np.ndarray, " Q"]
    confidence: Float[np.ndarray, " Q"]


class OnlineTracker(Protocol):
    """Q points that are followed from frame to frame, of a clip or of a simulator's camera.

    Made of a first frame, the points in it (pixels from the corner) and the entity of each.
    """

    def advance(self, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        """Follow the points into the next frame."""
        ...

    def seen(self) -> Seen:
        """Where the points are in the newest frame, pixels from the corner."""
        ...

    def located(self) -> Bool[np.ndarray, " Q"]:
        """The points whose places are known, seen or not."""
        ...

    def reseed(self, labels: UInt8[np.ndarray, "H W"]) -> None:
        """Take up lost points again by masks of the newest frame, in which i shows entity i − 1."""
        ...

    def state(self) -> dict[str, np.ndarray]:
        """What `set_state` goes on from; `frame0` and `points0` make the tracker anew."""
        ...

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from the `state` of a tracker of the same points."""
        ...
