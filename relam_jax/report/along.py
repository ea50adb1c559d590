"""The keypoint reward along given keypoints: those of a demonstration, or of a watched episode."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int

from relam_jax.reward.stage_machine import (
    Goal,
    RewardConfig,
    StageState,
    keypoint_reward,
    start_stage,
)


class Along(NamedTuple):
    """What the stage machine says along F + 1 frames; row t is about frame t + 1."""

    reward: Float[Array, " F"]
    stage: Int[Array, " F"]
    """subgoals met."""
    distance: Float[Array, "F V E"]
    """to the current subgoal, image sides."""


@partial(jax.jit, static_argnames="config")
def reward_along(
    keypoints: Float[Array, "T V E K 2"],
    visibility: Bool[Array, "T V E K"],
    goal: Goal,
    config: RewardConfig,
) -> Along:
    """Run the stage machine over given keypoints, as training does over those of a simulator."""

    def advance(state: StageState, frame: tuple[Array, Array]) -> tuple[StageState, Along]:
        reward, state = keypoint_reward(state, *frame, goal, config)
        return state, Along(reward, state.stage, state.distance)

    start = start_stage(keypoints[0], visibility[0], goal, config)
    return jax.lax.scan(advance, start, (keypoints[1:], visibility[1:]))[1]
