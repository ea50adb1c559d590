"""The scripted expert led past anticipated subgoals: how far off are they, whatever the policy?"""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float

from relam_jax.reward.distance import keypoint_distance
from relam_jax.training.goal_env import GoalEnv

_to_each = jax.jit(jax.vmap(jax.vmap(keypoint_distance, in_axes=(None, None, 0, 0))))


class Led(NamedTuple):
    """One episode of the expert in each environment."""

    share: Float[np.ndarray, "N S"]
    """worst distance of a view and entity to a subgoal as a share of its θ_s, when it was least."""
    nearest: Float[np.ndarray, "N S V E"]
    """all distances at that moment, image sides; NaN where an entity was not seen until the end."""
    success: Bool[np.ndarray, " N"]
    """the simulator's flag at any env_step."""


def lead_expert(env: GoalEnv, env_steps: int) -> Led:
    """Let the expert act in initial states 0, 1, … at each of `env_steps` env_steps.

    Raises RuntimeError or ValueError where there is no expert.
    """
    env.reset(init_states=np.arange(env.num_envs) % env.env.num_init_states)
    goal, simulator = env.goal, env.env
    valid, threshold = np.asarray(goal.valid), np.asarray(goal.threshold)
    share, nearest = np.full(threshold.shape[:-2], np.inf), np.full(threshold.shape, np.nan)
    # what was not seen yet is not met
    distance = np.where(valid.max(-1)[:, None], np.float32(np.inf), np.zeros_like(threshold))
    success = np.zeros(env.num_envs, bool)
    for _ in range(env_steps):
        seen = simulator.step(simulator.scripted_actions())
        distance = np.asarray(
            _to_each(seen.keypoints, seen.visibility & valid, goal.subgoals, distance)
        )
        worst = (distance / threshold).max((2, 3))
        nearest = np.where((worst < share)[..., None, None], distance, nearest)
        share = np.minimum(share, worst)
        success |= seen.success
    return Led(share, nearest, success)
