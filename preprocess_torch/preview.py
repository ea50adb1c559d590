"""One PNG an episode: first frame with masks and tracks, last frame with where the points are
now."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from preprocess_torch.pipeline import Processed

COLOURS = ((255, 170, 0), (0, 200, 255), (255, 60, 160), (120, 230, 60), (170, 120, 255))
"""RGB, one an entity, repeated."""
ENLARGE_TO = 384
"""height of a picture, pixels."""


def preview_png(processed: Processed) -> bytes:
    """A row a view: first frame | last frame. Hidden points are drawn as hollow rings."""
    record, rows = processed.record, []
    for view, (first, last) in enumerate(processed.edges):
        factor = max(1, round(ENLARGE_TO / first.shape[0]))
        left, right = (
            cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
            for image in (first, last)
        )
        size = np.array(left.shape[1::-1])
        for index, name in enumerate(record.entity_names):
            colour = COLOURS[index % len(COLOURS)]
            mask = processed.masks[view].get(name)
            if mask is not None:
                _outline(left, mask, colour)
            slots = np.flatnonzero((record.entity_id == index) & record.visibility[view, 0])
            _draw(
                left,
                right,
                record.tracks[view][:, slots] * size,
                record.visibility[view][:, slots],
                colour,
            )
        rows.append(np.concatenate([left, np.full_like(left[:, :4], 255), right], axis=1))
    return _named(np.concatenate(rows), record.entity_names)


def masks_png(
    frames: Sequence[np.ndarray], masks: Sequence[dict[str, np.ndarray]], names: Sequence[str]
) -> bytes:
    """A row a view: the first frame with the masks that were found, and what was not."""
    rows = []
    for frame, found in zip(frames, masks, strict=True):
        factor = max(1, round(ENLARGE_TO / frame.shape[0]))
        row = cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        for index, name in enumerate(names):
            if name in found:
                _outline(row, found[name], COLOURS[index % len(COLOURS)])
        rows.append(row)
    seen = {name for found in masks for name in found}
    named = [name if name in seen else f"{name}: not found" for name in names]
    return _named(np.concatenate(rows), named)


def _outline(image: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> None:
    size = image.shape[1::-1]
    large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    outline, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outline, -1, colour, 1)


def _named(picture: np.ndarray, names: Sequence[str]) -> bytes:
    """The picture as a PNG, the names of the entities in its corner."""
    for index, name in enumerate(names):
        at = (6, 16 + 16 * index)
        colour = COLOURS[index % len(COLOURS)]
        cv2.putText(picture, name, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(picture, name, at, cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes()


def _draw(
    left: np.ndarray,
    right: np.ndarray,
    points: np.ndarray,
    visible: np.ndarray,
    colour: tuple[int, int, int],
) -> None:
    """Paths on the first frame, final positions on the last; `points` (T, n, 2) from the corner."""
    fine = np.round((points - 0.5) * 16).astype(np.int32)  # OpenCV: 4 fractional bits
    for slot in range(points.shape[1]):
        path = fine[:, slot].reshape(-1, 1, 2)
        cv2.polylines(left, [path], False, colour, 1, cv2.LINE_AA, shift=4)
        cv2.circle(left, tuple(fine[0, slot].tolist()), 2 * 16, colour, -1, cv2.LINE_AA, shift=4)
        filled = -1 if visible[-1, slot] else 1
        cv2.circle(
            right, tuple(fine[-1, slot].tolist()), 3 * 16, colour, filled, cv2.LINE_AA, shift=4
        )
