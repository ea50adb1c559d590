"""ManiSkill tasks as a `BatchedEnv`: one code path over a GPU simulator or many CPU ones.

On the GPU poses, proprioception and keypoints are jax arrays that never leave the card (but at
resets, where candidates are looked up); on the CPU they are numpy arrays.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from relam_jax.envs.candidates import BodyPoints
from relam_jax.envs.episodes import ProjectedEnv
from relam_jax.envs.maniskill.cpu import CpuSimulator
from relam_jax.envs.maniskill.description import Frame
from relam_jax.envs.maniskill.experts import expert_actions
from relam_jax.envs.maniskill.mirror import Mirror, default_entities
from relam_jax.envs.projected import FollowedPoints
from relam_jax.envs.protocol import EnvState
from relam_jax.envs.scene import camera_pose
from relam_jax.envs.shifts import NO_SHIFT, Shift
from relam_jax.envs.simulator import MjData, MjModel
from relam_jax.envs.tasks import TaskSpec
from relam_jax.geometry import Array, matrices

Sim = Literal["auto", "gpu", "cpu"]
FIRST_SEED = {"train": 100_000_000, "eval": 200_000_000, "demos": 0}
SEEDS_PER_POOL = 10_000


def pool_seeds(split: str, seed: int, count: int) -> Int[np.ndarray, " S"]:
    """ManiSkill's seeds of the initial states of one pool; pools never share one.

    Raises ValueError if seed or count is out of range.
    """
    if not 0 <= seed < 10_000 or not 0 < count <= SEEDS_PER_POOL:
        raise ValueError(f"need 0 <= seed < 10,000 and 0 < count <= 10,000, not {seed}, {count}")
    return FIRST_SEED[split] + SEEDS_PER_POOL * seed + np.arange(count)


def cuda_devices() -> int:
    """How many CUDA devices the driver lists, without importing torch."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return listed.stdout.count("GPU ") if listed.returncode == 0 else 0


