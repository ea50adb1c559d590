"""Success of a policy on initial states it was never trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from relam_jax.training.goal_env import GoalEnv


class Evaluation(NamedTuple):
    """One row a seed, one column an episode."""

    first_success: Float[np.ndarray, "S P"]
    """agent steps until the simulator's success flag first was up, inf if it never was."""
    success_end: Bool[np.ndarray, "S P"]
    """the flag in the last agent step."""
    stage: Float[np.ndarray, "S P"]
    """share of the subgoals met at the end."""
    keypoint_return: Float[np.ndarray, "S P"]
    """undiscounted sum of the reward an episode."""

    @property
    def success_any(self) -> Bool[np.ndarray, "S P"]:
        """the flag at any env_step of the episode."""
        return np.isfinite(self.first_success)


def evaluate(
    env: GoalEnv, act: Callable[[Any], Array], num_seeds: int, agent_steps: int
) -> Evaluation:
    """Run every environment of `env` through one episode; environments are (seed, episode),
    seed-major.

    `act` maps observations (S, P, …) to actions (S, P, A). Episode p takes the initial state p, the
    same for each seed.
    """
    episodes = env.num_envs // num_seeds
    states = np.tile(np.arange(episodes) % env.env.num_init_states, num_seeds)
    obs = env.reset(init_states=states)
    first, total, step = np.full(env.num_envs, np.inf), np.zeros(env.num_envs), None
    for t in range(1, agent_steps + 1):
        action = act(jax.tree.map(lambda x: x.reshape(num_seeds, episodes, *x.shape[1:]), obs))
        step = env.step(np.asarray(action).reshape(env.num_envs, -1))
        obs = step.obs
        first = np.where(step.success, np.minimum(first, t), first)
        total += np.asarray(step.reward)
    assert step is not None and step.truncated.all(), "an episode is longer than agent_steps"
    share = np.asarray(step.stage) / np.asarray(step.num_stages)
    rows = (first, step.success, share, total)
    return Evaluation(*(np.asarray(x).reshape(num_seeds, episodes) for x in rows))


def summary(evaluation: Evaluation) -> dict[str, float]:
    """Means over seeds and episodes, and each seed's own success."""
    out = {
        "success": float(evaluation.success_any.mean()),
        "success_end": float(evaluation.success_end.mean()),
        "stage": float(evaluation.stage.mean()),
        "return": float(evaluation.keypoint_return.mean()),
    }
    for s, row in enumerate(evaluation.success_any):
        out[f"success_seed{s}"] = float(row.mean())
    return jax.tree.map(float, out)
