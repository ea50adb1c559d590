"""Pixels of an entity's mask that lie far from one another: candidates for keypoints.

Videos and simulators choose them by the same rule: the anticipation model reads from them where an
entity stands.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float


def erode(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The mask without its edge: 1 % of the image's side, less where no quarter of it would be
    left."""
    padded = np.pad(mask, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    margin = 0.01 * min(mask.shape)
    while margin > 0.5 and (depth > margin).sum() < 0.25 * mask.sum():
        margin *= 0.7
    return depth > margin if margin > 0.5 else mask


def spread_pixels(
    mask: Bool[np.ndarray, "H W"],
    count: int,
    rng: np.random.Generator,
    chosen: Float[np.ndarray, "m 2"] | None = None,
    pool: int = 256,
) -> Float[np.ndarray, "n 2"]:
    """Add to the `chosen` (x, y) the farthest among `pool` random pixels of the mask.

    Stops at `count` or where no pixel is left. The pixels are random so that clips that start alike
    (a robot's home pose) do not all show the same few to what learns from them.
    """
    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns, rows], axis=-1).astype(np.float64)
    pixels = rng.permutation(pixels)[:pool]
    chosen = np.zeros((0, 2)) if chosen is None else chosen
    if len(pixels) == 0:
        return chosen[:count]
    if len(chosen) == 0:
        middle = np.argmin(((pixels - pixels.mean(0)) ** 2).sum(-1))
        chosen = pixels[middle : middle + 1]
    gap = np.full(len(pixels), np.inf)
    for point in chosen:
        gap = np.minimum(gap, ((pixels - point) ** 2).sum(-1))
    extra = []
    while len(chosen) + len(extra) < count and gap.max() > 0:
        extra.append(pixels[gap.argmax()])
        gap = np.minimum(gap, ((pixels - extra[-1]) ** 2).sum(-1))
    return np.concatenate([chosen, np.reshape(extra, (-1, 2))])[:count]
