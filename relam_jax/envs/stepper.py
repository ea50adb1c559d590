"""One Meta-World environment without its overhead, equal to the original to the last bit.

The physics, the reward and the success are Meta-World's own: its methods run on a *shell*, an
object of the task's class whose model and data are ours. What is left out does not change the
results: the search for bodies by name, positions of sites that mj_forward overwrites, forces that
nobody reads, and (unless the reward is wanted) the parts of the observation and of the reward that
success does not depend on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from relam_jax.envs.scripted import make_simulation, reset_simulation
from relam_jax.envs.simulator import MjModel, mujoco

STATE = mujoco.mjtState.mjSTATE_INTEGRATION
OBS_DIM = 39
FRAME_DIM = 18
PROPRIO_DIM = 4

_MOCAP_QUAT = np.array([1.0, 0.0, 1.0, 0.0])
_NEEDS_GRASP = frozenset({"stick-push-v3", "stick-pull-v3"})
"""tasks whose success asks whether the fingers touch the object."""


class ResetState(NamedTuple):
    """A simulator right after a reset: everything that an episode starts from."""

    physics: Float[np.ndarray, " S"]
    """mjSTATE_INTEGRATION."""
    attributes: Float[np.ndarray, " A"]
    """Meta-World's Python attributes (targets, initial positions, counters), flattened."""
    body_pos: Float[np.ndarray, "B 3"]
    """model.body_pos: Meta-World moves fixed bodies by changing the model."""
    site_pos: Float[np.ndarray, "P 3"]
    """model.site_pos."""


