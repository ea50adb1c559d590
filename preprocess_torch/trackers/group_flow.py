"""Lucas-Kanade flow in which the points of an entity share what they know, one half of `two_flows`.

For surfaces without texture; it may take a whole entity along with what passes by. It differs from
`lucas_kanade` in four things:

1. each point's flow counts as far as its patch of frame 0 has texture, a direction at a time; for
   the rest the point follows an affine motion of its entity (groups.py);
2. flow counts little where the surroundings look neither as in frame 0 nor like still ground: the
   edge of an arm that passes by would take the points of a plain surface with it;
3. the looks of patches are compared on pixels of the entity alone;
4. a point that was seen goes on being seen while its place looks as before, though it has no
   texture, as long as its entity as a whole is followed by points that have.

It needs the masks of frame 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from preprocess_torch.trackers.base import Tracks
from preprocess_torch.trackers.groups import Group, gains
from preprocess_torch.trackers.lucas_kanade import (
    LucasKanadeConfig,
    LucasKanadeTracker,
    PyramidFlow,
    _Picture,
    _View,
    _working_size,
)
from preprocess_torch.trackers.patches import patches_at


@dataclass(frozen=True)
class GroupFlowConfig(LucasKanadeConfig):
    """Lengths are pixels of the working image; what is new beside `lucas_kanade`."""

    levels: int = 2
    texture: float = 6.0
    """mean gradient, grey levels a pixel, at which own flow and group count alike."""
    clean: float = 6.0
    """mean difference of the surroundings, grey levels, at which flow counts half."""
    near: float = 15.0
    """distance at which a companion counts half."""
    kept: float = 0.1
    """drift against a companion, over their distance, at which it counts a quarter."""
    edge: float = 0.1
    """a surface whose area has shrunk to less than this, or turned over, is not seen."""
    enough: float = 3.0  # pyright: ignore[reportIncompatibleVariableOverride]
    """points with full texture that an entity needs for those without to count as seen."""


class _Near(NamedTuple):
    """What the patches around the queries hold in frame 0."""

    own: np.ndarray
    """(Q, P): weights of the entity's own pixels, sum 1."""
    other: np.ndarray
    """(Q, P) bool: the rest."""
    valid: np.ndarray
    """(Q, P): 0 on and near other entities, which move on their own, else 1."""
    first: _Picture
    ground: np.ndarray
    """(h, w, 3): 255 where frame 0 shows no entity."""

    @staticmethod
    def make(
        labels: np.ndarray,
        size: tuple[int, int],
        start: np.ndarray,
        entity_id: np.ndarray,
        first: _Picture,
        side: int,
    ) -> _Near:
        """Read the label image (index of the entity + 1, 0 for none) around the queries."""
        labels = cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST)
        around = patches_at(_three(labels), np.round(start), side)[..., 0]
        own = (around == entity_id[:, None] + 1).astype(np.float32)
        valid = np.ones_like(own)
        for index in np.unique(entity_id):
            foreign = ((labels > 0) & (labels != index + 1)).astype(np.uint8)
            foreign = cv2.dilate(foreign, np.ones((5, 5), np.uint8))
            mine = entity_id == index
            valid[mine] = 1 - patches_at(_three(foreign), np.round(start[mine]), side)[..., 0]
        ground = _three((labels == 0).astype(np.uint8) * 255)
        weight = own / np.maximum(own.sum(1, keepdims=True), 1)
        return _Near(weight, own == 0, valid, first, ground)


