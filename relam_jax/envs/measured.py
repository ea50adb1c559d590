"""How far tracked keypoints are from the truth: an instrument for evaluations.

`TrackedEnv` sees images alone. This wrapper holds the simulator beside it, puts each candidate of
the first images on the body that it shows, and compares; what it passes on is the tracker's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from relam_jax.envs.candidates import BodyPoints
from relam_jax.envs.episodes import ProjectedEnv
from relam_jax.envs.projected import FollowedPoints
from relam_jax.envs.protocol import Candidates, EnvState
from relam_jax.envs.tracked import TrackedEnv


class MeasuredEnv:
    """Passes everything on to a `TrackedEnv`, adding up its errors."""

    def __init__(self, tracked: TrackedEnv, simulator: ProjectedEnv) -> None:
        """`simulator`: what is behind the cameras of `tracked`."""
        self._tracked, self._simulator = tracked, simulator
        self._lifted: dict[int, BodyPoints] = {}
        self._followed: FollowedPoints | None = None
        self._gaps: list[np.ndarray] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tracked, name)

    def reset(
        self,
        mask: Bool[np.ndarray, " N"] | None = None,
        init_states: Int[np.ndarray, " N"] | None = None,
    ) -> Candidates:
        """See `BatchedEnv.reset`."""
        found = self._tracked.reset(mask, init_states)
        began = range(len(found.points)) if mask is None else np.flatnonzero(mask).tolist()
        for index in began:
            seen = found.points[index], found.visibility[index]
            self._lifted[index] = self._simulator.lift(index, *seen)
        return found

    def follow(
        self,
        indices: Int[np.ndarray, "N V E K"],
        mask: Bool[np.ndarray, " N"] | None = None,
    ) -> EnvState:
        """See `BatchedEnv.follow`."""
        state = self._tracked.follow(indices, mask)
        lifted = [self._lifted[index] for index in range(len(indices))]
        self._followed = self._simulator.attach(lifted, self._tracked.indices)
        return state

    def step(self, action: Float[np.ndarray, "N A"]) -> EnvState:
        """See `BatchedEnv.step`."""
        state = self._tracked.step(action)
        assert self._followed is not None, "call follow first"
        truth = self._simulator.project(self._followed)
        gap = np.linalg.norm(state.keypoints - truth, axis=-1)
        self._gaps.append(gap[state.visibility & self._followed.valid])
        return state

    def take_error(self) -> float:
        """Median distance to the truth of the keypoints that counted as seen since the last call,
        image sides; NaN if there were none."""
        gaps, self._gaps = np.concatenate([np.zeros(0), *self._gaps]), []
        return float(np.median(gaps)) if len(gaps) else float("nan")
