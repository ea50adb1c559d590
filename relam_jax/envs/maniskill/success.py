"""A task's own success flag for many CPU simulations by one call of its `evaluate`.

`evaluate` is written in torch for batches, and a batch of one row costs as much as one of a
hundred: it was half of an env_step. Here it runs on stand-ins whose poses, velocities and joints
are those of all simulations. What a stand-in does not know raises AttributeError; the task is then
evaluated simulation by simulation.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from jaxtyping import Bool, Float

from relam_jax.envs.maniskill.sapien import structs

_PLAIN = (bool, int, float, str, tuple, np.ndarray, torch.device, type(None))


def _same_for_all(value: Any) -> bool:
    """Constants; a tensor of one row may be an environment's own."""
    if isinstance(value, torch.Tensor):
        return value.ndim == 0 or value.shape[0] != 1
    return isinstance(value, _PLAIN)


class _StandIn:
    """Methods and properties are those of `original`'s class, run on this object's attributes."""

    def __init__(self, original: Any, known: dict[str, Any]) -> None:
        self.__dict__.update(known, _class=type(original))

    def __getattr__(self, name: str) -> Any:
        for base in self.__dict__["_class"].__mro__:
            if name in base.__dict__:
                found = base.__dict__[name]
                if isinstance(found, property) and found.fget is not None:
                    return found.fget(self)
                if isinstance(found, FunctionType):
                    return MethodType(found, self)
                if isinstance(found, _PLAIN):
                    return found
                break
        raise AttributeError(name)


class _Body(_StandIn):
    """A link or actor of all simulations."""

    def __init__(self, original: Any, index: int, now: _Now) -> None:
        super().__init__(original, {"name": original.name, "index": index, "now": now})

    @property
    def pose(self) -> Any:
        return structs.Pose.create(self.now.poses[:, self.index])

    @property
    def linear_velocity(self) -> torch.Tensor:
        return self.now.read(lambda things: things[self.index].linear_velocity)

    @property
    def angular_velocity(self) -> torch.Tensor:
        return self.now.read(lambda things: things[self.index].angular_velocity)


class _Now:
    """Which simulations are looked at, and where their bodies are."""

    def __init__(self, things: list[list[Any]]) -> None:
        self._things = things
        self.rows: list[int] = []
        self.poses = torch.zeros(0)

    def read(self, get: Callable[[list[Any]], torch.Tensor]) -> torch.Tensor:
        """`get` (one row) of the bodies of each simulation, as a batch."""
        return torch.cat([get(self._things[row]) for row in self.rows])


class BatchedSuccess:
    """Evaluates simulations of one task together."""

    def __init__(self, envs: list[Any], things: list[list[Any]]) -> None:
        """`things`: the links and actors of each simulation, in the order of their poses."""
        self._now = now = _Now(things)
        index = {id(thing): i for i, thing in enumerate(things[0])}
        first, robots = envs[0], [e.agent.robot for e in envs]

        def batch(get: Callable[[Any], torch.Tensor]) -> Callable[[], torch.Tensor]:
            return lambda: torch.cat([get(robots[row]) for row in now.rows])

        def forces(a: _Body, b: _Body) -> torch.Tensor:
            return torch.cat(
                [
                    envs[r].scene.get_pairwise_contact_forces(
                        things[r][a.index], things[r][b.index]
                    )
                    for r in now.rows
                ]
            )

        def stand_in(value: Any) -> Any:
            return _Body(value, index[id(value)], now) if id(value) in index else value

        def known(original: Any) -> dict[str, Any]:
            values = {k: stand_in(v) for k, v in vars(original).items()}
            return {k: v for k, v in values.items() if isinstance(v, _Body) or _same_for_all(v)}

        joints = {"get_qpos": batch(lambda r: r.qpos), "get_qvel": batch(lambda r: r.qvel)}
        robot = _StandIn(first.agent.robot, joints)
        scene = _StandIn(first.scene, {"get_pairwise_contact_forces": forces})
        parts = {"robot": robot, "scene": scene}
        agent = _StandIn(first.agent, known(first.agent) | parts)
        self._env = _StandIn(first, known(first) | {"agent": agent, "scene": scene})

    def __call__(
        self, rows: list[int], poses: Float[np.ndarray, "M B 7"]
    ) -> Bool[np.ndarray, " M"]:
        """The success flags of the simulations `rows`. Raises what `evaluate` raises."""
        self._now.rows, self._now.poses = rows, torch.from_numpy(poses)
        result = self._env.evaluate()
        if "success" not in result:
            return np.zeros(len(rows), bool)
        flags = result["success"].numpy()
        if flags.shape != (len(rows),):
            raise ValueError("success is not one flag a simulation")
        return flags
