"""Choose the candidate points of an entity inside its mask: corners first, then an even spread."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8


def sample_queries(
    frame: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"],
    count: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "n 2"]:
    """At most `count` pixel centres in the mask (pixels from the corner).

    Half of them at most are Shi-Tomasi corners, which a tracker can hold; the rest is topped up by
    farthest point sampling among random pixels, so that textureless parts are not empty and clips
    that start alike (a robot's home pose) do not all show the same few pixels to what learns from
    them. Points keep off the mask's edge, where the background would be tracked, as far as the
    mask's size allows.
    """
    inner = erode(mask)
    distance = max(2.0, 0.6 * float(np.sqrt(inner.sum() / count)))
    corners = cv2.goodFeaturesToTrack(
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY),
        maxCorners=max(1, count // 2),
        qualityLevel=0.02,
        minDistance=distance,
        mask=inner.astype(np.uint8),
        blockSize=5,
    )
    chosen = np.zeros((0, 2)) if corners is None else corners.reshape(-1, 2).round()
    rows, columns = np.nonzero(inner)
    pixels = np.stack([columns, rows], axis=-1).astype(np.float64)
    chosen = _top_up(rng.permutation(pixels)[: 4 * count], chosen, count)
    return (chosen + 0.5).astype(np.float32)


def erode(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The mask without its edge: 1 % of the image's side, less where no quarter of it would be
    left."""
    padded = np.pad(mask, 1).astype(np.uint8)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    margin = 0.01 * min(mask.shape)
    while margin > 0.5 and (depth > margin).sum() < 0.25 * mask.sum():
        margin *= 0.7
    return depth > margin if margin > 0.5 else mask


def _top_up(pixels: np.ndarray, chosen: np.ndarray, count: int) -> np.ndarray:
    """Add the pixel farthest from all chosen ones until there are `count`, or no pixel is left."""
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
