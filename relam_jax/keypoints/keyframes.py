"""Where a task's chain of nearly linear motions bends (method §2): keyframes, found jointly over a
task's clips.

Clips of one task are first brought onto the time axis of a reference clip by dynamic time warping,
so that a keyframe means the same in each of them; then one selector runs over the points of all
clips
together:

- `angle`: t_{k+1} = argmin over t in [t_k + m, t_k + M] of the motion-weighted mean over points i
of
  angle(P_i(t_k) − P_i(t), P_i(t + w) − P_i(t)), w = m.
- `waypoints`: fewest waypoints between which the points stay within `tolerance` of straight lines
  (dynamic programming, as AWE, Shi et al. 2023; the lines are compared as paths, whatever the
  speed).

The last frame is always a keyframe, the first never is (it is where the episode starts).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from relam_jax.keypoints.selection import EpisodeTracks


@dataclass(frozen=True)
class KeyframeConfig:
    """How keyframes are found."""

    selector: Literal["waypoints", "angle"] = "waypoints"
    """Which rule."""
    tolerance: float = 0.01
    """`waypoints`: largest distance from the straight line between keyframes, image sides."""
    max_count: int = 8
    """`waypoints`: most keyframes; the tolerance is loosened by 20 % at a time until they do."""
    min_gap: float = 0.1
    """`angle`: m, least gap between keyframes as a fraction of the video."""
    max_gap: float = 0.4
    """`angle`: M, largest gap between keyframes as a fraction of the video."""
    leeway: float = 2.0
    """Frames around a keyframe among which its moment is left open: the anticipation model learns
    the moment nearest to what it anticipates. Clips are aligned to a frame or two at best, in which
    a hand moves a centimetre. More would cut corners."""
    max_frames: int = 48
    """Keyframes are chosen among at most so many evenly spaced frames of a clip."""


class Keyframes(NamedTuple):
    """Keyframes of a set of clips of one task."""

    frames: Int[np.ndarray, "D S"]
    """for each of D clips the frame of each of S keyframes, increasing, the last being the clip's
    last."""
    counts_alone: Int[np.ndarray, " D"]
    """how many keyframes each clip would have had by itself: the spread that joint selection
    removes."""


def _filled(clip: EpisodeTracks) -> Float[np.ndarray, "T V E K 2"]:
    flat = clip.points.reshape(len(clip.points), -1, 2)
    seen = clip.visibility.reshape(len(clip.points), -1)
    return fill_hidden(flat, seen).reshape(clip.points.shape)


def fill_hidden(points: Float[np.ndarray, "T P 2"], seen: Bool[np.ndarray, "T P"]) -> np.ndarray:
    """Replace hidden positions by linear interpolation in time (held at the ends); never-seen
    points stay."""
    filled, time = points.copy(), np.arange(len(points))
    for p in np.flatnonzero(seen.any(0) & ~seen.all(0)):
        for axis in range(2):
            filled[:, p, axis] = np.interp(time, time[seen[:, p]], points[seen[:, p], p, axis])
    return filled


def dynamic_time_warping(
    a: Float[np.ndarray, "A F"], b: Float[np.ndarray, "B F"]
) -> Int[np.ndarray, " A"]:
    """For each row of `a` the row of `b` that shows the same phase; increasing from 0 to B − 1."""
    distance = np.linalg.norm(a[:, None] - b[None], axis=-1)
    cost = np.full((len(a) + 1, len(b) + 1), np.inf)
    cost[0, 0] = 0.0
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            cost[i, j] = distance[i - 1, j - 1] + min(
                cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1]
            )
    partners: list[list[int]] = [[] for _ in a]
    i, j = len(a), len(b)
    while i > 0 and j > 0:
        partners[i - 1].append(j - 1)
        step = np.argmin([cost[i - 1, j - 1], cost[i - 1, j], cost[i, j - 1]])
        i, j = i - int(step != 2), j - int(step != 1)
    match = np.array([int(np.median(p)) for p in partners])
    match[0], match[-1] = 0, len(b) - 1
    return match


def phase_features(clip: EpisodeTracks) -> Float[np.ndarray, "T F"]:
    """Entity centroids a view as displacement from the start and from the end: alike where the
    phase is alike."""
    ever = np.any(clip.visibility, axis=0, keepdims=True)[..., None]
    centroid = (_filled(clip) * ever).sum(3) / np.maximum(ever.sum(3), 1)
    centroid = centroid.reshape(len(centroid), -1)
    return np.concatenate([centroid - centroid[0], centroid - centroid[-1]], axis=1)


def straightness_error(
    filled: Float[np.ndarray, "T V E K 2"], clip: EpisodeTracks
) -> Float[np.ndarray, "T T"]:
    """Entry (i, j), i < j: the largest distance between frames i and j of the points from straight
    paths.

    All points of a frame share one parameter along their segments. The distance of a frame is the
    mean over the points of an entity and view, of the worst entity and view, image sides.
    """
    frames = len(filled)
    real: np.ndarray = np.any(clip.visibility, axis=0)  # V E K
    share = real / np.maximum(real.sum(-1, keepdims=True), 1)
    x = filled * real[..., None]
    error = np.zeros((frames, frames))
    for i in range(frames - 2):
        ends = x[i + 2 :]  # J: candidates for the segment's end
        direction = ends - x[i]
        length = np.maximum((direction**2).sum((1, 2, 3, 4)), 1e-12)
        for t in range(i + 1, frames - 1):
            later = slice(max(t - i - 1, 0), None)  # ends after t
            offset = x[t] - x[i]
            along = np.clip((direction[later] * offset).sum((1, 2, 3, 4)) / length[later], 0, 1)
            gap = offset - along[:, None, None, None, None] * direction[later]
            worst = (np.linalg.norm(gap, axis=-1) * share).sum(-1).max((1, 2))
            row = error[i, i + 2 :][later]
            np.maximum(row, worst, out=row)
    return error


def waypoints(error: Float[np.ndarray, "T T"], tolerance: float) -> list[int]:
    """Fewest frames that end segments whose `error` stays within `tolerance`; ties go to the
    smallest sum."""
    frames = len(error)
    best: list[tuple[int, float, int]] = [(0, 0.0, -1)]  # segments, summed error, previous waypoint
    for j in range(1, frames):
        options = [
            (best[i][0] + 1, best[i][1] + error[i, j], i)
            for i in range(j)
            if error[i, j] <= tolerance
        ]
        best.append(min(options))
    chain, j = [], frames - 1
    while j > 0:
        chain.append(j)
        j = best[j][2]
    return chain[::-1]


def angle_keyframes(
    points: Float[np.ndarray, "T P 2"], min_gap: float, max_gap: float
) -> list[int]:
    """The `angle` rule on filled tracks; gaps are fractions of the clip."""
    last = len(points) - 1
    least, most = max(1, round(min_gap * last)), max(1, round(max_gap * last))
    chain, current = [], 0
    while current + least <= last - least:
        options = range(current + least, min(current + most, last - least) + 1)
        turns = []
        for t in options:
            back, ahead = points[current] - points[t], points[min(t + least, last)] - points[t]
            norms = np.linalg.norm(back, axis=-1) * np.linalg.norm(ahead, axis=-1)
            cosine = (back * ahead).sum(-1) / np.maximum(norms, 1e-12)
            angle = np.arccos(np.clip(cosine, -1, 1))
            moved = np.linalg.norm(back, axis=-1) + np.linalg.norm(ahead, axis=-1)
            turns.append((angle * moved).sum() / max(moved.sum(), 1e-12))
        current = options[int(np.argmin(turns))]
        chain.append(current)
    return [*chain, last]


def find_keyframes(clips: Sequence[EpisodeTracks], config: KeyframeConfig) -> Keyframes:
    """Keyframes of all clips of a task, the same number in each, meaning the same in each.

    The reference is the clip of median length. A segment's error over the set is the mean of the
    clips' errors.
    """
    lengths = np.array([len(clip.points) for clip in clips])
    reference = int(np.argsort(lengths, kind="stable")[len(clips) // 2])
    features = [phase_features(clip) for clip in clips]
    grids = [np.linspace(0, n - 1, min(n, config.max_frames)).round().astype(int) for n in lengths]
    filled = [_filled(clip) for clip in clips]

    def cut(points: Sequence[np.ndarray], members: Sequence[EpisodeTracks]) -> list[int]:
        if config.selector == "waypoints":
            errors = [straightness_error(p, c) for p, c in zip(points, members, strict=True)]
            error, tolerance = np.mean(errors, axis=0), config.tolerance
            while len(chain := waypoints(error, tolerance)) > config.max_count:
                tolerance *= 1.2
            return chain
        flat = [p[:, c.visibility.any(0)] for p, c in zip(points, members, strict=True)]
        return angle_keyframes(np.concatenate(flat, axis=1), config.min_gap, config.max_gap)

    alone = [len(cut([f[g]], [c])) for f, g, c in zip(filled, grids, clips, strict=True)]
    warps = [dynamic_time_warping(features[reference], f)[grids[reference]] for f in features]
    chain = cut([f[w] for f, w in zip(filled, warps, strict=True)], clips)
    return Keyframes(np.stack([w[chain] for w in warps]), np.array(alone))
