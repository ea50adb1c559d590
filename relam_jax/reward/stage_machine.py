"""The reward of method §4: stage k of M pays [k + φ(d / D_k)] / M a step, plus bonuses.

Everything here is for one environment; `jax.vmap` makes it a batch.

- The dense term compares the mean over entities and views with what it was when the stage began.
- A stage is passed when the worst entity and view is within θ_s = max(ratio · its distance when the
stage began, floor).
- Passing a stage never lowers the reward: φ ≤ 1, and the next stage starts at k + 1 + φ ≥ k + 1.
- After the last stage the reward is 1 + final bonus · φ(d / floor).
- It never reads the simulator's success flag.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from relam_jax.reward.distance import keypoint_distance
from relam_jax.reward.shaping import SHAPING, Form


@dataclass(frozen=True)
class RewardConfig:
    """Form and thresholds of the keypoint reward."""

    form: Form = "exp"
    """φ."""
    dense: Literal["mean", "worst"] = "mean"
    """How the distances of entities and views make the dense term's d (the gate always takes the
    worst)."""
    success_ratio: float = 0.0
    """θ_s as a share of the worst distance when the stage began. 0.15 lets the first stages of
    drawer_open pass 3 cm beside the plan, and the gripper then meets the handle from above."""
    success_floor: float = 0.02
    """Least θ_s, image sides."""
    stage_bonus: float = 0.0
    """Paid once when a subgoal is met (the step from k to k + 1 already pays for ever)."""
    final_bonus: float = 0.0
    """Paid every step once the last subgoal was met, times φ(d / floor): it draws on to the goal
    itself, where a threshold alone would leave the last millimetres unpaid."""


class StageState(NamedTuple):
    """Where an episode stands in its plan."""

    stage: Int[Array, ""]
    """k, subgoals met so far."""
    distance: Float[Array, "V E"]
    """the last known distances to the current subgoal, image sides."""
    dense_start: Float[Array, ""]
    """D_k: the dense term's distance when stage k began."""
    worst_start: Float[Array, ""]
    """the worst entity's and view's distance when stage k began."""


class Goal(NamedTuple):
    """An episode's plan, as the reward needs it."""

    subgoals: Float[Array, "S V E K 2"]
    valid: Bool[Array, "V E K"]
    num_stages: Int[Array, ""]
    """M."""


def _reduce(distance: Float[Array, "V E"], goal: Goal, how: str) -> Float[Array, ""]:
    real = goal.valid.any(-1)
    if how == "worst":
        return jnp.where(real, distance, 0.0).max()
    return jnp.where(real, distance, 0.0).sum() / jnp.maximum(real.sum(), 1)


def _enter(
    stage: Int[Array, ""],
    keypoints: Float[Array, "V E K 2"],
    visibility: Bool[Array, "V E K"],
    last: Float[Array, "V E"],
    goal: Goal,
    config: RewardConfig,
) -> StageState:
    subgoal = goal.subgoals[jnp.minimum(stage, goal.num_stages - 1)]
    distance = keypoint_distance(keypoints, visibility & goal.valid, subgoal, last)
    return StageState(
        stage,
        distance,
        jnp.maximum(_reduce(distance, goal, config.dense), 1e-6),
        _reduce(distance, goal, "worst"),
    )


def start_stage(
    keypoints: Float[Array, "V E K 2"],
    visibility: Bool[Array, "V E K"],
    goal: Goal,
    config: RewardConfig,
) -> StageState:
    """The state at the first frame of an episode."""
    hidden = jnp.zeros(goal.valid.shape[:2])
    return _enter(jnp.zeros((), jnp.int32), keypoints, visibility, hidden, goal, config)


def keypoint_reward(
    state: StageState,
    keypoints: Float[Array, "V E K 2"],
    visibility: Bool[Array, "V E K"],
    goal: Goal,
    config: RewardConfig,
) -> tuple[Float[Array, ""], StageState]:
    """Reward of having come to `keypoints`, and the state that the next step starts from."""
    stages = goal.num_stages.astype(jnp.float32)
    subgoal = goal.subgoals[jnp.minimum(state.stage, goal.num_stages - 1)]
    distance = keypoint_distance(keypoints, visibility & goal.valid, subgoal, state.distance)
    threshold = jnp.maximum(config.success_ratio * state.worst_start, config.success_floor)
    done = state.stage >= goal.num_stages
    passed = ~done & (_reduce(distance, goal, "worst") <= threshold)

    stay = state._replace(distance=distance)
    enter = _enter(state.stage + 1, keypoints, visibility, distance, goal, config)
    new = StageState(*(jnp.where(passed, a, b) for a, b in zip(enter, stay, strict=True)))
    dense = _reduce(new.distance, goal, config.dense)
    phi = SHAPING[config.form](dense / new.dense_start)
    progress = (new.stage + phi) / stages
    finished = new.stage >= goal.num_stages
    nearness = SHAPING[config.form](dense / config.success_floor)
    reward = jnp.where(finished, 1.0 + config.final_bonus * nearness, progress)
    return reward + config.stage_bonus * passed, new