class GroupFlowTracker(LucasKanadeTracker, PyramidFlow):
    """See the module's docstring."""

    config: GroupFlowConfig

    def __init__(self, config: GroupFlowConfig | None = None):
        super().__init__(config or GroupFlowConfig())

    def describe(self) -> dict[str, Any]:
        """See `Tracker`."""
        return super().describe() | {"name": "group_flow", "version": 1}

    def track(
        self,
        frames: UInt8[np.ndarray, "T H W 3"],
        queries: Float[np.ndarray, "Q 2"],
        entity_id: Int[np.ndarray, " Q"],
        path: Path,
        labels: UInt8[np.ndarray, "H W"] | None = None,
    ) -> Tracks:
        """See `Tracker`."""
        c = self.config
        size, scale = _working_size(frames.shape[1:3], c.short_side)
        # OpenCV's integers are pixel centres, hence the half
        start = (queries * scale - 0.5).astype(np.float32)
        if labels is None:
            raise ValueError("group flow needs the entities' masks")
        first = _Picture.make(frames[0], size, c.blur)
        origin = _View(first, start, patches_at(first.smooth, start, c.patch), 0)
        entities = [np.flatnonzero(entity_id == index) for index in np.unique(entity_id)]
        groups = [Group(start[e], c.near, c.kept) for e in entities]
        slow, points, seen, before = origin.patches, start, np.ones(len(start), bool), first
        patches, velocity = origin.patches, np.zeros_like(start)
        near = _Near.make(labels, size, start, entity_id, first, c.patch)
        clean = np.ones(len(start))
        gain_0 = gains(patches, near.valid, c.texture)
        history = [(points, seen, np.ones(len(start), np.float32))]
        last_seen = [_View(first, start[e], origin.patches[e], 0) for e in entities]
        for index, frame in enumerate(frames[1:], start=1):
            now = _Picture.make(frame, size, c.blur)
            # 1. flow
            flow, error = self._there_and_back(
                before, now, points, (points + velocity).astype(np.float32)
            )
            look = self._alike(now, flow, origin.patches, slow, near.own)
            now_clean = self._clean(before, now, flow, origin.patches, slow, near)
            own = seen & (error < c.round_trip) & (look < c.gate)
            # 2. what moves together
            gain = gain_0 * (own * np.minimum(clean, now_clean))[:, None, None]
            moved = np.array(points, np.float64)
            for mine, group in zip(entities, groups, strict=True):
                moved[mine] = group.motion(points[mine], flow[mine], gain[mine], 0.5)[0]
            off = (gain @ (flow - moved)[:, :, None])[:, :, 0]
            step = flow - points
            stray = np.linalg.norm(off, axis=-1) > c.stray
            for i in np.flatnonzero(stray):
                mates = own & (entity_id == entity_id[i])
                mates &= np.linalg.norm(points - points[i], axis=-1) < 30
                mates &= np.linalg.norm(step - step[i], axis=-1) < c.ally_step
                if mates.sum() - 1 >= c.allies:
                    stray[i] = False
            own &= ~stray
            gain[stray] = 0
            moved += np.where(stray[:, None], 0, off)
            # 3. the lost
            look = self._alike(now, moved, origin.patches, slow, near.own)
            total = np.bincount(entity_id, _known(gain))[entity_id]
            good = seen & (look < c.gate) & (own | (total >= c.enough))
            lost = np.flatnonzero(~good)
            for mine, group in zip(entities, groups, strict=True):
                far, turn = group.motion(
                    start[mine], moved[mine], gain_0[mine] * good[mine, None, None], 1.0
                )
                known = (_known(gain_0[mine]) * good[mine]).sum()
                away = ~good[mine] & (known >= c.enough)
                moved[mine[away]] = far[away]
                back = turn < c.edge
                good[mine[back & ~own[mine]]] = False
                far_look = self._alike(now, far, origin.patches[mine], slow[mine], near.own[mine])
                again = away & ~back & (far_look < c.carry)
                good[mine[again]] = True
            moved = moved.astype(np.float32)
            velocity = moved - points
            found = self._pull(origin, now, moved, lost, c.recover, near)
            good[lost[found]] = True
            error = np.where(own, error, 0.5 * c.round_trip)
            self._pull(origin, now, moved, np.flatnonzero(good), c.anchor, near, gain_0)
            # 6. the hidden
            patches = patches_at(now.smooth, moved, c.patch)
            clean = self._clean(before, now, moved, origin.patches, slow, near)
            for number, mine in enumerate(entities):
                share = good[mine].mean()
                if share > c.mostly:
                    last_seen[number] = _View(now, moved[mine], patches[mine], index)
                elif share < c.hardly and self._find_again(
                    last_seen[number], now, index, moved, good, mine
                ):
                    patches[mine] = patches_at(now.smooth, moved[mine], c.patch)
                groups[number].observe(moved[mine], good[mine])

            slow = np.where(good[:, None, None], (1 - c.average) * slow + c.average * patches, slow)
            trust = np.clip(1 - 0.5 * error / c.round_trip - 0.5 * look / c.gate, 0, 1)
            history.append((moved, good, np.where(good, trust, 0).astype(np.float32)))
            before, points, seen = now, moved, good
        tracks, visibility, confidence = (np.stack(column) for column in zip(*history, strict=True))
        return Tracks(((tracks + 0.5) / scale).astype(np.float32), visibility, confidence)

    def _pull(
        self,
        origin: _View,
        now: _Picture,
        moved: np.ndarray,
        which: np.ndarray,
        reach: float,
        near: _Near,
        gain: np.ndarray | None = None,
    ) -> np.ndarray:
        """Put points `moved[which]` where flow from frame 0 says, and tell which could be.

        With a `gain` only as far as that says, and only where it looks better.
        """
        if len(which) == 0:
            return np.zeros(0, bool)
        c, patches, own = self.config, origin.patches[which], near.own[which]
        there, error = self._there_and_back(origin.picture, now, origin.points[which], moved[which])
        look_there = self._alike(now, there, patches, patches, own)
        found = np.linalg.norm(there - moved[which], axis=-1) < reach
        found &= (error < c.round_trip) & (look_there < c.gate)
        if gain is not None:
            found &= look_there < self._alike(now, moved[which], patches, patches, own)
        shift = (there - moved[which])[found]
        if gain is not None:
            shift = (gain[which[found]] @ shift[:, :, None])[:, :, 0]
        moved[which[found]] += shift.astype(np.float32)
        return found

    def _clean(
        self,
        before: _Picture,
        now: _Picture,
        points: np.ndarray,
        patch_0: np.ndarray,
        slow: np.ndarray,
        near: _Near,
    ) -> np.ndarray:
        """Between 0 and 1: whether patches and surroundings look as in frame 0 or like still
        ground."""
        c = self.config
        here = patches_at(now.smooth, points, c.patch)
        last = patches_at(before.smooth, points, c.patch)
        known = patches_at(near.ground, points, c.patch) > 254
        ground = np.where(known, patches_at(near.first.smooth, points, c.patch), last)
        still = np.minimum(_apart(here, last), _apart(here, ground))
        other = np.where(near.other, still, _apart(here, slow))
        error = np.minimum(_apart(here, patch_0), other).mean(1)
        return 1 / (1 + (error / c.clean) ** 4)

    def _alike(
        self,
        picture: _Picture,
        points: np.ndarray,
        patch_0: np.ndarray,
        slow: np.ndarray,
        weight: np.ndarray,
    ) -> np.ndarray:
        """Mean absolute difference to the nearer of two patches over the entity's own pixels."""
        here = patches_at(picture.smooth, points, self.config.patch)
        to_0, to_slow = _apart(here, patch_0), _apart(here, slow)
        return np.minimum((to_0 * weight).sum(1), (to_slow * weight).sum(1))


_THIRD = np.full(3, 1 / 3, np.float32)


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Difference of patches (Q, P, 3), mean over the colours."""
    return abs(a - b) @ _THIRD


def _known(gain: np.ndarray) -> np.ndarray:
    return np.trace(gain, axis1=1, axis2=2) / 2


def _three(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, -1)
