"""`two_flows`: Lucas-Kanade and group flow over the whole clip, and of each entity the tracks that
bear out better.

Group flow (group_flow.py) follows plain surfaces to which Lucas-Kanade does not cling, but now and
then takes a whole entity along with what passes by. No truth is needed to tell: it is believed
unless fewer of its points are seen where it looks as in frame 0. Where the two are far apart, so
that one of them must be wrong by much, there have to be clearly more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.trackers.base import Tracks
from preprocess_torch.trackers.group_flow import GroupFlowTracker
from preprocess_torch.trackers.lucas_kanade import LucasKanadeTracker
from preprocess_torch.trackers.patches import patches_at


@dataclass(frozen=True)
class TwoFlowsConfig:
    """When group flow is believed: by its advantage, how much more of its points and frames are
    seen and alike, in parts of all."""

    grey: float = 15.0
    """mean difference of a patch to frame 0, grey levels, at which a seen point counts 1/e."""
    advantage: float = -0.05
    """least one."""
    far: float = 0.05
    """medians of the points this far apart in some frame, in parts of the short side, are far."""
    far_advantage: float = 0.03
    """least one then."""


class TwoFlowsTracker:
    """See the module's docstring."""

    def __init__(self, config: TwoFlowsConfig | None = None):
        self.config = config or TwoFlowsConfig()
        self._plain, self._group = LucasKanadeTracker(), GroupFlowTracker()

    def describe(self) -> dict[str, Any]:
        """See `Tracker`."""
        parts = {"plain": self._plain.describe(), "group": self._group.describe()}
        return {"name": "two_flows", "version": 1, **asdict(self.config), **parts}

    def inputs(self, path: Path) -> tuple[Path, ...]:
        """Nothing but the video."""
        return ()

    def track(
        self,
        frames: UInt8[np.ndarray, "T H W 3"],
        queries: Float[np.ndarray, "Q 2"],
        entity_id: Int[np.ndarray, " Q"],
        path: Path,
        labels: UInt8[np.ndarray, "H W"] | None = None,
    ) -> Tracks:
        """See `Tracker`."""
        plain = self._plain.track(frames, queries, entity_id, path, labels)
        group = self._group.track(frames, queries, entity_id, path, labels)
        better = self._better(frames, plain, group, entity_id)
        return Tracks(
            np.where(better[:, None], group.points, plain.points),
            np.where(better, group.visibility, plain.visibility),
            np.where(better, group.confidence, plain.confidence),
        )

    def _better(
        self,
        frames: UInt8[np.ndarray, "T H W 3"],
        plain: Tracks,
        group: Tracks,
        entity_id: Int[np.ndarray, " Q"],
    ) -> Bool[np.ndarray, " Q"]:
        """The points of entities that group flow has followed better."""
        c = self.config
        advantage = self._borne_out(frames, group) - self._borne_out(frames, plain)
        apart = np.linalg.norm(group.points - plain.points, axis=-1)
        better = np.zeros(len(entity_id), bool)
        for entity in np.unique(entity_id):
            mine = entity_id == entity
            far = np.median(apart[:, mine], axis=1).max() > c.far * min(frames.shape[1:3])
            better[mine] = advantage[mine].mean() > (c.far_advantage if far else c.advantage)
        return better

    def _borne_out(
        self, frames: UInt8[np.ndarray, "T H W 3"], tracks: Tracks
    ) -> Float[np.ndarray, " Q"]:
        """The share of the clip in which a point is seen and its place looks as in frame 0."""
        first, total = None, np.zeros(tracks.points.shape[1])
        for frame, points, seen in zip(frames, tracks.points, tracks.visibility, strict=True):
            patches = patches_at(cv2.GaussianBlur(frame, (0, 0), 0.9), points - 0.5, 7)
            first = patches if first is None else first
            apart = abs(patches - first).mean((1, 2))
            total += seen * np.exp(-((apart / self.config.grey) ** 2))
        return total / len(frames)


def build(config: PreprocessConfig) -> TwoFlowsTracker:
    """Defaults; `config` has nothing to say here."""
    return TwoFlowsTracker()
