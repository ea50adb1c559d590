"""The batched protocol that every simulator back end follows.

Axes: N environments, V views, E entities, C candidates, K keypoints an entity and view. Image
points are `(x, y)` in image sides (see docs/architecture.md). Arrays are numpy on the host; on a
GPU the keypoints, visibility and proprio of ManiSkill are jax arrays there.

A back end never resets by itself: `step` returns what the last action led to, also at the end of an
episode, and the caller resets the truncated environments (so the final observation cannot be lost).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int


class Candidates(NamedTuple):
    """Points on the entities that could be followed, found in the first frame of an episode."""

    points: Float[np.ndarray, "N V E C 2"]
    """float32, image sides."""
    visibility: Bool[np.ndarray, "N V E C"]
    """False: padding (the entity shows fewer than C points in this view)."""


class EnvState(NamedTuple):
    """What the agent side may see after a reset or an agent step."""

    keypoints: Float[np.ndarray, "N V E K 2"]
    """float32, image sides, of the followed candidates."""
    visibility: Bool[np.ndarray, "N V E K"]
    """inside the image, not padding, and (with the occlusion option) not hidden."""
    proprio: Float[np.ndarray, "N P"]
    """float32 proprioception of the robot; never object state."""
    env_reward: Float[np.ndarray, " N"]
    """the simulator's own dense reward, summed over the agent step. For `--reward dense` only."""
    success: Bool[np.ndarray, " N"]
    """the simulator's success flag, at any env_step of the agent step. For evaluation and
    `--reward sparse`."""
    truncated: Bool[np.ndarray, " N"]
    """the time limit was reached with this step; the caller resets."""


@runtime_checkable
class BatchedEnv(Protocol):
    """N environments of one task, stepped together."""

    num_envs: int
    action_dim: int
    proprio_dim: int
    view_names: tuple[str, ...]
    entity_names: tuple[str, ...]
    num_candidates: int
    action_repeat: int
    episode_length: int  # env_steps
    num_init_states: int

    def reset(
        self,
        mask: Bool[np.ndarray, " N"] | None = None,
        init_states: Int[np.ndarray, " N"] | None = None,
    ) -> Candidates:
        """Start new episodes where `mask` is True (everywhere if None).

        `init_states` names which of the `num_init_states` initial states each environment takes;
        None draws them from each environment's own random stream. Rows of unmasked environments in
        the result are those of their running episodes.
        """
        ...

    def follow(
        self,
        indices: Int[np.ndarray, "N V E K"],
        mask: Bool[np.ndarray, " N"] | None = None,
    ) -> EnvState:
        """Choose which candidates are the keypoints of the episode.

        Returns the state before the first action.
        """
        ...

    def step(self, action: Float[np.ndarray, "N A"]) -> EnvState:
        """Take an agent step: `action_repeat` env_steps, fewer at the time limit.

        Actions in [-1, 1].
        """
        ...

    def scripted_actions(self) -> Float[np.ndarray, "N A"]:
        """What a scripted expert would do now. It reads simulator state: for checks only."""
        ...

    def render(self, index: int, view: int) -> np.ndarray | None:
        """(H, W, 3) uint8 image of one environment, or None where no renderer works."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that `set_state` needs to go on bit for bit: a nested dict of numpy arrays."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, bit for bit."""
        ...

    def close(self) -> None:
        """Free threads and renderers."""
        ...
