"""Meta-World v3 tasks as a `BatchedEnv`: exact, threaded, with oracle keypoints and explicit seeds.

Each environment has its own simulation data, each thread its own model. Python code runs under the
interpreter's lock, the physics (80 % of the time) outside it.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from relam_jax.envs.episodes import ProjectedEnv
from relam_jax.envs.protocol import EnvState
from relam_jax.envs.scene import camera_pose
from relam_jax.envs.scripted import entity_bodies, initial_states, scripted_expert
from relam_jax.envs.shifted_scene import scene_edit
from relam_jax.envs.shifts import NO_SHIFT, Shift
from relam_jax.envs.simulator import MjData, MjModel, mujoco
from relam_jax.envs.stepper import PROPRIO_DIM, STATE, Stepper, Template
from relam_jax.envs.tasks import TaskSpec


class MetaWorldEnv(ProjectedEnv):
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
        shift: Shift = NO_SHIFT,
    ) -> None:
        """Make the environments; nothing is reset yet.

        Args:
            spec: the task.
            num_envs: environments.
            seed: chooses the initial states, and which of them each environment draws. Environment
            i's
                stream depends on (split, seed, i) only.
            action_repeat: env_steps an action is applied for.
            episode_length: time limit, env_steps, at most the task's own.
            num_candidates: candidates an entity and view.
            num_threads: threads that step, each with its own model (20 MB).
            num_init_states: size of the pool of initial states.
            occlusion: whether points that the camera cannot see are marked so (a ray each).
            split: `train` and `eval` never share an initial state; neither do demonstrations.
            env_reward: compute Meta-World's dense reward (and its full observation); else it is 0.
            render_size: pixels a side of `render`'s images.
            shift: what differs from training, to test robustness.

        Raises ValueError if a number is out of range.
        """
        if min(num_envs, action_repeat, num_candidates, num_threads, num_init_states) < 1:
            raise ValueError(
                "num_envs, action_repeat, num_candidates, num_threads and num_init_states "
                "must be positive"
            )
        if not 1 <= episode_length <= spec.horizon:
            raise ValueError(
                f"episode_length must be 1 to {spec.horizon} env_steps, not {episode_length}"
            )
        self.spec, self.action_repeat = spec, action_repeat
        entities = entity_bodies(spec)
        self.view_names = spec.view_names
        self.entity_names = tuple(name for name, _ in entities)

        tasks = initial_states(spec.env_id, split, seed, num_init_states)
        self._template = Template(spec.env_id, tasks, env_reward, scene_edit(shift, spec))
        super().__init__(
            num_envs,
            seed=seed,
            split=split,
            num_init_states=num_init_states,
            num_candidates=num_candidates,
            episode_length=episode_length,
            proprio_dim=PROPRIO_DIM,
            cameras=tuple(camera_pose(self._template.env.model, c) for c in spec.cameras),
            entities=tuple(bodies for _, bodies in entities),
            occlusion=occlusion,
            render_size=render_size,
            shift=shift,
        )
        self._xpos = np.zeros((num_envs, len(self._bodies), 3))
        self._xmat = np.zeros((num_envs, len(self._bodies), 9))
        num_threads = min(num_threads, num_envs)
        models = [self._template.new_model() for _ in range(num_threads)]
        self._steppers = [Stepper(self._template, models[i % num_threads]) for i in range(num_envs)]
        self._groups = [range(t, num_envs, num_threads) for t in range(num_threads)]
        self._threads = ThreadPoolExecutor(num_threads) if num_threads > 1 else None

    # ---------------------------------------------------------------- episodes

    def _begin(self, mask: Bool[np.ndarray, " N"]) -> None:
        for i in np.flatnonzero(mask).tolist():
            self._steppers[i].restore(self._template.initial(int(self._init_state[i])))
            self._read(i)

    def _frames(self) -> tuple[Float[np.ndarray, "N B 3"], Float[np.ndarray, "N B 9"]]:
        return self._xpos, self._xmat

    def _initial_scene(self, index: int) -> tuple[MjModel, MjData]:
        start = self._template.initial(index)
        model, data = self._template.env.model, self._template.env.data
        model.body_pos[:], model.site_pos[:] = start.body_pos, start.site_pos
        mujoco.mj_setState(model, data, start.physics, STATE)
        mujoco.mj_kinematics(model, data)
        return model, data

    def _scene(self, row: int) -> tuple[MjModel, MjData]:
        stepper = self._steppers[row]
        stepper.bind_model()
        return stepper.model, stepper.data

    def _picture(self, row: int) -> tuple[MjModel, Float[np.ndarray, " S"]]:
        stepper = self._steppers[row]
        stepper.bind_model()
        return stepper.model, stepper.physics()

    def step(self, action: Float[np.ndarray, "N A"]) -> EnvState:
        """See `BatchedEnv.step`. Raises ValueError if an action is not a finite number."""
        self._check_action(action)
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

    def scripted_actions(self) -> Float[np.ndarray, "N A"]:
        """See `BatchedEnv.scripted_actions`: Meta-World's own expert."""
        act = scripted_expert(self.spec.env_id)
        return np.stack([act(s.obs) for s in self._steppers]).astype(np.float32)

    # ---------------------------------------------------------------- checkpoints

    def state(self) -> dict[str, Any]:
        """See `BatchedEnv.state`; call it after `follow`."""
        return self._episode_state() | {
            "physics": np.stack([s.physics() for s in self._steppers]),
            "attributes": np.stack([s.attributes() for s in self._steppers]),
            "obs": np.stack([s.obs for s in self._steppers]),
            "xpos": self._xpos.copy(),
            "xmat": self._xmat.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()` of an environment made with the same arguments.

        Raises ValueError if the number of environments differs.
        """
        self._set_episode_state(state)
        self._xpos, self._xmat = np.array(state["xpos"]), np.array(state["xmat"])
        for i, stepper in enumerate(self._steppers):
            start = self._template.initial(int(self._init_state[i]))
            physics, attributes = np.array(state["physics"][i]), np.array(state["attributes"][i])
            stepper.restore(start._replace(physics=physics, attributes=attributes))
            stepper.obs = np.array(state["obs"][i])

    def close(self) -> None:
        """Stop the threads and free the renderer."""
        if self._threads is not None:
            self._threads.shutdown()
        super().close()
