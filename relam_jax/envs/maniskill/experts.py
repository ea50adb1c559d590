"""Scripted experts in `pd_ee_delta_pos` on poses of tcp, cubes and goal, for all environments at
once.

Each is a function of what it sees now, without memory: which phase it is in follows from where
things are.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from relam_jax.envs.maniskill.description import Description

Points = Float[np.ndarray, "N 3"]
GAIN = 10.0
"""an action of 1 moves the target of the arm by 0.1 m, so this goes all the way at once."""
OPEN, CLOSED = 1.0, -1.0
_Z = np.array([0.0, 0.0, 1.0])


class Scene:
    """Where things are, N environments."""

    def __init__(self, description: Description, poses: np.ndarray, proprio: np.ndarray) -> None:
        self._names = [b.name for b in description.bodies]
        self._poses = poses.astype(np.float64)
        self.tcp = self._poses[:, self._names.index(description.tcp), :3]
        joints = (proprio.shape[1] - 3) // 2
        self.opening = proprio[:, joints - 2 : joints].mean(1)
        """of each finger, metres: 0 to 0.04."""

    def at(self, name: str) -> Points:
        """Position of a body."""
        return self._poses[:, self._names.index(name), :3]


def _go(scene: Scene, target: Points, grip: np.ndarray, limit: float = 1.0) -> np.ndarray:
    move = np.clip(GAIN * (target - scene.tcp), -limit, limit)
    return np.concatenate([move, grip[:, None]], axis=1)


def _carry(scene: Scene, cube: Points, goal: Points) -> tuple[Points, np.ndarray]:
    """Target and grip to fetch `cube`, from above, and bring it to `goal`."""
    offset = scene.tcp - cube
    beside = np.linalg.norm(offset[:, :2], axis=1)
    around = (beside < 0.012) & (np.abs(offset[:, 2]) < 0.012)
    held = around & (scene.opening < 0.03)
    target = np.where((beside < 0.012)[:, None], cube, cube + 0.08 * _Z)
    target = np.where(held[:, None], scene.tcp + (goal - cube), target)
    return target, np.where(around, CLOSED, OPEN)


def pick_cube(scene: Scene) -> np.ndarray:
    """Grasp the cube, bring it to the goal, hold it."""
    return _go(scene, *_carry(scene, scene.at("cube"), scene.at("goal_site")))


def push_cube(scene: Scene) -> np.ndarray:
    """Go down behind the cube with closed fingers, then push it to the middle of the region."""
    return _shove(scene, scene.at("cube"), scene.at("goal_region"), -1.0)


def pull_cube(scene: Scene) -> np.ndarray:
    """The same from the other side."""
    return _shove(scene, scene.at("cube"), scene.at("goal_region"), 1.0)


def _shove(scene: Scene, cube: Points, goal: Points, side: float) -> np.ndarray:
    """`side`: the sign of x, from the cube, of where the fingers stand."""
    behind = cube + np.array([side * 0.05, 0.0, 0.0])
    offset = scene.tcp - behind
    low = scene.tcp[:, 2] < 0.035
    aligned = (np.abs(offset[:, 1]) < 0.015) & (side * offset[:, 0] > -0.03)
    above = np.linalg.norm(offset[:, :2], axis=1) < 0.02
    # at 0.015 m, or pushing more slowly, the arm stops short of the farthest goals
    height = np.where(low & aligned | above, 0.025, 0.12)
    target = np.concatenate([behind[:, :2], height[:, None]], axis=1)
    touch = goal + np.array([side * 0.03, 0.0, 0.0])
    shoving = low & aligned
    target = np.where(shoving[:, None], np.stack([touch[:, 0], cube[:, 1], height], 1), target)
    action = _go(scene, target, np.full(len(cube), CLOSED), limit=0.7)
    action[shoving, :3] = action[shoving, :3].clip(-0.5, 0.5)  # faster, the cube slides past
    return action


def stack_cube(scene: Scene) -> np.ndarray:
    """Put the red cube (cubeA) on the green one (cubeB) and let go."""
    red, green = scene.at("cubeA"), scene.at("cubeB")
    top = green + 0.04 * _Z
    gap = red - top
    beside = np.linalg.norm(gap[:, :2], axis=1)
    over = np.where((beside < 0.012)[:, None], top + 0.002 * _Z, top + 0.06 * _Z)
    high = red[:, 2] < top[:, 2] + 0.02
    over = np.where(((beside > 0.03) & high)[:, None], red + 0.08 * _Z, over)
    target, grip = _carry(scene, red, over)
    placed = (beside < 0.015) & (np.abs(gap[:, 2]) < 0.006)
    target = np.where(placed[:, None], red + 0.1 * _Z, target)
    target = np.where((placed & (scene.opening < 0.03))[:, None], scene.tcp, target)
    return _go(scene, target, np.where(placed, OPEN, grip))


EXPERTS: dict[str, Callable[[Scene], np.ndarray]] = {
    "PickCube-v1": pick_cube,
    "PushCube-v1": push_cube,
    "PullCube-v1": pull_cube,
    "StackCube-v1": stack_cube,
}


def expert_actions(
    description: Description, poses: Float[np.ndarray, "N B 7"], proprio: Float[np.ndarray, "N P"]
) -> Float[np.ndarray, "N A"]:
    """What the task's expert does now. ValueError if there is none."""
    if description.env_id not in EXPERTS:
        raise ValueError(
            f"there is no scripted expert for {description.env_id}, only for {', '.join(EXPERTS)}"
        )
    action = EXPERTS[description.env_id](Scene(description, poses, proprio))
    return np.clip(action, -1, 1).astype(np.float32)
