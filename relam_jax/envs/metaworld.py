"""Meta-World v3 tasks as a `BatchedEnv`: exact, threaded, with oracle keypoints and explicit seeds.

Each environment has its own simulation data, each thread its own model. Python code runs under the
interpreter's lock, the physics (80 % of the time) outside it.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from relam_jax.envs.candidates import BodyPoints, find_candidates, label_images
from relam_jax.envs.projected import FollowedPoints, hidden, image_points
from relam_jax.envs.protocol import Candidates, EnvState
from relam_jax.envs.rendering import SceneRenderer
from relam_jax.envs.scene import camera_pose
from relam_jax.envs.scripted import entity_bodies, initial_states, scripted_expert
from relam_jax.envs.simulator import MjData, MjModel, mujoco
from relam_jax.envs.stepper import OBS_DIM, PROPRIO_DIM, STATE, Stepper, Template
from relam_jax.envs.tasks import TaskSpec

HORIZON = 500
"""Meta-World's own limit, env_steps."""


class MetaWorldEnv:
    """N environments of one task (see `BatchedEnv`).

    An environment past its time limit stays as it is, truncated, until it is reset. If MuJoCo finds
    a simulation unstable, that environment is truncated at once, its points count as hidden and
    keep their last positions, and `num_unstable` counts it.
    """

    action_dim = 4
    proprio_dim = PROPRIO_DIM

    def __init__(
        self,
        spec: TaskSpec,
        num_envs: int,
        *,
        seed: int,
        action_repeat: int = 3,
        episode_length: int = 120,
        num_candidates: int = 32,
        num_threads: int = 2,
        num_init_states: int = 50,
        occlusion: bool = False,
        split: Literal["train", "eval"] = "train",
        env_reward: bool = False,
        render_size: int = 256,
    ) -> None:
        """Make the environments; nothing is reset yet.

        Args:
            spec: the task.
            num_envs: environments.
            seed: chooses the initial states, and which of them each environment draws. Environment
            i's
                stream depends on (split, seed, i) only.
            action_repeat: env_steps an action is applied for.
            episode_length: time limit, env_steps, at most 500.
            num_candidates: candidates an entity and view.
            num_threads: threads that step, each with its own model (20 MB).
            num_init_states: size of the pool of initial states.
            occlusion: whether points that the camera cannot see are marked so (a ray each).
            split: `train` and `eval` never share an initial state; neither do demonstrations.
            env_reward: compute Meta-World's dense reward (and its full observation); else it is 0.
            render_size: pixels a side of `render`'s images.

        Raises ValueError if a number is out of range.
        """
        if min(num_envs, action_repeat, num_candidates, num_threads, num_init_states) < 1:
            raise ValueError(
                "num_envs, action_repeat, num_candidates, num_threads and num_init_states "
                "must be positive"
            )
        if not 1 <= episode_length <= HORIZON:
            raise ValueError(
                f"episode_length must be 1 to {HORIZON} env_steps, not {episode_length}"
            )
        self.spec, self.num_envs = spec, num_envs
        self.action_repeat, self.episode_length = action_repeat, episode_length
        self.num_candidates, self.num_init_states = num_candidates, num_init_states
        entities = entity_bodies(spec)
        self.view_names = spec.view_names
        self.entity_names = tuple(name for name, _ in entities)
        self._entities = tuple(bodies for _, bodies in entities)
        self._bodies = np.array(sorted({b for bodies in self._entities for b in bodies}))
        self._occlusion, self._render_size = occlusion, render_size
        self.num_unstable = 0

        tasks = initial_states(spec.env_id, split, seed, num_init_states)
        self._template = Template(spec.env_id, tasks, env_reward)
        self.cameras = tuple(camera_pose(self._template.env.model, c) for c in spec.cameras)
        num_threads = min(num_threads, num_envs)
        models = [self._template.new_model() for _ in range(num_threads)]
        self._steppers = [Stepper(self._template, models[i % num_threads]) for i in range(num_envs)]
        self._groups = [range(t, num_envs, num_threads) for t in range(num_threads)]
        self._threads = ThreadPoolExecutor(num_threads) if num_threads > 1 else None
        split_code = {"train": 0, "eval": 1}[split]
        self._seed = (split_code, seed)
        self._streams = [
            np.random.Generator(np.random.PCG64(np.random.SeedSequence((split_code, seed, i))))
            for i in range(num_envs)
        ]
        self._found: dict[int, BodyPoints] = {}
        self._labels: dict[int, np.ndarray] = {}
        self._renderer: SceneRenderer | None = None
        self._render_failed, self.why_no_picture = False, ""

        self._init_state = np.full(num_envs, -1)
        self._elapsed = np.zeros(num_envs, np.int64)
        self._unstable = np.zeros(num_envs, bool)  # until the next reset
        self._proprio = np.zeros((num_envs, PROPRIO_DIM), np.float32)
        self._xpos = np.zeros((num_envs, len(self._bodies), 3))
        self._xmat = np.zeros((num_envs, len(self._bodies), 9))
        self._indices: np.ndarray | None = None  # (N, V, E, K): the followed candidates
        self._followed: FollowedPoints | None = None

    # ---------------------------------------------------------------- episodes

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
            self._steppers[i].restore(self._template.initial(int(self._init_state[i])))
            self._read(i)
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
        self._followed = FollowedPoints(self._candidates(), self._indices, self._bodies)
        return self._output(np.zeros(self.num_envs), np.zeros(self.num_envs, bool))

    def step(self, action: Float[np.ndarray, "N A"]) -> EnvState:
        """See `BatchedEnv.step`. Raises ValueError if an action is not a finite number."""
        if self._followed is None:
            raise RuntimeError("call reset and follow before the first step")
        if not np.isfinite(action).all():
            raise ValueError("NaN or infinity in the action")
        reward, success = np.zeros(self.num_envs), np.zeros(self.num_envs, bool)
        stable = ~self._unstable
        if self._threads is None:
            self._step_group(self._groups[0], action, reward, success)
        else:
            args = (action, reward, success)
            jobs = [self._threads.submit(self._step_group, g, *args) for g in self._groups]
            for job in jobs:
                job.result()
        self.num_unstable += int((stable & self._unstable).sum())
        return self._output(reward, success)

    def _step_group(
        self, group: range, action: np.ndarray, reward: np.ndarray, success: np.ndarray
    ) -> None:
        """One thread's share of an agent step; writes its rows of `reward` and `success`."""
        for i in group:
            if self._unstable[i]:
                continue
            stepper = self._steppers[i]
            stepper.bind_model()
            repeats = min(self.action_repeat, self.episode_length - int(self._elapsed[i]))
            for _ in range(repeats):
                step_reward, step_success = stepper.env_step(action[i])
                reward[i] += step_reward
                success[i] |= step_success
            self._elapsed[i] += repeats
            if stepper.diverged():
                self._unstable[i] = True
                reward[i], success[i] = 0.0, False
            else:
                self._read(i)

    def _read(self, i: int) -> None:
        """Take what the output needs from one simulation."""
        stepper = self._steppers[i]
        self._proprio[i] = stepper.obs[:PROPRIO_DIM]
        self._xpos[i] = stepper.data.xpos[self._bodies]
        self._xmat[i] = stepper.data.xmat[self._bodies]

    def _output(self, reward: np.ndarray, success: np.ndarray) -> EnvState:
        assert self._followed is not None
        world = self._followed.world(self._xpos, self._xmat)
        keypoints, inside = image_points(world, self.cameras)
        visible = inside & self._followed.valid & ~self._unstable[:, None, None, None]
        if self._occlusion:
            for i, stepper in enumerate(self._steppers):
                stepper.bind_model()
                visible[i] &= ~hidden(stepper.model, stepper.data, world[i], self.cameras)
        truncated = (self._elapsed >= self.episode_length) | self._unstable
        return EnvState(
            keypoints, visible, self._proprio.copy(), reward.astype(np.float32), success, truncated
        )

    def _candidates(self) -> list[BodyPoints]:
        """The candidates of each environment; found once an initial state."""
        for index in sorted(set(self._init_state.tolist()) - set(self._found)):
            rng = np.random.default_rng((*self._seed, index))
            self._found[index] = find_candidates(
                *self._initial_scene(index), self.cameras, self._entities, self.num_candidates, rng
            )
        return [self._found[index] for index in self._init_state.tolist()]

    def _initial_scene(self, index: int) -> tuple[MjModel, MjData]:
        start = self._template.initial(index)
        model, data = self._template.env.model, self._template.env.data
        model.body_pos[:], model.site_pos[:] = start.body_pos, start.site_pos
        mujoco.mj_setState(model, data, start.physics, STATE)
        mujoco.mj_kinematics(model, data)
        return model, data

    def scripted_actions(self) -> Float[np.ndarray, "N A"]:
        """See `BatchedEnv.scripted_actions`: Meta-World's own expert."""
        act = scripted_expert(self.spec.env_id)
        return np.stack([act(s.obs) for s in self._steppers]).astype(np.float32)

    # ---------------------------------------------------------------- pictures

    def labels(self, index: int, view: int) -> UInt8[np.ndarray, "H W"]:
        """Which entity each pixel of the first image of the running episode shows: 0 none, i the
        i-th from 1."""
        state = int(self._init_state[index])
        if state not in self._labels:
            model, data = self._initial_scene(state)
            self._labels[state] = label_images(
                model, data, self.cameras, self._entities, self._render_size
            )
        return self._labels[state][view]

    def render(self, index: int, view: int) -> np.ndarray | None:
        """(H, W, 3) uint8 image, or None where no renderer works (then never tried again)."""
        if self._render_failed:
            return None
        try:
            if self._renderer is None:
                path = self._template.env.fullpath
                self._renderer = SceneRenderer(path, self.cameras, self._render_size)
            stepper = self._steppers[index]
            stepper.bind_model()
            return self._renderer.render(stepper.model, stepper.physics(), view)
        except Exception as error:  # a picture is never worth a training run
            logging.getLogger(__name__).warning("rendering is off: %s", error)
            self.why_no_picture = str(error)
            self._render_failed = True
            return None

    # ---------------------------------------------------------------- checkpoints

    def state(self) -> dict[str, Any]:
        """See `BatchedEnv.state`; call it after `follow`."""
        if self._indices is None:
            raise RuntimeError("state() needs reset and follow first")
        return {
            "physics": np.stack([s.physics() for s in self._steppers]),
            "attributes": np.stack([s.attributes() for s in self._steppers]),
            "obs": np.stack([s.obs for s in self._steppers]),
            "init_state": self._init_state.copy(),
            "elapsed": self._elapsed.copy(),
            "unstable": self._unstable.copy(),
            "num_unstable": np.array(self.num_unstable),
            "proprio": self._proprio.copy(),
            "xpos": self._xpos.copy(),
            "xmat": self._xmat.copy(),
            "indices": self._indices.copy(),
            "streams": np.stack([_pack_stream(s) for s in self._streams]),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()` of an environment made with the same arguments.

        Raises ValueError if the number of environments differs.
        """
        if np.shape(state["obs"]) != (self.num_envs, OBS_DIM):
            raise ValueError(
                f"the state is of {len(state['obs'])} environments, not of {self.num_envs}"
            )
        self._init_state = np.array(state["init_state"])
        for i, stepper in enumerate(self._steppers):
            start = self._template.initial(int(self._init_state[i]))
            physics, attributes = np.array(state["physics"][i]), np.array(state["attributes"][i])
            stepper.restore(start._replace(physics=physics, attributes=attributes))
            stepper.obs = np.array(state["obs"][i])
            _unpack_stream(self._streams[i], np.asarray(state["streams"][i]))
        self._elapsed = np.array(state["elapsed"])
        self._unstable = np.array(state["unstable"])
        self.num_unstable = int(state["num_unstable"])
        self._proprio = np.array(state["proprio"])
        self._xpos, self._xmat = np.array(state["xpos"]), np.array(state["xmat"])
        self._indices = np.array(state["indices"])
        self._followed = FollowedPoints(self._candidates(), self._indices, self._bodies)

    def close(self) -> None:
        """Stop the threads and free the renderer."""
        if self._threads is not None:
            self._threads.shutdown()
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


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