class Attributes:
    """The numeric Python attributes of a Meta-World environment as one float64 vector, and back.

    Arrays that are views of the simulator's data (some tasks keep those) are bound again, not
    copied. None is stored as NaN. Attributes that never differ between two environments of a task
    are left alone.
    """

    _IGNORED = frozenset({"_last_stable_obs"})  # overwritten before it is read

    def __init__(self, env: Any) -> None:
        self._fields: list[tuple[str, Any, int]] = []
        self._views: list[tuple[str, str, int, int]] = []
        self.size = 0
        for name, value in env.__dict__.items():
            if name in self._IGNORED:
                continue
            if isinstance(value, np.ndarray):
                if self._bind_view(env, name, value):
                    continue
                kind, size = (value.dtype, value.shape), value.size
            elif value is None or isinstance(value, (bool, int, float, np.number, np.bool_)):
                kind, size = type(value), 1
            else:
                continue
            self._fields.append((name, kind, size))
            self.size += size

    def _bind_view(self, env: Any, name: str, value: np.ndarray) -> bool:
        for field in ("xpos", "site_xpos", "geom_xpos", "xipos", "xquat", "qpos", "qvel"):
            buffer = getattr(env.data, field)
            if np.shares_memory(buffer, value):
                offset = value.ctypes.data - buffer.ctypes.data
                self._views.append((name, field, offset // 8, value.size))
                return True
        return False

    def pack(self, env: Any) -> Float[np.ndarray, " A"]:
        """Read the attributes of an environment or shell."""
        out, start = np.empty(self.size), 0
        for name, _, size in self._fields:
            value = getattr(env, name)
            out[start : start + size] = np.nan if value is None else np.ravel(value)
            start += size
        return out

    def unpack(self, values: Float[np.ndarray, " A"], shell: Any) -> None:
        """Write them to a shell."""
        start = 0
        for name, kind, size in self._fields:
            chunk = values[start : start + size]
            start += size
            if isinstance(kind, tuple):
                value: Any = chunk.reshape(kind[1]).astype(kind[0])
            elif kind is type(None):
                value = None if np.isnan(chunk[0]) else float(chunk[0])
            else:
                value = kind(chunk[0])
            setattr(shell, name, value)
        for name, field, offset, size in self._views:
            setattr(shell, name, getattr(shell.data, field).reshape(-1)[offset : offset + size])


class Template:
    """What the environments of a task share: the prototype, initial states, a class for shells."""

    def __init__(
        self,
        env_id: str,
        tasks: list[Any],
        reward: bool,
        edit: Callable[[Any], None] | None = None,
    ) -> None:
        """`tasks` are the initial states (see `scripted.initial_states`), `edit` changes the scene
        (see `scripted.make_simulation`)."""
        self.env = make_simulation(env_id, edit)
        self.reward = reward
        self.state_size = mujoco.mj_stateSize(self.env.model, STATE)
        self.shell_class = type(self.env) if reward else _success_only(type(self.env), env_id)
        self._tasks = tasks
        self._cache: dict[int, ResetState] = {}
        reset_simulation(self.env, tasks[0])
        self.attributes = Attributes(self.env)
        space = self.env.sawyer_observation_space
        self.low, self.high = space.low, space.high
        self._action_scale: float = self.env.action_scale

    def initial(self, index: int) -> ResetState:
        """The state that Meta-World resets to; computed at first use, then remembered."""
        if index not in self._cache:
            env, physics = self.env, np.empty(self.state_size)
            reset_simulation(env, self._tasks[index])
            mujoco.mj_getState(env.model, env.data, physics, STATE)
            attributes = self.attributes.pack(env)
            body_pos, site_pos = env.model.body_pos.copy(), env.model.site_pos.copy()
            self._cache[index] = ResetState(physics, attributes, body_pos, site_pos)
        return self._cache[index]

    def displacement(self, action: Float[np.ndarray, " A"]) -> Float[np.ndarray, " 3"]:
        """How far the hand's target moves, metres, in the precision of the action."""
        return np.minimum(np.maximum(action[:3], -1), 1) * self._action_scale

    def new_model(self) -> MjModel:
        """A copy of the model (20 MB): one is needed per thread."""
        return copy.copy(self.env.model)


class Stepper:
    """One environment: its own data and shell, a model that it shares with others of its thread."""

    def __init__(self, template: Template, model: MjModel) -> None:
        self.template, self.model = template, model
        self.data = data = mujoco.MjData(model)
        self.shell: Any = object.__new__(template.shell_class)
        self.shell.__dict__.update(template.env.__dict__)
        self.shell.model, self.shell.data = model, data
        self.obs = np.zeros(OBS_DIM)
        """the observation after the last env_step or reset, Meta-World's units."""
        self._hand = data.body("hand").xpos
        self._right, self._left = data.body("rightclaw").xpos, data.body("leftclaw").xpos
        self._mocap_pos, self._mocap_quat = data.mocap_pos, data.mocap_quat
        self._ctrl = data.ctrl
        self._reward = template.reward
        self._time = 0.0
        self._body_pos, self._site_pos = model.body_pos.copy(), model.site_pos.copy()

    def restore(self, start: ResetState) -> None:
        """Go to a reset state, or to any other with its `physics` and `attributes` replaced.

        `obs` is then that of a reset; for a later state the caller sets it.
        """
        self._body_pos, self._site_pos = start.body_pos, start.site_pos
        self.bind_model()
        mujoco.mj_setState(self.model, self.data, start.physics, STATE)
        mujoco.mj_forward(self.model, self.data)
        # mj_forward is only for positions; it also moves the solver's warm start: put that back
        mujoco.mj_setState(self.model, self.data, start.physics, STATE)
        self.template.attributes.unpack(start.attributes, self.shell)
        self._time = self.data.time
        frame = self.shell._prev_obs
        self.obs = np.concatenate([frame, frame, self.shell._get_pos_goal()])

    def physics(self) -> Float[np.ndarray, " S"]:
        """The simulator's integration state of now."""
        physics = np.empty(self.template.state_size)
        mujoco.mj_getState(self.model, self.data, physics, STATE)
        return physics

    def attributes(self) -> Float[np.ndarray, " A"]:
        """Meta-World's Python attributes of now."""
        return self.template.attributes.pack(self.shell)

    def bind_model(self) -> None:
        """Put the fixed bodies of this environment into the model it shares."""
        self.model.body_pos[:] = self._body_pos
        self.model.site_pos[:] = self._site_pos

    def env_step(self, action: Float[np.ndarray, " A"]) -> tuple[float, bool]:
        """Step as Meta-World does; returns (reward, success), reward 0 where it is not wanted.

        The model must be bound. The action is used in its own precision.
        """
        shell, data, mocap = self.shell, self.data, self._mocap_pos
        np.maximum(mocap + self.template.displacement(action), shell.mocap_low, out=mocap)
        np.minimum(mocap, shell.mocap_high, out=mocap)
        self._mocap_quat[:] = _MOCAP_QUAT
        self._ctrl[0] = action[-1]
        self._ctrl[1] = -action[-1]
        mujoco.mj_step(self.model, data, shell.frame_skip)
        shell.curr_path_length += 1
        mujoco.mj_forward(self.model, data)
        obs = self._observe(full=self._reward)
        reward, info = shell.evaluate_state(obs, action)
        return (float(reward) if self._reward else 0.0), bool(info["success"])

    def diverged(self) -> bool:
        """Whether MuJoCo found the simulation unstable and reset it since the last call."""
        time, self._time = self._time, self.data.time
        return self._time < time or not math.isfinite(self._hand[0])

    def _observe(self, full: bool) -> Float[np.ndarray, " O"]:
        """Meta-World's observation; orientations of objects and the last frame only if `full`."""
        shell = self.shell
        obs = np.zeros(OBS_DIM)
        obs[:3] = self._hand
        gap = self._right - self._left
        obs[3] = min(max(math.sqrt(gap.dot(gap)) / 0.1, 0.0), 1.0)
        position = shell._get_pos_objects()
        obs[4:7] = position[:3]
        if len(position) > 3:
            obs[11:14] = position[3:]
        if full:
            quaternion = shell._get_quat_objects()
            obs[7:11] = quaternion[:4]
            if len(quaternion) > 4:
                obs[14:18] = quaternion[4:]
            obs[18:36] = shell._prev_obs
            shell._prev_obs = obs[:FRAME_DIM].copy()
        obs[36:] = shell._get_pos_goal()
        np.maximum(obs, self.template.low, out=obs)
        self.obs = np.minimum(obs, self.template.high, out=obs)
        return obs


class _NoReward(SimpleNamespace):
    """Stands for Meta-World's `reward_utils` where only success is wanted."""

    @staticmethod
    def tolerance(*_: Any, **__: Any) -> float:
        return 0.0

    hamacher_product = tolerance
    rect_prism_tolerance = tolerance


def _success_only(base: type, env_id: str) -> type:
    """A subclass whose `evaluate_state` gets success right and skips the shaping of the reward.

    `compute_reward` runs with the shaping helpers replaced by constants; tests compare the success
    of every task with the original's.
    """
    overrides: dict[str, Any] = {"_gripper_caging_reward": _NoReward.tolerance}
    for name in ("compute_reward",):
        function = getattr(base, name)
        if isinstance(function, FunctionType):
            scope = {**function.__globals__, "reward_utils": _NoReward}
            overrides[name] = FunctionType(
                function.__code__, scope, name, function.__defaults__, function.__closure__
            )
            overrides[name].__kwdefaults__ = function.__kwdefaults__
    if env_id not in _NEEDS_GRASP:
        overrides["touching_main_object"] = False
    return type(base.__name__, (base,), overrides)
