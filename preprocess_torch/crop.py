"""The part of the image that a neural network gets to see.

CoTracker3 shrinks whatever comes to 384 × 512: a handle 12 pixels wide in a 1080p picture becomes
4. So the task's area is cut out first: the box around the points and all that moves.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from preprocess_torch.errors import UsageError

MARGIN = 0.1
"""added on each side of what moves, image sides."""
WORTHWHILE = 0.5
"""a box of more than this part of the image is not cut out."""
CHANGE = 25
"""grey levels of 255 by which a pixel has to differ from the first frame to count as moving."""
RARE = 0.002
"""a row or column in which a smaller part of the pixels changes is noise."""


class Box(NamedTuple):
    """Pixels: rows top … bottom, columns left … right; the ends are outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def corner(self) -> np.ndarray:
        """(left, top): what a point in the cut-out lacks to be one in the image."""
        return np.array([self.left, self.top], np.float32)

    def cut(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) → (T, h, w, 3), a view."""
        return frames[:, self.top : self.bottom, self.left : self.right]


def find_box(
    crop: str,
    frames: UInt8[np.ndarray, "T H W 3"],
    queries: Float[np.ndarray, "Q 2"],
) -> Box:
    """The box that `--crop` asks for: `none`, `auto` or left,top,right,bottom in image sides.

    `auto` bounds the queries (pixels from the corner) and all that changes in the clip, with a
    margin; the whole image if that is most of it.
    """
    height, width = frames.shape[1:3]
    whole = Box(0, 0, width, height)
    sides = np.array([width, height])
    if crop == "none":
        return whole
    if crop != "auto":
        return _box(np.array(parse_crop(crop)).reshape(2, 2), sides)
    small = [cv2.resize(f, (128, 128), interpolation=cv2.INTER_AREA) for f in frames]
    moved = np.zeros((128, 128), bool)
    for frame in small[1:]:
        moved |= cv2.absdiff(frame, small[0]).max(-1) > CHANGE
    corners = [(queries / sides).min(0), (queries / sides).max(0)]
    columns, rows = (np.flatnonzero(moved.mean(axis) > RARE) for axis in (0, 1))
    if len(columns) and len(rows):
        corners += [np.array([columns[0], rows[0]]) / 128]
        corners += [np.array([columns[-1] + 1, rows[-1] + 1]) / 128]
    ends = np.array([np.min(corners, 0) - MARGIN, np.max(corners, 0) + MARGIN]).clip(0, 1)
    return whole if np.prod(ends[1] - ends[0]) > WORTHWHILE else _box(ends, sides)


def _box(ends: np.ndarray, sides: np.ndarray) -> Box:
    (left, top), (right, bottom) = np.floor(ends[0] * sides), np.ceil(ends[1] * sides)
    return Box(int(left), int(top), int(right), int(bottom))


def parse_crop(crop: str) -> tuple[float, ...]:
    """(left, top, right, bottom) in image sides. Raises `UsageError`."""
    try:
        left, top, right, bottom = (float(part) for part in crop.split(","))
    except ValueError:
        left, top, right, bottom = 1.0, 1.0, 0.0, 0.0
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise UsageError(
            f"--crop {crop!r}: auto, none, or left,top,right,bottom in image sides "
            "such as 0.2,0.3,0.9,1"
        )
    return left, top, right, bottom
