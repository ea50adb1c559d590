"""Several CPU simulations of one ManiSkill task in this process, stepped without its overhead."""

from __future__ import annotations

import functools
import gc
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from relam_jax.envs.maniskill.control import Controller, fits
from relam_jax.envs.maniskill.description import Body, Description, Frame
from relam_jax.envs.maniskill.sapien import geoms, make_simulation, sapien, shapes_of
from relam_jax.envs.maniskill.success import BatchedSuccess


def _bodies(env: Any) -> list[Any]:
    """ManiSkill's objects (links, actors), in the order in which SAPIEN packs their poses."""
    known = env.segmentation_id_map
    return [known[entity.per_scene_id] for entity in env.scene.sub_scenes[0].entities]


def tcp_name(env: Any) -> str:
    """The link between the fingers; the robot's last link where ManiSkill names none."""
    tcp = getattr(env.agent, "tcp", None)
    return tcp.name if tcp is not None and hasattr(tcp, "joint") else env.agent.robot.links[-1].name


@functools.cache
def describe(env_id: str) -> Description:
    """What a task's simulation is made of."""
    with shapes_of(env_id) as (env, shapes):
        bodies = []
        for thing in _bodies(env):
            link = hasattr(thing, "joint")
            parent = thing.joint.parent_link if link else None
            component = thing._objs[0] if link else thing._objs[0].components[0]
            body = Body(
                name=thing.name,
                kind="link" if link else thing.px_body_type,
                solid=len(component.collision_shapes) > 0,
                parent=parent.name if parent is not None else None,
                geoms=geoms(shapes.get(thing.name, [])),
            )
            bodies.append(body)
        simulations = Simulations(env_id, 0, False, [env])
        return Description(
            env_id=env_id,
            bodies=tuple(bodies),
            tcp=tcp_name(env),
            action_dim=env.single_action_space.shape[0],
            proprio_dim=simulations.frame([0]).proprio.shape[1],
            control_freq=env.control_freq,
        )


class Simulations:
    """M one-environment simulations."""

    def __init__(
        self, env_id: str, count: int, reward: bool, envs: list[Any] | None = None
    ) -> None:
        """Make `count` simulations, or take `envs`. Raises ValueError if the task cannot start."""
        gc.collect()
        gc.freeze()  # ManiSkill collects garbage at each start: 80 % of its time among many objects
        self._envs = envs or [make_simulation(env_id, reward=reward) for _ in range(count)]
        self._reward = reward
        self._scenes = [e.scene.sub_scenes[0] for e in self._envs]
        self._robots = [e.agent.robot._objs[0] for e in self._envs]
        first, names = self._envs[0], [b.name for b in _bodies(self._envs[0])]
        self._tcp = names.index(tcp_name(first))
        self._steps = first._sim_steps_per_control
        self._controller: Controller | None = None
        if fits(first):
            arm = next(iter(first.agent.controller.controllers.values()))
            self._controller = Controller(
                self._envs, names.index(arm.root_link.name), names.index(arm.ee_link.name)
            )
        self._success: BatchedSuccess | None = None
        if not reward:
            self._success = BatchedSuccess(self._envs, [_bodies(e) for e in self._envs])

    def reset(self, rows: list[int], seeds: list[int]) -> Frame:
        """Start new episodes: what follows is a function of seed and actions alone."""
        for row, seed in zip(rows, seeds, strict=True):
            self._fresh_scene(row)
            self._envs[row].reset(seed=seed)
        return self.frame(rows)

    def _fresh_scene(self, row: int) -> None:
        """Move everything into a new PhysX scene (0.5 ms).

        ManiSkill keeps its scene over resets, and PhysX remembers in it in which order contacts
        came about: one episode in ten then goes differently from the same one in a new process.
        """
        env, old = self._envs[row], self._scenes[row]
        env._set_scene_config()
        new = sapien.Scene([sapien.physx.PhysxCpuSystem()])
        new.physx_system.timestep = old.physx_system.timestep
        entities = list(old.entities)
        for entity in entities:  # all links of a robot leave before the first enters
            old.remove_entity(entity)
        for entity in entities:
            new.add_entity(entity)
        env.scene.sub_scenes[0], env.scene.px = new, new.physx_system
        self._scenes[row] = new

    def step(
        self, rows: list[int], actions: Float[np.ndarray, "M A"], repeats: Int[np.ndarray, " M"]
    ) -> Frame:
        """Apply each action for its number of env_steps (perhaps 0)."""
        reward, success = np.zeros(len(rows), np.float32), np.zeros(len(rows), bool)
        for done in range(int(repeats.max(initial=0))):
            going = np.flatnonzero(repeats > done)
            active = [rows[i] for i in going]
            self._env_step(active, actions[going])
            flags = self._succeeded(active)
            success[going] |= flags
            if self._reward:
                for i, row in zip(going.tolist(), active, strict=True):
                    info = self._envs[row].get_info()
                    reward[i] += float(self._envs[row].get_reward(obs=None, action=None, info=info))
        frame = self.frame(rows)
        return frame._replace(reward=reward, success=success)

    def _succeeded(self, rows: list[int]) -> Bool[np.ndarray, " M"]:
        if self._success is not None:
            try:
                return self._success(rows, self._poses(rows))
            except Exception:  # the task reads more than the stand-ins know
                self._success = None
        infos = [self._envs[row].evaluate() for row in rows]
        return np.array([bool(info.get("success", False)) for info in infos])

    def _env_step(self, rows: list[int], actions: np.ndarray) -> None:
        if self._controller is None:
            for row, action in zip(rows, actions, strict=True):
                self._envs[row]._step_action(action)
        else:
            self._controller.apply(rows, actions, self._poses(rows))
            for row in rows:
                physics = self._scenes[row].physx_system
                for _ in range(self._steps):
                    physics.step()
        for row in rows:
            self._envs[row]._elapsed_steps += 1

    def _poses(self, rows: list[int]) -> Float[np.ndarray, "M B 7"]:
        packed = b"".join([self._scenes[row].pack_poses() for row in rows])
        poses = np.frombuffer(packed, np.float32).reshape(len(rows), -1, 7)
        return np.concatenate([poses[..., 4:], poses[..., :4]], axis=-1)

    def frame(self, rows: list[int]) -> Frame:
        """What the simulations look like now; reward and success are those of no step."""
        poses = self._poses(rows)
        joints = [np.concatenate([self._robots[r].qpos, self._robots[r].qvel]) for r in rows]
        proprio = np.concatenate([np.stack(joints), poses[:, self._tcp, :3]], axis=1)
        nothing = np.zeros(len(rows), np.float32)
        return Frame(poses, proprio.astype(np.float32), nothing, nothing.astype(bool))

    def states(self, rows: list[int]) -> Float[np.ndarray, "M S"]:
        """ManiSkill's flat state vectors."""
        return np.concatenate([self._envs[row].get_state().numpy() for row in rows])
