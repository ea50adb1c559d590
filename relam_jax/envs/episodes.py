"""What the back ends share: initial states, streams, candidates, and the projected keypoints."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from relam_jax.envs.candidates import BodyPoints, find_candidates, label_images
from relam_jax.envs.projected import FollowedPoints, hidden, image_points
from relam_jax.envs.protocol import Candidates, EnvState
from relam_jax.envs.rendering import SceneRenderer
from relam_jax.envs.scene import cast
from relam_jax.envs.shifts import NO_SHIFT, Shift
from relam_jax.envs.simulator import MjData, MjModel
from relam_jax.geometry import Array, CameraPose

SPLITS = {"train": 0, "eval": 1, "demos": 2}


class ProjectedEnv:
    """A pool of initial states, an episode in each environment, points fixed on bodies.

    A back end fills `_proprio` and `_elapsed`, and says where the bodies are (`_frames`) and what
    can be seen (`_initial_scene`, `_scene`). An environment marked `_unstable` is truncated until
    its next reset.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        seed: int,
        split: Literal["train", "eval", "demos"],
        num_init_states: int,
        num_candidates: int,
        episode_length: int,
        proprio_dim: int,
        cameras: tuple[CameraPose, ...],
        entities: tuple[tuple[int, ...], ...],
        occlusion: bool,
        render_size: int,
        shift: Shift = NO_SHIFT,
    ) -> None:
        self.num_envs, self.num_init_states = num_envs, num_init_states
        self.num_candidates, self.episode_length = num_candidates, episode_length
        self.cameras = tuple(shift.camera(camera) for camera in cameras)
        self._entities, self._occlusion, self._shift = entities, occlusion, shift
        self._render_size = render_size
        self._bodies = np.array(sorted({b for bodies in entities for b in bodies}))
        self._seed = (SPLITS[split], seed)
        self._streams = [
            np.random.Generator(np.random.PCG64(np.random.SeedSequence((*self._seed, i))))
            for i in range(num_envs)
        ]
        self._found: dict[int, BodyPoints] = {}
        self._labels: dict[int, np.ndarray] = {}
        self.num_unstable = 0
        self._init_state = np.full(num_envs, -1)
        self._elapsed = np.zeros(num_envs, np.int64)
        self._unstable = np.zeros(num_envs, bool)  # until the next reset
        self._proprio = np.zeros((num_envs, proprio_dim), np.float32)
        self._renderer: SceneRenderer | None = None
        self.why_no_picture = ""
        """what rendering failed for, if it did"""
        self._indices: np.ndarray | None = None  # (N, V, E, K): the followed candidates
        self._followed: FollowedPoints | None = None

    # ---------------------------------------------------------------- what a back end adds

    def _begin(self, mask: Bool[np.ndarray, " N"]) -> None:
        """Put the environments of the mask into their `_init_state`."""
        raise NotImplementedError

    def _frames(self) -> tuple[Float[Array, "N B 3"], Float[Array, "N B 9"]]:
        """Positions (metres) and rotation matrices of `_bodies` now."""
        raise NotImplementedError

    def _initial_scene(self, index: int) -> tuple[MjModel, MjData]:
        """Initial state `index` (of some environment), with its kinematics, to cast rays in."""
        raise NotImplementedError

    def _scene(self, row: int) -> tuple[MjModel, MjData]:
        """An environment as it is now, with its kinematics, to cast rays in."""
        raise NotImplementedError

    def _picture(self, row: int) -> tuple[MjModel, Float[np.ndarray, " S"]]:
        """An environment as it is now, as `SceneRenderer.render` wants it."""
        raise NotImplementedError

    # ---------------------------------------------------------------- episodes

    @property
    def init_state(self) -> Int[np.ndarray, " N"]:
        """Which of the initial states each environment's episode began in."""
        return self._init_state.copy()

    def reset(
        self,
        mask: Bool[np.ndarray, " N"] | None = None,
        init_states: Int[np.ndarray, " N"] | None = None,
    ) -> Candidates:
        """See `BatchedEnv.reset`. Raises ValueError if an initial state is not in the pool."""
        mask = np.ones(self.num_envs, bool) if mask is None else mask
        if np.any(self._init_state[~mask] < 0):
            raise ValueError("the first reset must be of all environments")
        if init_states is not None and not np.all(
            (init_states[mask] >= 0) & (init_states[mask] < self.num_init_states)
        ):
            raise ValueError(f"init_states must be 0 to {self.num_init_states - 1}")
        for i in np.flatnonzero(mask).tolist():
            if init_states is None:
                self._init_state[i] = self._streams[i].integers(self.num_init_states)
            else:
                self._init_state[i] = init_states[i]
        self._begin(mask)
        self._elapsed[mask] = 0
        self._unstable[mask] = False
        found = self._candidates()
        return Candidates(np.stack([f.points for f in found]), np.stack([f.valid for f in found]))

    def follow(
        self,
        indices: Int[np.ndarray, "N V E K"],
        mask: Bool[np.ndarray, " N"] | None = None,
    ) -> EnvState:
        """See `BatchedEnv.follow`. Raises ValueError if an index is no candidate."""
        if np.any((indices < 0) | (indices >= self.num_candidates)):
            raise ValueError(f"indices of candidates must be 0 to {self.num_candidates - 1}")
        if np.any(self._init_state < 0):
            raise RuntimeError("call reset before follow")
        if mask is not None and self._indices is not None:
            indices = np.where(mask[:, None, None, None], indices, self._indices)
        self._indices = np.array(indices, np.int64)
        self._followed = self.attach(self._candidates(), self._indices)
        return self._output(np.zeros(self.num_envs), np.zeros(self.num_envs, bool))

    def _check_action(self, action: Float[np.ndarray, "N A"]) -> None:
        if self._followed is None:
            raise RuntimeError("call reset and follow before the first step")
        if not np.isfinite(action).all():
            raise ValueError("NaN or infinity in the action")

    def _output(self, reward: np.ndarray, success: np.ndarray) -> EnvState:
        assert self._followed is not None
        world, keypoints, inside = self._place(self._followed)
        visible = inside & self._followed.valid & ~self._unstable[:, None, None, None]
        if self._occlusion:
            for i in range(self.num_envs):
                visible[i] &= ~hidden(*self._scene(i), world[i], self.cameras)
        for i in [] if self._shift.neutral else range(self.num_envs):
            keypoints[i] = self._shift.keypoints(keypoints[i], self._moment(i))
        truncated = (self._elapsed >= self.episode_length) | self._unstable
        return EnvState(
            keypoints, visible, self._proprio.copy(), reward.astype(np.float32), success, truncated
        )

    def _place(self, followed: FollowedPoints) -> tuple[Array, Array, Array]:
        """Where the points are now: in the world, in the images, whether inside them."""
        world = followed.world(*self._frames())
        return world, *image_points(world, self.cameras)

    def _candidates(self) -> list[BodyPoints]:
        """The candidates of each environment; found once an initial state."""
        for index in sorted(set(self._init_state.tolist()) - set(self._found)):
            rng = np.random.default_rng((*self._seed, index))
            self._found[index] = find_candidates(
                *self._initial_scene(index), self.cameras, self._entities, self.num_candidates, rng
            )
        return [self._found[index] for index in self._init_state.tolist()]

    def lift(
        self,
        index: int,
        points: Float[np.ndarray, "V E C 2"],
        valid: Bool[np.ndarray, "V E C"],
    ) -> BodyPoints:
        """Points in the first images of the running episode, fixed on the bodies that they show;
        those that show no entity are no longer valid."""
        scene = self._initial_scene(int(self._init_state[index]))
        views = zip(self.cameras, points, strict=True)
        surfaces = [cast(*scene, camera, shown) for camera, shown in views]
        body, local = (np.stack([s[i] for s in surfaces]) for i in (0, 1))
        known = np.isin(body, self._bodies)
        return BodyPoints(points, valid & known, np.where(known, body, self._bodies[0]), local)

    def attach(
        self, lifted: Sequence[BodyPoints], indices: Int[np.ndarray, "N V E K"]
    ) -> FollowedPoints:
        """Some of the lifted points of each environment, for `project`."""
        return FollowedPoints.of(lifted, indices, self._bodies)

    def project(self, followed: FollowedPoints) -> Float[np.ndarray, "N V E K 2"]:
        """Where attached points are in the images now, image sides."""
        return np.asarray(self._place(followed)[1])

    def labels(self, index: int, view: int) -> UInt8[np.ndarray, "H W"]:
        """Which entity each pixel shows now: 0 none, i the i-th from 1."""
        if self._elapsed[index]:
            camera = self.cameras[view : view + 1]
            scene = self._scene(index)
            return label_images(*scene, camera, self._entities, self._render_size)[0]
        state = int(self._init_state[index])
        if state not in self._labels:
            scene = self._initial_scene(state)
            self._labels[state] = label_images(
                *scene, self.cameras, self._entities, self._render_size
            )
        return self._labels[state][view]

    def render(self, index: int, view: int) -> np.ndarray | None:
        """(H, W, 3) uint8 image, or None where no renderer works (then never tried again)."""
        if self.why_no_picture:
            return None
        try:
            model, state = self._picture(index)
            if self._renderer is None:
                self._renderer = SceneRenderer(model, self.cameras, self._render_size)
            image = self._renderer.render(model, state, view)
            return self._shift.image(image, (*self._moment(index), view))
        except Exception as error:  # a picture is never worth a training run
            logging.getLogger(__name__).warning("rendering is off: %s", error)
            self.why_no_picture = str(error) or type(error).__name__
            return None

    def _moment(self, index: int) -> tuple[int, int]:
        """What the noise of an environment depends on: the same noise in the same moment."""
        return int(self._init_state[index]), int(self._elapsed[index])

    def close(self) -> None:
        """Free the renderer."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    # ---------------------------------------------------------------- checkpoints

    def _episode_state(self) -> dict[str, Any]:
        """The shared part of `BatchedEnv.state`."""
        if self._indices is None:
            raise RuntimeError("state() needs reset and follow first")
        return {
            "init_state": self._init_state.copy(),
            "elapsed": self._elapsed.copy(),
            "unstable": self._unstable.copy(),
            "num_unstable": np.array(self.num_unstable),
            "proprio": np.array(self._proprio),
            "indices": self._indices.copy(),
            "streams": np.stack([_pack_stream(s) for s in self._streams]),
        }

    def _set_episode_state(self, state: dict[str, Any]) -> None:
        """Take over what `_episode_state` returned. Raises ValueError if N differs."""
        if len(state["init_state"]) != self.num_envs:
            raise ValueError(
                f"the state is of {len(state['init_state'])} environments, not of {self.num_envs}"
            )
        self._init_state = np.array(state["init_state"])
        for stream, packed in zip(self._streams, np.asarray(state["streams"]), strict=True):
            _unpack_stream(stream, packed)
        self._elapsed = np.array(state["elapsed"])
        self._unstable = np.array(state["unstable"])
        self.num_unstable = int(state["num_unstable"])
        self._proprio = np.array(state["proprio"])
        self._indices = np.array(state["indices"])
        self._followed = self.attach(self._candidates(), self._indices)


_HALF = 1 << 64


def _pack_stream(stream: np.random.Generator) -> np.ndarray:
    """The state of a PCG64 generator as six uint64."""
    state: Any = stream.bit_generator.state
    numbers = [state["state"]["state"], state["state"]["inc"]]
    halves = [part for number in numbers for part in divmod(number, _HALF)]
    return np.array([*halves, state["has_uint32"], state["uinteger"]], np.uint64)


def _unpack_stream(stream: np.random.Generator, packed: np.ndarray) -> None:
    a, b, c, d, has, value = (int(x) for x in packed)
    stream.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": a * _HALF + b, "inc": c * _HALF + d},
        "has_uint32": has,
        "uinteger": value,
    }
