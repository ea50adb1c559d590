"""`motion`: the regions of the first frame that move, found without weights, prompts or labels.

A grid of points is followed through the clip by Lucas-Kanade flow. A point counts as long as the
way back ends where it began and its patch looks as in frame 0, so that background swept along by
a moving edge drops out. Points that end up far from where they began are joined where neighbours
move alike.

What starts to move first, and all that starts with it, is the first region: in a robot's video
the arm, all of it. Of what starts later the pieces with the most motion are the next regions, in
order of start. They are called `moving_0`, `moving_1`, or as `--entities gripper,object` says.

Rough by nature: textureless insides are missed. On simulated clips the gripper is always inside
the first region; the object is hit in two clips of three, and then a fifth to three quarters of
it. Use `masks` where you can, and look at the previews.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import ClipError, UsageError
from preprocess_torch.trackers.patches import patches_at


@dataclass(frozen=True)
class MotionConfig:
    """Lengths in parts of the image's short side."""

    spacing: float = 0.012
    """of the grid."""
    max_pairs: int = 60
    """of frames between which flow is computed; longer clips are thinned out."""
    moved: float = 0.03
    """a point that never gets farther than this is background."""
    started: float = 0.012
    """a point has started to move when it is this far away."""
    look: float = 22.0
    """largest mean difference of a point's patch to frame 0, grey levels of 255."""
    near: float = 3.0
    """grid steps between points that may be joined."""
    alike: float = 0.03
    """largest difference between the motions of joined points."""
    together: float = 0.2
    """what starts within this part of the clip after the first is one region with it."""
    least: int = 8
    """grid points a piece needs."""


class MotionSegmenter:
    """See the module's docstring."""

    def __init__(self, names: tuple[str, ...], required: int, config: MotionConfig | None = None):
        self.entities = names
        self.required = names[:required]
        self.config = config or MotionConfig()
        cv2.setNumThreads(1)

    def describe(self) -> dict[str, Any]:
        """See `Segmenter`."""
        return {"name": "motion", "version": 1, **asdict(self.config)}

    def inputs(self, path: Path) -> tuple[Path, ...]:
        """Nothing but the video."""
        return ()

    def segment(
        self, frames: UInt8[np.ndarray, "T H W 3"], path: Path
    ) -> dict[str, Bool[np.ndarray, "H W"]]:
        """See `Segmenter`. Raises `ClipError` where nothing moves."""
        c, side = self.config, min(frames.shape[1:3])
        step = max(2, round(c.spacing * side))
        grid, path_of, alive = _follow(frames, step, c)
        away = np.where(alive, np.linalg.norm(path_of - grid, axis=-1), 0) / side
        moving = np.flatnonzero(away.max(0) > c.moved)
        if len(moving) < c.least:
            raise ClipError("nothing moves in it")
        away, alive = away[:, moving], alive[:, moving]
        starts = (away > c.started).argmax(0)
        shifts = (path_of - grid)[:, moving] / side
        piece = _join(grid[moving], shifts, alive, starts, c.near * step, c.alike)
        pieces = _rank(piece, starts, away.max(0), len(away), c)
        if not pieces:
            raise ClipError("what moves in it is too small")
        pieces = sorted(
            pieces[: len(self.entities)], key=lambda index: np.median(starts[piece == index])
        )
        return {
            name: _fill(grid[moving[piece == index]], frames.shape[1:3], step)
            for name, index in zip(self.entities, pieces, strict=False)
        }


def frames_used(frames: np.ndarray, config: MotionConfig) -> np.ndarray:
    """Indices of the frames that are looked at: the first, the last, and evenly between."""
    count = min(len(frames), config.max_pairs + 1)
    return np.linspace(0, len(frames) - 1, count).round().astype(int)


