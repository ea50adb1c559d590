"""What a segmenter is: it finds the pixels of each entity in the first frame of a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, UInt8


@runtime_checkable
class Segmenter(Protocol):
    """Built once a process; `segment` must not change its state."""

    entities: tuple[str, ...]
    """names of the entities, in the order of `entity_id`; the same for all clips of a data set."""
    required: tuple[str, ...]
    """those without which an episode is useless (found in no view)."""

    def describe(self) -> dict[str, Any]:
        """Name and parameters, for the provenance; a change of them means that clips are done
        again."""
        ...

    def inputs(self, path: Path) -> tuple[Path, ...]:
        """Files besides the video at `path` on which its masks depend."""
        ...

    def segment(
        self, frames: UInt8[np.ndarray, "T H W 3"], path: Path
    ) -> dict[str, Bool[np.ndarray, "H W"]]:
        """Mask of each entity seen in frame 0. Raises `ClipError` when the clip cannot be
        segmented."""
        ...