class ManiSkillEnv(ProjectedEnv):
    """N environments of one task (see `BatchedEnv`), control `pd_ee_delta_pos`.

    On the CPU an environment past its time limit stays as it is, truncated, until it is reset. On
    the GPU all environments are stepped together, so those past their limit must be reset at once.
    """

    def __init__(
        self,
        spec: TaskSpec,
        num_envs: int,
        *,
        seed: int,
        action_repeat: int = 1,
        episode_length: int = 50,
        num_candidates: int = 32,
        num_workers: int = 0,
        num_init_states: int = 50,
        occlusion: bool = False,
        split: Literal["train", "eval", "demos"] = "train",
        env_reward: bool = False,
        render_size: int = 256,
        sim: Sim = "auto",
        shift: Shift = NO_SHIFT,
    ) -> None:
        """Start the simulator; nothing is reset yet.

        Args:
            spec: the task.
            num_envs: environments.
            seed: chooses the initial states, and which of them each environment draws.
            action_repeat: env_steps an action is applied for.
            episode_length: time limit, env_steps.
            num_candidates: candidates an entity and view.
            num_workers: CPU processes; 0: one a core.
            num_init_states: size of the pool of initial states.
            occlusion: whether points that the camera cannot see are marked so (a ray each).
            split: `train` and `eval` never share an initial state; neither do demonstrations.
            env_reward: compute the task's own dense reward; else it is 0.
            render_size: pixels a side of `render`'s images.
            sim: `gpu` or `cpu`; `auto`: the GPU if there is one.
            shift: what differs from training, to test robustness; the scene cannot.

        Raises ValueError, in one sentence, where something is out of range, missing or impossible.
        """
        if min(num_envs, action_repeat, num_candidates, num_init_states, episode_length) < 1:
            raise ValueError(
                "num_envs, action_repeat, num_candidates, num_init_states and episode_length "
                "must be positive"
            )
        if shift.of_scene:
            raise ValueError(f"{shift.factor}: only Meta-World's scenes can be changed")
        self.spec, self.action_repeat = spec, action_repeat
        num_workers = num_workers or os.cpu_count() or 1
        self.sim = choose_simulator(sim)
        if self.sim == "gpu":
            from relam_jax.envs.maniskill.gpu import GpuSimulator

            self._simulator: Any = GpuSimulator(spec.env_id, num_envs, env_reward)
            where = "a CUDA device: GPU simulation"
        else:
            self._simulator = CpuSimulator(spec.env_id, num_envs, num_workers, env_reward)
            where = "no CUDA device: CPU simulation" if sim == "auto" else "CPU simulation"
        over = f" over {min(num_workers, num_envs)} workers" if self.sim == "cpu" else ""
        print(f"{where}, {num_envs} environments{over} ({split})", file=sys.stderr)
        description = self._simulator.description
        self.action_dim, self.proprio_dim = description.action_dim, description.proprio_dim
        named = spec.entities or default_entities(description)
        ids = {body.name: i + 1 for i, body in enumerate(description.bodies)}  # 0 is the world
        missing = [b for _, bodies in named for b in bodies if b not in ids]
        if missing:
            raise ValueError(f"{spec.env_id} has no {missing[0]!r}; it has {', '.join(ids)}")
        self.view_names, self.control_freq = spec.view_names, description.control_freq
        self.entity_names = tuple(name for name, _ in named)
        self.entity_bodies = tuple(tuple(ids[b] for b in bodies) for _, bodies in named)
        self.mirror = Mirror(description)
        super().__init__(
            num_envs,
            seed=seed,
            split=split,
            num_init_states=num_init_states,
            num_candidates=num_candidates,
            episode_length=episode_length,
            proprio_dim=description.proprio_dim,
            cameras=tuple(camera_pose(self.mirror.model, c) for c in spec.cameras),
            entities=self.entity_bodies,
            occlusion=occlusion,
            render_size=render_size,
            shift=shift,
        )
        self._card = None
        if self.sim == "gpu":
            from relam_jax.envs.maniskill.gpu import Card

            self._card = Card(self._bodies - 1, self.cameras)
        self._pool = pool_seeds(split, seed, num_init_states)
        shape = (num_envs, len(description.bodies), 7)
        self._poses: Array = np.zeros(shape, np.float32)
        self._start_poses = np.zeros(shape, np.float32)

    # ---------------------------------------------------------------- episodes

    def _begin(self, mask: Bool[np.ndarray, " N"]) -> None:
        frame = self._simulator.reset(mask, self._pool[self._init_state])
        self._take(mask, frame)
        self._start_poses[mask] = np.asarray(frame.poses)[mask]

    def _take(self, mask: Bool[np.ndarray, " N"], frame: Frame) -> None:
        """Take what the output needs; what is no longer finite keeps its last values."""
        xp = frame.poses.__array_namespace__()
        finite = xp.isfinite(frame.poses).all((1, 2)) & xp.isfinite(frame.proprio).all(1)
        finite = np.asarray(finite)
        self._unstable[mask & ~finite] = True
        taken = (mask & finite)[:, None]
        self._poses = xp.where(taken[..., None], frame.poses, self._poses)
        self._proprio = xp.where(taken, frame.proprio, self._proprio)

    def _frames(self) -> tuple[Float[np.ndarray, "N B 3"], Float[np.ndarray, "N B 9"]]:
        poses = self._poses[:, self._bodies - 1].astype(np.float64)
        return poses[..., :3], matrices(poses[..., 3:])

    def attach(
        self, lifted: Sequence[BodyPoints], indices: Int[np.ndarray, "N V E K"]
    ) -> FollowedPoints:
        """See `ProjectedEnv.attach`; on the GPU they lie on the card."""
        followed = super().attach(lifted, indices)
        return followed if self._card is None else self._card.keep(followed)

    def _place(self, followed: FollowedPoints) -> tuple[Array, Array, Array]:
        if self._card is None:
            return super()._place(followed)
        return self._card.place(followed, self._poses)

    def _initial_scene(self, index: int) -> tuple[MjModel, MjData]:
        row = int(np.flatnonzero(self._init_state == index)[0])
        return self.mirror.show(self._start_poses[row])

    def _scene(self, row: int) -> tuple[MjModel, MjData]:
        return self.mirror.show(np.asarray(self._poses[row]))

    def _picture(self, row: int) -> tuple[MjModel, Float[np.ndarray, " S"]]:
        return self.mirror.model, self.mirror.state(np.asarray(self._poses[row]))

    def step(self, action: Float[np.ndarray, "N A"]) -> EnvState:
        """See `BatchedEnv.step`. Raises ValueError if an action is not a finite number."""
        self._check_action(action)
        left = np.where(self._unstable, 0, self.episode_length - self._elapsed)
        repeats = np.minimum(self.action_repeat, left)
        stable = ~self._unstable
        frame = self._simulator.step(np.asarray(action, np.float32), repeats)
        self._elapsed += repeats
        self._take(np.ones(self.num_envs, bool), frame)
        self.num_unstable += int((stable & self._unstable).sum())
        reward = np.where(self._unstable, 0.0, frame.reward)
        return self._output(reward, frame.success & ~self._unstable)

    @property
    def poses(self) -> Float[np.ndarray, "N B 7"]:
        """Of all bodies now: metres, quaternions wxyz."""
        return np.array(self._poses)

    def scripted_actions(self) -> Float[np.ndarray, "N A"]:
        """See `BatchedEnv.scripted_actions`; ValueError for a task without an expert."""
        poses, proprio = np.asarray(self._poses), np.asarray(self._proprio)
        return expert_actions(self._simulator.description, poses, proprio)

    # ---------------------------------------------------------------- checkpoints

    def state(self) -> dict[str, Any]:
        """See `BatchedEnv.state`; call it after `follow`."""
        return self._episode_state() | {
            "poses": self.poses,
            "start_poses": self._start_poses.copy(),
            "simulator": self._simulator.snapshot(self.episode_length),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()` of an environment made with the same arguments, bit for bit on the
        CPU. Raises ValueError if the number of environments differs."""
        self._start_poses = np.array(state["start_poses"])
        self._set_episode_state(state)
        self._poses = np.array(state["poses"])
        self._simulator.restore({k: np.asarray(v) for k, v in state["simulator"].items()})

    def close(self) -> None:
        """Free the simulations and the renderer."""
        self._simulator.close()
        super().close()


def choose_simulator(sim: Sim) -> Literal["gpu", "cpu"]:
    """`auto` takes the GPU where there is one. ValueError if `gpu` is asked for in vain."""
    if sim == "auto":
        return "gpu" if cuda_devices() else "cpu"
    if sim == "gpu" and not cuda_devices():
        raise ValueError("--sim gpu needs a CUDA device, and nvidia-smi lists none: use --sim cpu")
    return sim
