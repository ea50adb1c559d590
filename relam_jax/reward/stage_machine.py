"""The reward of method §4: stage k of M pays [k + φ(d / D_k)] / M a step, plus bonuses.

Everything here is for one environment; `jax.vmap` makes it a batch.

- The dense term compares the mean over entities and views with what it was when the stage began.
- A stage is passed when every entity is within its θ_s in every view, or has gone by.
- Passing a stage never lowers the reward: φ ≤ 1, and the next stage starts at k + 1 + φ ≥ k + 1.
- The last subgoal is never over: while it is held k is M, but the dense term goes on drawing to the
goal itself, where a threshold alone would leave the last millimetres unpaid.
- It never reads the simulator's success flag.
- The learner is paid the rise of the reward over 1 − γ, unless `pay` says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
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
    success_factor: float = 3.0
    """θ_s, the distance within which a subgoal counts as met, as a multiple of the plan's own error
    on clips never trained on, of that stage, view and entity."""
    success_floor: float = 0.02
    """Least θ_s, image sides: half of it costs drawer_open and door_open twice the env_steps."""
    success_cap: float = 0.04
    """Largest θ_s, image sides."""
    beside: float = 3.0
    """An entity has gone by its subgoal, and met it, once it is nearer to the next one than the two
    are to each other: where the plan is a little wrong, or where things move by themselves
    (door_close's panel swings at the start, and is past its first subgoal before a hand can be at
    its own). The effector's subgoal must also be within so many θ_s, and another entity be to move
    in that stage: on the way to an object it could pass beside the handle that it is to hook."""
    effector: str = "gripper"
    """The entity that is a means to an end: in the stages in which another entity is to move it
    counts less (where the plan has both a little wrong, a drawer held back by a gripper that is
    where it should be must still pay)."""
    effector_weight: float = 0.25
    """Its weight in the dense term in those stages; others have 1."""
    effector_slack: float = 2.0
    """Its θ_s is this many times larger in those stages."""
    patience: int = 10
    """Steps in a stage after which its θ_s grows, over as many again, to twice: the plan's views
    may contradict each other by more than θ_s, and a hand would stand for ever before a subgoal
    that no place meets. (door_open 100 % instead of 97, and sooner.)"""
    moves: float = 0.01
    """An entity is to move in a stage if its anticipated motion is so large, image sides, and no
    less than `success_factor` times its error."""
    carried: float = 0.02
    """The effector is a means in a stage in which another entity is to move so far, image sides.
    (On the way to a door that it only touches at the end it is what has to get there.)"""
    pay: Literal["progress", "level"] = "progress"
    """What the learner is paid a step: the rise of the reward over that of the step before, times
    1 / (1 − γ), or the reward itself. Both have the same best policy (potential-based shaping, Ng
    et al. 1999), but the critics need not learn what a state is worth already: door_open succeeds
    after a quarter of the env_steps."""
    stage_bonus: float = 0.0
    """Paid once when a subgoal but the last is met (the step from k to k + 1 already pays for
    ever)."""
    final_bonus: float = 0.0
    """Paid every step while the last subgoal is held."""


class StageState(NamedTuple):
    """Where an episode stands in its plan."""

    stage: Int[Array, ""]
    """k, subgoals met so far."""
    distance: Float[Array, "V E"]
    """the last known distances to the current subgoal, image sides."""
    dense_start: Float[Array, ""]
    """D_k: the dense term's distance when stage k began."""
    steps: Int[Array, ""]
    """since then."""


class Goal(NamedTuple):
    """An episode's plan, as the reward needs it."""

    subgoals: Float[Array, "S V E K 2"]
    valid: Bool[Array, "V E K"]
    num_stages: Int[Array, ""]
    """M."""
    threshold: Float[Array, "S V E"]
    """θ_s, image sides."""
    late: Float[Array, "S V E"]
    """θ_s when patience has come to its end, image sides."""
    reach: Float[Array, "S V E"]
    """how near a subgoal that is gone by must be to count, image sides (∞: anywhere)."""
    weight: Float[Array, "S V E"]
    """of the distances in the dense term."""


def stage_motion(
    start: Float[Array, "*B V E K 2"], subgoals: Float[Array, "*B S V E K 2"]
) -> Float[Array, "*B S V E"]:
    """How far the points of an entity and view are to go in each stage, mean, image sides."""
    chain = jnp.concatenate([start[..., None, :, :, :, :], subgoals], axis=-5)
    return jnp.linalg.norm(jnp.diff(chain, axis=-5), axis=-1).mean(-1)