def _follow(
    frames: np.ndarray, step: int, c: MotionConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grid points (P, 2), where they go (S, P, 2) and whether they can be trusted (S, P)."""
    height, width = frames.shape[1:3]
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    grid = np.stack([columns.ravel(), rows.ravel()], axis=-1).astype(np.float32)
    options = {"winSize": (9, 9), "maxLevel": 3}
    before = cv2.GaussianBlur(frames[0], (0, 0), 1.0)
    patch_0 = patches_at(before, grid, 5)
    points, alive = grid, np.ones(len(grid), bool)
    all_points, all_alive = [points], [alive]
    for index in frames_used(frames, c)[1:]:
        now = cv2.GaussianBlur(frames[index], (0, 0), 1.0)
        there, found, _ = cv2.calcOpticalFlowPyrLK(before, now, points, points.copy(), **options)
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(now, before, there, points.copy(), **options)
        alive = alive & (found[:, 0] > 0) & (found_back[:, 0] > 0)
        alive &= np.linalg.norm(back - points, axis=-1) < 1
        points = np.where(alive[:, None], there, points)
        alive &= abs(patches_at(now, points, 5) - patch_0).mean((1, 2)) < c.look
        all_points.append(points)
        all_alive.append(alive)
        before = now
    return grid, np.stack(all_points), np.stack(all_alive)


def _join(
    grid: np.ndarray,
    shifts: np.ndarray,
    alive: np.ndarray,
    starts: np.ndarray,
    near: float,
    alike: float,
) -> np.ndarray:
    """Label each point with the lowest index of the points it is joined with, directly or not."""
    first, second = np.nonzero(
        np.triu(np.linalg.norm(grid[:, None] - grid[None], axis=-1) <= near, 1)
    )
    both = alive[:, first] & alive[:, second]
    apart = np.linalg.norm(shifts[:, first] - shifts[:, second], axis=-1)
    later = np.maximum(starts[first], starts[second])
    joined = (np.where(both, apart, 0).max(0) < alike) & both[later, np.arange(len(first))]
    first, second = first[joined], second[joined]
    label = np.arange(len(grid))
    while True:
        least = np.minimum(label[first], label[second])
        new = label.copy()
        np.minimum.at(new, first, least)
        np.minimum.at(new, second, least)
        new = new[new]
        if (new == label).all():
            return label
        label = new


def _rank(
    piece: np.ndarray, starts: np.ndarray, away: np.ndarray, length: int, c: MotionConfig
) -> list[int]:
    """Labels of the pieces, most motion first after the first mover; early ones are merged in
    `piece`."""
    sizes = {int(index): int((piece == index).sum()) for index in np.unique(piece)}
    large = [index for index, size in sizes.items() if size >= c.least]
    if not large:
        return []
    begins = {index: float(np.median(starts[piece == index])) for index in large}
    most = max(sizes.values())
    first = min(begins[index] for index in large if sizes[index] >= 0.2 * most)
    early = [index for index in large if begins[index] <= first + c.together * length]
    piece[np.isin(piece, early)] = early[0]
    rest = [index for index in large if index not in early]
    return [early[0], *sorted(rest, key=lambda index: -away[piece == index].sum())]


def _fill(points: np.ndarray, shape: tuple[int, ...], step: int) -> Bool[np.ndarray, "H W"]:
    """The area that grid points stand for, small gaps closed."""
    mask = np.zeros(shape, np.uint8)
    columns, rows = points.astype(int).T
    mask[rows, columns] = 1
    mask = cv2.dilate(mask, np.ones((step, step), np.uint8))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3 * step, 3 * step))
    return cv2.morphologyEx(mask, cv2.MORPH_CLOSE, disc) > 0


def build(config: PreprocessConfig, folder: Path) -> MotionSegmenter:
    """Names from `--entities`; without, two regions of which the second may be missing."""
    names = tuple(name.strip() for name in config.entities.split(",") if name.strip())
    if len(set(names)) < len(names):
        raise UsageError(f"--entities {config.entities} names an entity twice")
    if names:
        return MotionSegmenter(names, required=len(names))
    return MotionSegmenter(("moving_0", "moving_1"), required=1)
