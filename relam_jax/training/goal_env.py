"""A simulator, the plan of each episode and the keypoint reward as one batched environment.

At reset the planner chooses keypoints and subgoals; at each step one jitted, vmapped function turns
keypoints into observation, reward and the next stage state. Episodes reset by themselves, and the
observation they ended in is returned beside the new one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from relam_jax.agents.frames import Sight, stacked
from relam_jax.anticipation.plan import Plan
from relam_jax.diffusion.pay import VideoPay
from relam_jax.envs.protocol import BatchedEnv, Candidates, EnvState
from relam_jax.reward.stage_machine import (
    Goal,
    RewardConfig,
    StageState,
    is_means,
    keypoint_reward,
    level,
    stage_motion,
    start_stage,
    success_threshold,
)
from relam_jax.training.demonstrations import shrunk
from relam_jax.training.imitation import OF_PLACES, box_middle, mean_point


class Step(NamedTuple):
    """What an agent step led to; axis N environments."""

    obs: Float[Array, "N D"] | Sight
    """of the new episode where the old one ended."""
    final_obs: Float[Array, "N D"] | Sight
    """of the state the action led to, also where the episode ended."""
    reward: Float[Array, " N"]
    pay: Float[Array, " N"]
    """what the learner gets for it."""
    truncated: Bool[np.ndarray, " N"]
    success: Bool[np.ndarray, " N"]
    """the simulator's flag at any env_step of this agent step (evaluation only)."""
    stage: Int[Array, " N"]
    """subgoals met so far."""
    num_stages: Int[Array, " N"]
    distance: Float[Array, "N V E"]
    """to the current subgoal, image sides."""
    final_frames: UInt8[np.ndarray, "N V H W 3"] | None
    """what the cameras show of the state the action led to; None unless asked for."""


class Seen(NamedTuple):
    """The part of an `EnvState` that observation and reward are made of, on the device."""

    keypoints: Float[Array, "N V E K 2"]
    visibility: Bool[Array, "N V E K"]
    proprio: Float[Array, "N P"]


def _on_device(state: EnvState) -> Seen:
    return Seen(*(jnp.asarray(x) for x in (state.keypoints, state.visibility, state.proprio)))


def make_observe(
    max_stages: int, with_proprio: bool
) -> Callable[[StageState, Array, Array, Array, Goal], Float[Array, " D"]]:
    """One environment's observation: points, subgoal − points, visibility, stage,
    (proprioception).

    The way to the subgoal is on a scale that is linear below 0.01 image sides and logarithmic
    above, so that the last millimetres are seen as well as the direction from afar.
    """

    def observe(
        state: StageState, keypoints: Array, visibility: Array, proprio: Array, goal: Goal
    ) -> Float[Array, " D"]:
        seen = (visibility & goal.valid)[..., None]
        subgoal = goal.subgoals[jnp.minimum(state.stage, goal.num_stages - 1)]
        points = jnp.where(seen, keypoints, 0.5)
        towards = jnp.where(seen, subgoal - keypoints, 0.0)
        parts = [
            2 * (points - 0.5).ravel(),
            jnp.arcsinh(100 * towards).ravel() / 2,
            seen.ravel().astype(jnp.float32),
            jax.nn.one_hot(state.stage, max_stages + 1),
        ]
        return jnp.concatenate([*parts, proprio] if with_proprio else parts)

    return observe


def goal_of(plan: Plan, entity_names: Sequence[str], shaping: RewardConfig) -> Goal:
    """A batch of plans as the reward needs them."""
    effector = np.array([name == shaping.effector for name in entity_names])
    in_plan = plan.valid.any(-1)[:, None]  # what is left out of a view is not to move there
    motion = jnp.where(in_plan, stage_motion(plan.start, plan.subgoals), 0.0)
    means = is_means(motion, effector, shaping)
    threshold = success_threshold(plan.error, motion, shaping)
    threshold = jnp.where(means, shaping.effector_slack, 1.0) * threshold
    carried = means.any((2, 3), keepdims=True)
    return Goal(
        plan.subgoals,
        plan.valid,
        plan.num_stages,
        threshold,
        jnp.where(effector, 2, 1) * threshold,
        jnp.where(effector, jnp.where(carried, shaping.beside, 0.0) * threshold, jnp.inf),
        jnp.where(means, shaping.effector_weight, jnp.ones_like(threshold)),
    )