def success_threshold(
    error: Float[Array, "*B S V E"], motion: Float[Array, "*B S V E"], config: RewardConfig
) -> Float[Array, "*B S V E"]:
    """θ_s, from the plan's own error on clips never trained on and the `stage_motion`, all in image
    sides. What is to move must have gone half its way, as far as the plan is so exact; what is to
    stay has the largest: a door nudged on the way to its handle can still be opened."""
    wanted = config.success_factor * error
    threshold = jnp.clip(wanted, config.success_floor, config.success_cap)
    half = jnp.maximum(motion / 2, wanted)
    to_move = motion >= jnp.maximum(config.moves, wanted)
    return jnp.where(to_move, jnp.minimum(threshold, half), config.success_cap)


def is_means(
    motion: Float[Array, "*B S V E"], effector: Bool[np.ndarray, " E"], config: RewardConfig
) -> Bool[Array, "*B S 1 E"]:
    """Whether the effector is a means to an end in a stage: another entity is to move."""
    other = ((motion >= config.carried) & ~effector).any((-2, -1), keepdims=True)
    return other & effector


def _reduce(distance: Float[Array, "V E"], stage: Array, goal: Goal, how: str) -> Float[Array, ""]:
    weight = jnp.where(goal.valid.any(-1), goal.weight[_current(stage, goal)], 0.0)
    if how == "worst":
        return (weight * distance).max()
    return (weight * distance).sum() / jnp.maximum(weight.sum(), 1e-6)


def _current(stage: Int[Array, ""], goal: Goal) -> Int[Array, ""]:
    return jnp.minimum(stage, goal.num_stages - 1)


def _enter(
    stage: Int[Array, ""],
    keypoints: Float[Array, "V E K 2"],
    visibility: Bool[Array, "V E K"],
    last: Float[Array, "V E"],
    goal: Goal,
    config: RewardConfig,
) -> StageState:
    subgoal = goal.subgoals[_current(stage, goal)]
    distance = keypoint_distance(keypoints, visibility & goal.valid, subgoal, last)
    dense_start = jnp.maximum(_reduce(distance, stage, goal, config.dense), 1e-6)
    return StageState(stage, distance, dense_start, jnp.zeros((), jnp.int32))


def start_stage(
    keypoints: Float[Array, "V E K 2"],
    visibility: Bool[Array, "V E K"],
    goal: Goal,
    config: RewardConfig,
) -> StageState:
    """The state at the first frame of an episode. Hidden entities count as where they are believed
    to be, else as an image side away: what nobody has seen has met no subgoal."""
    away = jnp.ones(goal.valid.shape[:2])
    believed = keypoint_distance(keypoints, goal.valid, goal.subgoals[0], away)
    return _enter(jnp.zeros((), jnp.int32), keypoints, visibility, believed, goal, config)


def level(state: StageState, goal: Goal, config: RewardConfig) -> Float[Array, ""]:
    """[k + φ(d / D_k)] / M and the final bonus: what a state is worth a step."""
    d = _reduce(state.distance, state.stage, goal, config.dense)
    k = _current(state.stage, goal)
    worth = (k + SHAPING[config.form](d / state.dense_start)) / goal.num_stages
    return worth + config.final_bonus * (state.stage == goal.num_stages)


def keypoint_reward(
    state: StageState,
    keypoints: Float[Array, "V E K 2"],
    visibility: Bool[Array, "V E K"],
    goal: Goal,
    config: RewardConfig,
) -> tuple[Float[Array, ""], StageState]:
    """Reward of having come to `keypoints`, and the state that the next step starts from."""
    current, final = _current(state.stage, goal), goal.num_stages - 1
    seen, subgoal = visibility & goal.valid, goal.subgoals[current]
    distance = keypoint_distance(keypoints, seen, subgoal, state.distance)
    ahead = goal.subgoals[jnp.minimum(current + 1, final)]
    infinite = jnp.full_like(distance, jnp.inf)
    to_next = keypoint_distance(keypoints, seen, ahead, infinite)
    gap = keypoint_distance(subgoal, goal.valid, ahead, infinite)
    gone_by = (distance <= goal.reach[current]) & (to_next < gap) & (current < final)
    lateness = jnp.clip((state.steps - config.patience) / max(config.patience, 1), 0, 1)
    threshold = (1 - lateness) * goal.threshold[current] + lateness * goal.late[current]
    near = (distance <= threshold) | gone_by
    met = (near | ~goal.valid.any(-1)).all()

    stage = current + ((current == final) & met)
    stay = state._replace(stage=stage, distance=distance, steps=state.steps + 1)
    enter = _enter(state.stage + 1, keypoints, visibility, distance, goal, config)
    passed = met & (current < final)
    new = StageState(*(jnp.where(passed, a, b) for a, b in zip(enter, stay, strict=True)))
    return level(new, goal, config) + config.stage_bonus * passed, new
