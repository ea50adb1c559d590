"""Search a picture for an entity that was hidden as a whole, by what it last looked like."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8


def search_shift(
    seen: UInt8[np.ndarray, "h w 3"],
    points: Float[np.ndarray, "n 2"],
    image: UInt8[np.ndarray, "h w 3"],
    around: Float[np.ndarray, " 2"],
    reach: float,
) -> Float[np.ndarray, " 2"] | None:
    """The shift of `points` (OpenCV's pixels in the picture `seen`) at which `image` looks alike.

    Tries the shifts within `reach` of `around`, whole pixels; compares the pixels around the points
    alone (masked sum of squared differences). None where they do not fit into the image. There is
    always a best shift: whether the entity is there, the caller has to check.
    """
    size = np.array(image.shape[1::-1])
    low = np.maximum(np.floor(points.min(0)).astype(int) - 3, 0)
    high = np.minimum(np.ceil(points.max(0)).astype(int) + 4, size)
    if (high <= low).any():
        return None
    template = seen[low[1] : high[1], low[0] : high[0]]
    mask = np.zeros(template.shape[:2], np.uint8)
    columns, rows = (np.clip(np.round(points).astype(int), low, high - 1) - low).T
    mask[rows, columns] = 1
    mask = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    first = np.clip(np.floor(low + around - reach).astype(int), 0, size)
    last = np.clip(np.ceil(high + around + reach).astype(int), 0, size)
    area = image[first[1] : last[1], first[0] : last[0]]
    if area.shape[0] < template.shape[0] or area.shape[1] < template.shape[1]:
        return None
    mask = np.repeat(mask[..., None], 3, 2)
    cost = cv2.matchTemplate(area, template, cv2.TM_SQDIFF, mask=mask)
    _, _, best, _ = cv2.minMaxLoc(cost)
    return np.array(best, np.float64) + first - low