class GoalEnv:
    """Batched environment with observations, rewards and automatic resets; arrays live on the
    device."""

    def __init__(
        self,
        env: BatchedEnv,
        planner: Callable[[np.ndarray, np.ndarray], Plan],
        shaping: RewardConfig,
        *,
        reward: str = "relam",
        observation: str = "keypoints+proprio",
        gamma: float = 0.9,
        arm_scale: float = 1.0,
        frame_size: int = 0,
        video_pay: Callable[[Any], VideoPay] | None = None,
        reseed: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        """`gamma` is the learner's discount an agent step: what it is paid depends on it. All of an
        action but its last number, the gripper, is multiplied by `arm_scale`. With a
        `frame_size` the cameras' images, so many pixels a side, are in `frames`; observations `rgb`
        are a `Sight` of them. `video_pay` makes, of the first camera's first images, what pays for
        such images in the place of `reward`; then no other camera is looked at. (Under
        keypoint_diffusion it is of places.) `reseed` is called
        with a mask of the environments that have met a subgoal, if any has.

        `reward` decides what a step pays. With `dacfo`, whose pay is the learner's own business,
        that is the keypoint reward, and observations end with where each entity is in each view
        (training/imitation.py), as they do with `keypoint_diffusion`: policy and discriminator see
        it, and the policy all else besides, plan and stage included, so that the reward alone tells
        the runs apart. With `video_pay` too the reward stays the keypoints' and the pay is another.
        """
        self.env, self.planner, self.reward_source = env, planner, reward
        self._reseed = reseed
        self.frame_size, self._with_sight = frame_size, observation == "rgb"
        self._frame_views = len(env.view_names) if video_pay is None else 1
        self.frames: np.ndarray | None = None
        self.candidates = env.reset()
        plan = self._plan(self.candidates)
        self.max_stages = plan.subgoals.shape[1]
        observe_one = make_observe(self.max_stages, observation == "keypoints+proprio")

        def observe(state: StageState, seen: Seen, goal: Goal, shift: Array | None) -> Array:
            obs = jax.vmap(observe_one)(state, seen.keypoints, seen.visibility, seen.proprio, goal)
            if shift is None:
                return obs
            places = mean_point(seen.keypoints, goal.valid) + shift
            return jnp.concatenate([obs, places.reshape(len(obs), -1)], axis=1)

        @jax.jit
        def begin(
            old: tuple[Goal, StageState, Array | None],
            mask: Array,
            plan: Plan,
            seen: Seen,
            middle: Array | None,
        ) -> tuple[Goal, StageState, Array | None, Array]:
            goal = goal_of(plan, env.entity_names, shaping)
            fresh = jax.vmap(partial(start_stage, config=shaping))(
                seen.keypoints, seen.visibility, goal
            )
            shift = None if middle is None else middle - mean_point(plan.start, plan.valid)
            goal, state, shift = jax.tree.map(
                lambda a, b: jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b),
                (goal, fresh, shift),
                old,
            )
            return goal, state, shift, observe(state, seen, goal, shift)

        @jax.jit
        def advance(
            goal: Goal, state: StageState, seen: Seen, shift: Array | None
        ) -> tuple[StageState, Array, Array, Array]:
            before = jax.vmap(partial(level, config=shaping))(state, goal)
            reward, state = jax.vmap(partial(keypoint_reward, config=shaping))(
                state, seen.keypoints, seen.visibility, goal
            )
            obs = observe(state, seen, goal, shift)
            pay = (reward - before) / (1 - gamma) if shaping.pay == "progress" else reward
            return state, obs, reward, pay

        self._begin, self._advance = begin, advance
        everywhere = np.ones(env.num_envs, bool)
        seen = _on_device(env.follow(np.asarray(plan.indices)))
        goal = goal_of(plan, env.entity_names, shaping)
        n, v, e = plan.valid.shape[:3]
        none, zero = jnp.zeros(n, jnp.int32), jnp.zeros(n)
        blank = StageState(none, jnp.zeros((n, v, e)), zero, none)
        middle = self._middle()
        self.goal, self.stage, self.shift, self._vector = begin(
            (goal, blank, middle), everywhere, plan, seen, middle
        )
        self.obs_dim, self.action_dim = self._vector.shape[1], env.action_dim
        self._scale = np.full(env.action_dim, arm_scale, np.float32)
        self._scale[-1] = 1.0
        if frame_size:
            self.frames = self._look(everywhere)
        self.obs = self._observed()
        self.video_pay = None
        if video_pay is not None:
            self.video_pay = video_pay(self._shown())

    @property
    def num_envs(self) -> int:
        """N."""
        return self.env.num_envs

    @property
    def frame_shape(self) -> tuple[int, int, int] | None:
        """(H, W, C) of the observation's frames; None if it has none."""
        size = self.frame_size
        return (size, size, 3 * self._frame_views) if self._with_sight else None

    def _observed(self) -> Any:
        """The observation, of `_vector` and `frames`."""
        if not self._with_sight:
            return self._vector
        assert self.frames is not None
        return Sight(self._vector, stacked(self.frames))

    def _shown(self) -> Any:
        """What `video_pay` pays for: the first camera's images, or (N, F) places."""
        if self.shift is not None:
            return self._vector[:, -self.shift[0].size :]
        assert self.frames is not None, "what pays for images needs a frame_size"
        return self.frames[:, 0]

    def _plan(self, candidates: Candidates) -> Plan:
        plan = self.planner(candidates.points, candidates.visibility)
        if self.reward_source != "final":
            return plan
        return plan._replace(
            subgoals=plan.subgoals[:, -1:],
            num_stages=jnp.ones_like(plan.num_stages),
            error=plan.error[:, -1:],
        )

    def _middle(self) -> np.ndarray | None:
        """Where the entities are in the first frame, if the learner is to see where they are."""
        of_places = self.reward_source in OF_PLACES and not self._with_sight
        return box_middle(*self.candidates) if of_places else None

    def _look(self, mask: np.ndarray) -> UInt8[np.ndarray, "N V H W 3"]:
        """What the cameras show, anew where `mask` is True: shrunk as the demonstrations' images
        are, which are no smaller when recorded (rendered small, edges are harder). RuntimeError
        where no renderer works."""
        size = self.frame_size
        shape = (self.num_envs, self._frame_views, size, size, 3)
        frames = np.zeros(shape, np.uint8) if self.frames is None else self.frames.copy()
        for index in np.flatnonzero(mask).tolist():
            for view in range(shape[1]):
                image = self.env.render(index, view)
                if image is None:
                    raise RuntimeError(
                        f"this run needs pictures: {getattr(self.env, 'why_no_picture', '')}"
                    )
                frames[index, view] = shrunk(image, size)
        return frames

    def reset(self, mask: np.ndarray | None = None, init_states: np.ndarray | None = None) -> Any:
        """Start new episodes where `mask` is True (everywhere if None)."""
        mask = np.ones(self.num_envs, bool) if mask is None else mask
        self.candidates = self.env.reset(mask, init_states)
        plan = self._plan(self.candidates)
        seen = _on_device(self.env.follow(np.asarray(plan.indices), mask))
        self.goal, self.stage, self.shift, self._vector = self._begin(
            (self.goal, self.stage, self.shift), mask, plan, seen, self._middle()
        )
        if self.frame_size:
            self.frames = self._look(mask)
        if self.video_pay is not None:
            self.video_pay.begin(mask, self._shown())
        self.obs = self._observed()
        return self.obs

    def step(self, action: Float[np.ndarray, "N A"]) -> Step:
        """One agent step, and a reset of the environments whose time is up."""
        seen, before = self.env.step(action * self._scale), self.stage.stage
        self.stage, self._vector, reward, pay = self._advance(
            self.goal, self.stage, _on_device(seen), self.shift
        )
        if self.reward_source == "dense":
            reward = pay = jnp.asarray(seen.env_reward)
        elif self.reward_source == "sparse":
            reward = pay = jnp.asarray(seen.success, jnp.float32)
        ended, num_stages = self.stage, self.goal.num_stages
        if self.frame_size:
            self.frames = self._look(np.ones(self.num_envs, bool))
        if self.video_pay is not None:
            pay = self.video_pay.pay(self._shown(), seen.success)
        self.obs = final_obs = self._observed()
        final_frames = self.frames
        if self._reseed is not None:
            further = np.asarray(ended.stage > before)
            if further.any():
                self._reseed(further)
        if seen.truncated.any():
            self.reset(seen.truncated)
        return Step(
            self.obs,
            final_obs,
            reward,
            pay,
            seen.truncated,
            seen.success,
            ended.stage,
            num_stages,
            ended.distance,
            final_frames,
        )

    def state(self) -> dict[str, Any]:
        """Everything that `set_state` needs to go on bit for bit."""
        return {
            "env": self.env.state(),
            "goal": self.goal._asdict(),
            "stage": self.stage._asdict(),
            "obs": self._vector,
            **({} if self.shift is None else {"shift": self.shift}),
            **({} if self.frames is None else {"frames": self.frames}),
            **({} if self.video_pay is None else {"video_pay": self.video_pay.state()}),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.env.set_state(jax.tree.map(np.asarray, state["env"]))
        self.goal = Goal(**jax.tree.map(jnp.asarray, state["goal"]))
        self.stage = StageState(**jax.tree.map(jnp.asarray, state["stage"]))
        self._vector = jnp.asarray(state["obs"])
        self.shift = None if self.shift is None else jnp.asarray(state["shift"])
        self.frames = None if self.frames is None else np.array(state["frames"])
        if self.video_pay is not None:
            self.video_pay.set_state(state["video_pay"])
        self.obs = self._observed()
