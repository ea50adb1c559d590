"""What a robot with cameras sees of a simulation: images, its own joints, and nothing else."""

from __future__ import annotations

from threading import Lock
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8


class Outcome(NamedTuple):
    """What an agent step led to, apart from the images; fields as in `EnvState`."""

    proprio: Float[np.ndarray, "N P"]
    env_reward: Float[np.ndarray, " N"]
    success: Bool[np.ndarray, " N"]
    truncated: Bool[np.ndarray, " N"]


@runtime_checkable
class PixelEnv(Protocol):
    """N environments of one task behind their cameras: no pose, no candidate, no projected point.

    `success` and `env_reward` are passed through for evaluation and baselines, as in `BatchedEnv`.
    """

    num_envs: int
    action_dim: int
    proprio_dim: int
    view_names: tuple[str, ...]
    entity_names: tuple[str, ...]
    action_repeat: int
    episode_length: int
    num_init_states: int

    def reset(
        self, mask: Bool[np.ndarray, " N"], init_states: Int[np.ndarray, " N"] | None
    ) -> Outcome:
        """Start new episodes where `mask` is True; see `BatchedEnv.reset`."""
        ...

    def step(self, action: Float[np.ndarray, "N A"]) -> Outcome:
        """Take an agent step; see `BatchedEnv.step`."""
        ...

    def image(self, index: int, view: int) -> UInt8[np.ndarray, "H W 3"]:
        """What a camera shows now; threads may ask at once. Raises RuntimeError where no renderer
        works."""
        ...

    def labels(self, index: int, view: int) -> UInt8[np.ndarray, "H W"]:
        """The segmenter's answer to what a camera shows now: 0 background, i the i-th entity, from
        1 on. Threads may ask at once."""
        ...

    def state(self) -> dict[str, Any]:
        """See `BatchedEnv.state`."""
        ...

    def set_state(self, state: dict[str, Any]) -> None:
        """See `BatchedEnv.set_state`."""
        ...

    def close(self) -> None:
        """See `BatchedEnv.close`."""
        ...


class SimulatedCameras:
    """A simulator as a `PixelEnv`. Its own segmentation stands for a segmenter's.

    Threads may look at once: a lock keeps their environments apart, which share models.
    """

    def __init__(self, env: Any) -> None:
        """`env`: a back end with projected keypoints; what it projects is dropped here."""
        self.__env, self.__lock = env, Lock()
        self.num_envs, self.num_init_states = env.num_envs, env.num_init_states
        self.action_dim, self.proprio_dim = env.action_dim, env.proprio_dim
        self.view_names, self.entity_names = env.view_names, env.entity_names
        self.action_repeat, self.episode_length = env.action_repeat, env.episode_length
        self.__none = np.zeros(
            (self.num_envs, len(self.view_names), len(self.entity_names), 1), int
        )

    def reset(
        self, mask: Bool[np.ndarray, " N"], init_states: Int[np.ndarray, " N"] | None
    ) -> Outcome:
        """See `PixelEnv.reset`."""
        self.__env.reset(mask, init_states)
        return _outcome(self.__env.follow(self.__none))

    def step(self, action: Float[np.ndarray, "N A"]) -> Outcome:
        """See `PixelEnv.step`."""
        return _outcome(self.__env.step(action))

    def image(self, index: int, view: int) -> UInt8[np.ndarray, "H W 3"]:
        """See `PixelEnv.image`."""
        with self.__lock:
            image = self.__env.render(index, view)
        if image is None:
            raise RuntimeError(self.__env.why_no_picture)
        return image

    def labels(self, index: int, view: int) -> UInt8[np.ndarray, "H W"]:
        """See `PixelEnv.labels`."""
        with self.__lock:
            return self.__env.labels(index, view)

    def state(self) -> dict[str, Any]:
        """See `PixelEnv.state`."""
        return self.__env.state()

    def set_state(self, state: dict[str, Any]) -> None:
        """See `PixelEnv.set_state`."""
        self.__env.set_state(state)

    def close(self) -> None:
        """See `PixelEnv.close`."""
        self.__env.close()


def _outcome(state: Any) -> Outcome:
    return Outcome(state.proprio, state.env_reward, state.success, state.truncated)
