"""N environments in one simulator on the GPU. Written after ManiSkill's documentation and source;
it has never been run on one: no GPU was at hand (tests/gpu checks it where there is one). The tests
here run it on the CPU, where ManiSkill's batches hold one environment.

Poses and proprioception go from torch to jax on the card, and keypoints are projected there by the
same code as for every other simulator. Over the host go actions, rewards and flags (25 bytes an
environment).
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from relam_jax.envs.maniskill.cpu import CpuSimulator
from relam_jax.envs.maniskill.description import Description, Frame
from relam_jax.envs.projected import FollowedPoints, image_points
from relam_jax.geometry import CameraPose, matrices


def shared(tensor: Any) -> jax.Array:
    """A torch tensor as a jax array on the same device, by DLPack: of a contiguous float32 clone,
    which jax owns alone. (ManiSkill's tensors are views of buffers that the simulator overwrites.)
    """
    return jax.dlpack.from_dlpack(tensor.detach().float().contiguous().clone())


class Card:
    """Keypoints of poses that lie on the GPU."""

    def __init__(self, rows: Int[np.ndarray, " B"], cameras: tuple[CameraPose, ...]) -> None:
        """`rows`: of the poses, those of the bodies with candidates."""

        def place(followed: FollowedPoints, poses: jax.Array) -> tuple[jax.Array, ...]:
            bodies = poses[:, rows]
            world = followed.world(bodies[..., :3], matrices(bodies[..., 3:]))
            return world, *image_points(world, cameras)

        self.place, self.keep = jax.jit(place), jax.device_put


class GpuSimulator:
    """The same calls as `CpuSimulator`; all environments take a step together.

    Initial states are those of the CPU simulation, seed by seed, made by one worker process: on the
    GPU a seed stands for a whole batch, which no single environment could return to.
    """

    def __init__(self, env_id: str, num_envs: int, reward: bool) -> None:
        """Raises ValueError if the task or the GPU simulation cannot start."""
        self._start = CpuSimulator(env_id, 1, 1, False)
        self.description: Description = self._start.description
        self._states: dict[int, np.ndarray] = {}
        self._reward, self._num_envs = reward, num_envs
        from relam_jax.envs.maniskill.sapien import make_simulation
        from relam_jax.envs.maniskill.simulations import tcp_name

        self._env = make_simulation(env_id, num_envs, gpu=True, reward=reward)
        scene = self._env.scene
        things = {link.name: link for art in scene.articulations.values() for link in art.links}
        things |= scene.actors
        self._things = [things[body.name] for body in self.description.bodies]
        self._tcp = [b.name for b in self.description.bodies].index(tcp_name(self._env))
        self._seeds = np.full(num_envs, -1)

    def reset(self, mask: np.ndarray, seeds: Int[np.ndarray, " N"]) -> Frame:
        """Start new episodes where `mask`; the result is of all environments."""
        rows = np.flatnonzero(mask)
        for seed in sorted({*seeds[rows].tolist()} - {*self._states}):
            self._start.reset(np.ones(1, bool), np.array([seed]))
            self._states[seed] = self._start.states()[0]
        self._seeds[rows] = seeds[rows]
        self._set(rows, np.stack([self._states[s] for s in seeds[rows].tolist()]))
        return self._frame()

    def _set(self, rows: np.ndarray, states: Float[np.ndarray, "M S"]) -> None:
        import torch  # pyright: ignore[reportMissingImports]

        device = self._env.device
        self._env.reset(
            options={
                "env_idx": torch.as_tensor(rows, device=device),
                "reset_to_env_states": {"env_states": torch.as_tensor(states, device=device)},
            }
        )

    def step(self, action: Float[np.ndarray, "N A"], repeats: Int[np.ndarray, " N"]) -> Frame:
        """Apply the actions; all environments step as often as the one with most `repeats`."""
        import torch  # pyright: ignore[reportMissingImports]

        command = torch.as_tensor(np.asarray(action, np.float32), device=self._env.device)
        reward = torch.zeros(self._num_envs, device=self._env.device)
        success = torch.zeros(self._num_envs, dtype=torch.bool, device=self._env.device)
        for _ in range(int(repeats.max(initial=0))):
            self._env._step_action(command)
            self._env._elapsed_steps += 1
            info = self._env.get_info()
            if "success" in info:
                success |= info["success"].bool()
            if self._reward:
                reward += self._env.get_reward(obs=None, action=command, info=info)
        frame = self._frame()
        return frame._replace(reward=reward.cpu().numpy(), success=success.cpu().numpy())

    def _frame(self) -> Frame:
        import torch  # pyright: ignore[reportMissingImports]

        poses = torch.stack([thing.pose.raw_pose for thing in self._things], dim=1)
        robot = self._env.agent.robot
        proprio = torch.cat([robot.get_qpos(), robot.get_qvel(), poses[:, self._tcp, :3]], dim=1)
        nothing = np.zeros(self._num_envs, np.float32)
        return Frame(shared(poses), shared(proprio), nothing, nothing > 0)

    def snapshot(self, longest: int) -> dict[str, np.ndarray]:
        """ManiSkill's own state vectors (N, S): all but what PhysX remembers of contacts."""
        return {"seeds": self._seeds.copy(), "states": self._env.get_state().cpu().numpy()}

    def restore(self, snapshot: dict[str, np.ndarray]) -> None:
        """Go on from `snapshot`, nearly."""
        self.reset(np.ones(self._num_envs, bool), snapshot["seeds"])
        self._set(np.arange(self._num_envs), snapshot["states"])

    def close(self) -> None:
        """Free the simulator."""
        self._env.close()
        self._start.close()
