"""Keypoints and subgoals on camera images."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from relam_jax.report.palette import entity_rgb

FINE = 16
"""OpenCV: 4 fractional bits, integers at pixel centres."""


def draw_points(
    image: UInt8[np.ndarray, "H W 3"],
    size: tuple[int, int],
    points: Float[np.ndarray, "E K 2"],
    goals: Float[np.ndarray, "E K 2"],
    seen: Bool[np.ndarray, "E K"],
    trails: Float[np.ndarray, "T E K 2"] | None = None,
) -> UInt8[np.ndarray, "Height Width 3"]:
    """The image at `size` (width, height), with points filled, goals hollow, lines between, and the
    ways that the points came. Points in image sides."""
    picture = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)

    def pixel(p: np.ndarray) -> np.ndarray:
        return np.round((np.clip(p, -1, 2) * size - 0.5) * FINE).astype(np.int32)

    options = {"lineType": cv2.LINE_AA, "shift": 4}
    for e, k in np.argwhere(seen):
        a, b, colour = pixel(points[e, k]), pixel(goals[e, k]), entity_rgb(int(e))
        if trails is not None:
            cv2.polylines(picture, [pixel(trails[:, e, k])], False, (255, 255, 255), 1, **options)
        cv2.line(picture, a.tolist(), b.tolist(), colour, 1, **options)
        cv2.circle(picture, b.tolist(), 4 * FINE, (0, 0, 0), 3, **options)
        cv2.circle(picture, b.tolist(), 4 * FINE, colour, 1, **options)
    for e, k in np.argwhere(seen):
        a = pixel(points[e, k]).tolist()
        cv2.circle(picture, a, 4 * FINE, (0, 0, 0), -1, **options)
        cv2.circle(picture, a, 3 * FINE, entity_rgb(int(e)), -1, **options)
    return picture
