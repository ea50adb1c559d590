"""Meta-World as it ships: initial states by explicit seed, scripted experts, what they move."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from relam_jax.envs.simulator import MjModel, Task, metaworld, mujoco
from relam_jax.envs.tasks import MARKED, TaskSpec

Split = Literal["demos", "train", "eval"]

_FIRST_SEED: dict[str, int] = {"demos": 0, "train": 1_000_000_000, "eval": 2_000_000_000}
_SEEDS_PER_POOL = 100
_STATES_PER_SEED = 50

GRIPPER_ROOT = "right_hand"
"""the body whose subtree is the gripper: the flange that carries it, hand, fingers and pads."""
ROBOT_ROOT = "base"
"""the body whose subtree is the robot."""
GOAL = "goal"
"""name of the site where the goal is, of the body that marks it, and of the entity."""


def initial_states(env_id: str, split: Split, seed: int, count: int) -> list[Task]:
    """`count` initial states (Meta-World's `Task`s) of one pool.

    Pools of different splits or seeds use different seeds of Meta-World's, 50 states to a seed.
    Raises ValueError if seed or count is out of range.
    """
    if not 0 <= seed < 10_000_000 or not 0 < count <= _SEEDS_PER_POOL * _STATES_PER_SEED:
        raise ValueError(f"need 0 <= seed < 10,000,000 and 0 < count <= 5,000, not {seed}, {count}")
    tasks: list[Task] = []
    first = _FIRST_SEED[split] + _SEEDS_PER_POOL * seed
    while len(tasks) < count:
        tasks += metaworld.MT1(env_id, seed=first + len(tasks) // _STATES_PER_SEED).train_tasks
    return tasks[:count]


def make_simulation(env_id: str, edit: Callable[[Any], None] | None = None) -> Any:
    """Meta-World's own environment of a task (without wrappers, never rendered).

    Where its goal is a place in the air or on the table (`MARKED`), a ball that nothing touches
    marks it for the cameras; the physics is the same to the last bit. `edit` changes the scene
    further: it gets its MjSpec before it is compiled.
    """
    base = metaworld.env_dict.ALL_V3_ENVIRONMENTS[env_id]
    edits = [e for e in (_mark_goal if env_id in MARKED else None, edit) if e is not None]
    return (_edited(base, edits) if edits else base)()


def _edited(base: type, edits: list[Callable[[Any], None]]) -> type:
    """A subclass whose model is compiled from an edited scene."""

    def _initialize_simulation(self: Any) -> tuple[Any, Any]:
        spec = mujoco.MjSpec.from_file(self.fullpath)
        for edit in edits:
            edit(spec)
        model = spec.compile()
        return model, mujoco.MjData(model)

    return type(base.__name__, (base,), {"_initialize_simulation": _initialize_simulation})


def _mark_goal(spec: Any) -> None:
    """Show the goal's site as a body named `GOAL`."""
    site, ball = spec.site(GOAL), spec.worldbody.add_body(name=GOAL)
    look = {"type": mujoco.mjtGeom.mjGEOM_SPHERE, "size": site.size, "rgba": site.rgba}
    ball.add_geom(**look, group=1, contype=0, conaffinity=0, mass=0)


def reset_simulation(env: Any, task: Task) -> Float[np.ndarray, " O"]:
    """Reset to an initial state and return the observation.

    Resets twice: after one reset the observation still shows where the last task had its fixed
    bodies (Meta-World moves them without recomputing positions). After two, nothing of the past is
    left.
    """
    env.set_task(task)
    env.reset()
    obs = env.reset()[0]
    if mujoco.mj_name2id(env.model, mujoco.mjtObj.mjOBJ_BODY, GOAL) >= 0:
        env.model.body(GOAL).pos = env.model.site(GOAL).pos
    return obs


def scripted_expert(env_id: str) -> Callable[[Float[np.ndarray, " O"]], Float[np.ndarray, " A"]]:
    """A fresh scripted expert: observation → action in [-1, 1]."""
    policy: Any = metaworld.policies.ENV_POLICY_MAP[env_id]()

    def act(obs: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # "Constant(s) may be too high": the actions are clipped here
            return np.clip(policy.get_action(obs.copy()), -1, 1)  # some experts overwrite obs

    return act


def _subtree(model: MjModel, root: str) -> frozenset[int]:
    root_id = model.body(root).id
    inside = {root_id}
    for body in range(root_id + 1, model.nbody):  # parents come before their children
        if model.body_parentid[body] in inside:
            inside.add(body)
    return frozenset(inside)


def _moved_bodies(env: Any, env_id: str, threshold: float) -> list[int]:
    """Bodies, not of the robot, that the expert moves by more than `threshold` metres."""
    model, data = env.model, env.data
    obs = reset_simulation(env, initial_states(env_id, "demos", 0, 1)[0])
    mujoco.mj_kinematics(model, data)
    jointed = np.zeros(model.nbody, bool)
    for body in range(1, model.nbody):
        jointed[body] = model.body_jntnum[body] > 0 or jointed[model.body_parentid[body]]
    for body in _subtree(model, ROBOT_ROOT):
        jointed[body] = False
    eligible = jointed[model.geom_bodyid]
    start, axes = data.geom_xpos.copy(), data.geom_xmat.reshape(-1, 3, 3).copy()
    shift = np.zeros(model.ngeom)
    act, held = scripted_expert(env_id), 0
    for _ in range(300):
        obs, _, _, _, info = env.step(act(obs))
        turn = np.linalg.norm(data.geom_xmat.reshape(-1, 3, 3) - axes, axis=(1, 2)) / np.sqrt(2)
        moved = np.linalg.norm(data.geom_xpos - start, axis=1) + turn * model.geom_rbound
        shift = np.maximum(shift, moved)
        held = held + 1 if info["success"] else 0
        if held > 10:
            break
    visible = (model.geom_group <= 2) & eligible & (shift > threshold)
    return sorted(set(model.geom_bodyid[visible].tolist()))


def entity_bodies(spec: TaskSpec) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """(entity, ids of its bodies) of a task, in order. Raises KeyError if a body does not exist.

    Without an override: `gripper` is all below the wrist (flange, hand, fingers); `object` is every
    body that the scripted expert moves by more than 1 cm in one episode (left out if there is none,
    as in `reach`); `goal` is the ball that marks it (in `MARKED` tasks).
    """
    if spec.entities is None:
        return _default_entities(spec.env_id)
    body = make_simulation(spec.env_id).model.body
    return tuple((name, tuple(body(b).id for b in bodies)) for name, bodies in spec.entities)


@functools.cache
def _default_entities(env_id: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    env = make_simulation(env_id)
    gripper = tuple(sorted(_subtree(env.model, GRIPPER_ROOT)))
    moved = tuple(_moved_bodies(env, env_id, threshold=0.01))
    goal = (env.model.body(GOAL).id,) if env_id in MARKED else ()
    entities = (("gripper", gripper), ("object", moved), (GOAL, goal))
    return tuple((name, bodies) for name, bodies in entities if bodies)
