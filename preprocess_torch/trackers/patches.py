"""Sub-pixel patches of an image, for comparing what points look like."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

_ROWS = 32_000
"""cv2.remap takes maps of at most 32,767 rows."""


def patches_at(
    image: UInt8[np.ndarray, "H W 3"], points: Float[np.ndarray, "Q 2"], side: int
) -> Float[np.ndarray, "Q P 3"]:
    """Patches of P = side² pixels around `points` (OpenCV's pixels: integers are centres).

    Bilinear; beyond the image its edge is repeated.
    """
    if len(points) == 0:
        return np.zeros((0, side * side, 3), np.float32)
    reach = np.arange(side, dtype=np.float32) - side // 2
    dy, dx = (axis.ravel() for axis in np.meshgrid(reach, reach, indexing="ij"))
    parts = []
    for part in np.split(points, range(_ROWS, len(points), _ROWS)):
        x, y = part[:, :1] + dx, part[:, 1:] + dy
        maps = (x.astype(np.float32), y.astype(np.float32))
        parts.append(cv2.remap(image, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    return np.concatenate(parts).astype(np.float32)
