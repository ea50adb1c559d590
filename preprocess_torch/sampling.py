"""Choose the candidate points of an entity inside its mask: corners first, then an even spread."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from relam_jax.keypoints.sampling import erode, spread_pixels


def sample_queries(
    frame: UInt8[np.ndarray, "H W 3"],
    mask: Bool[np.ndarray, "H W"],
    count: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "n 2"]:
    """At most `count` pixel centres in the mask (pixels from the corner).

    Half of them at most are Shi-Tomasi corners, which a tracker can hold; the rest is topped up by
    farthest point sampling, so that textureless parts are not empty. Points keep off the mask's
    edge, where the background would be tracked, as far as the mask's size allows.
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
    return (spread_pixels(inner, count, rng, chosen, 4 * count) + 0.5).astype(np.float32)


def entity_queries(
    frame: UInt8[np.ndarray, "H W 3"], masks: Sequence[Bool[np.ndarray, "H W"]], count: int
) -> list[Float[np.ndarray, "n 2"]]:
    """`sample_queries` in each mask; the same picture and masks always give the same points."""
    rng = np.random.default_rng(zlib.crc32(frame.tobytes()))
    return [sample_queries(frame, mask, count, rng) for mask in masks]
