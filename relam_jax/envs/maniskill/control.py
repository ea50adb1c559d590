"""`pd_ee_delta_pos` for many CPU simulations at once, equal to ManiSkill's own to the last bit.

ManiSkill's controller spends most of an env_step in torch operations on tensors of one row. This
one does the same float32 arithmetic in numpy for all simulations of a process together; the inverse
kinematics are SAPIEN's, one call a simulation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from relam_jax.envs.maniskill.sapien import sapien


def multiply(a: Float[np.ndarray, "*B 4"], b: Float[np.ndarray, "*B 4"]) -> np.ndarray:
    """Hamilton product, wxyz; terms summed from left to right, as ManiSkill does."""
    aw, ax, ay, az = np.moveaxis(a, -1, 0)
    bw, bx, by, bz = np.moveaxis(b, -1, 0)
    return np.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        axis=-1,
    )


_CONJUGATE = np.array([1, -1, -1, -1], np.float32)


def rotate(q: Float[np.ndarray, "*B 4"], point: Float[np.ndarray, "*B 3"]) -> np.ndarray:
    """Turn points by unit quaternions."""
    pure = np.concatenate([np.zeros_like(point[..., :1]), point], axis=-1)
    return multiply(multiply(q, pure), q * _CONJUGATE)[..., 1:]


def compose(a: Float[np.ndarray, "*B 7"], b: Float[np.ndarray, "*B 7"]) -> np.ndarray:
    """The pose a·b; its quaternion has w >= 0."""
    q = multiply(a[..., 3:], b[..., 3:])
    q = np.where(q[..., :1] < 0, -q, q)
    return np.concatenate([a[..., :3] + rotate(a[..., 3:], b[..., :3]), q], axis=-1)


def invert(pose: Float[np.ndarray, "*B 7"]) -> np.ndarray:
    """The inverse of a pose."""
    q = pose[..., 3:] * _CONJUGATE
    return np.concatenate([rotate(q, -pose[..., :3]), q], axis=-1)


def fits(env: Any) -> bool:
    """Whether an environment is controlled just as this module does it."""
    parts = getattr(env.agent.controller, "controllers", {})
    if [type(c).__name__ for c in parts.values()] != [
        "PDEEPosController",
        "PDJointPosMimicController",
    ]:
        return False
    arm, hand = (c.config for c in parts.values())
    plain = all(
        getattr(type(env), f"_{when}_{what}_step").__module__ == "mani_skill.envs.sapien_env"
        for when in ("before", "after")
        for what in ("control", "simulation")
    )
    return (
        plain
        and arm.use_delta
        and arm.frame == "root_translation"
        and arm.normalize_action
        and hand.normalize_action
        and not (arm.use_target or arm.interpolate or hand.use_delta or hand.interpolate)
    )


class Controller:
    """Sets the drive targets of the joints of simulations of one task."""

    def __init__(self, envs: list[Any], root: int, end: int) -> None:
        """`root`, `end`: the bodies that the arm's controller calls root and end of the arm."""
        self._root, self._end = root, end
        arm, hand = envs[0].agent.controller.controllers.values()
        self._arm_low, self._arm_high = (
            x.numpy() for x in (arm.action_space_low, arm.action_space_high)
        )
        self._hand_low, self._hand_high = (
            x.numpy() for x in (hand.action_space_low, hand.action_space_high)
        )
        self._arm_dim = len(self._arm_low)
        kinematics = arm.kinematics
        self._end_link = kinematics.end_link_idx
        self._model_joints = kinematics.pmodel_active_joint_indices.numpy()
        self._controlled = kinematics.pmodel_controlled_joint_indices.numpy()
        self._qmask = kinematics.qmask.numpy()
        self._arm_joints = arm.active_joint_indices.numpy()
        self._ratio, self._offset = hand._multiplier.numpy(), hand._offset.numpy()
        self._leads = hand.control_joint_indices.numpy()
        self._mimics = hand.mimic_joint_indices.numpy()
        self._led_by = hand.mimic_control_joint_indices.numpy()
        self._num_hand = len(hand.joints)
        self._models = [e.agent.controller.controllers["arm"].kinematics.pmodel for e in envs]
        self._drives = [
            [joint._objs[0] for c in e.agent.controller.controllers.values() for joint in c.joints]
            for e in envs
        ]
        self._robots = [e.agent.robot._objs[0] for e in envs]

    def apply(
        self, rows: list[int], actions: Float[np.ndarray, "M A"], poses: Float[np.ndarray, "M B 7"]
    ) -> None:
        """Set the targets of the simulations `rows`, given their actions and poses of now."""
        actions = np.clip(actions, np.float32(-1), np.float32(1))
        half = np.float32(0.5)
        move, grip = actions[:, : self._arm_dim], actions[:, self._arm_dim :]
        move = (
            half * (self._arm_high + self._arm_low) + half * (self._arm_high - self._arm_low) * move
        )
        grip = (
            half * (self._hand_high + self._hand_low)
            + half * (self._hand_high - self._hand_low) * grip
        )
        hand = np.zeros((len(rows), self._num_hand), np.float32)
        hand[:, self._leads] = grip
        hand[:, self._mimics] = hand[:, self._led_by] * self._ratio + self._offset
        shift = np.zeros((len(rows), 7), np.float32)
        shift[:, :3], shift[:, 3] = move, 1
        target = compose(shift, compose(invert(poses[:, self._root]), poses[:, self._end]))
        for row, pose, fingers in zip(rows, target, hand, strict=True):
            qpos = self._robots[row].qpos
            result, success, _ = self._models[row].compute_inverse_kinematics(
                self._end_link,
                sapien.Pose(pose[:3], pose[3:]),
                initial_qpos=qpos[self._model_joints],
                active_qmask=self._qmask,
                max_iterations=100,
            )
            arm = result[self._controlled] if success else qpos[self._arm_joints]
            values = np.concatenate([np.asarray(arm, np.float32), fingers])
            for joint, value in zip(self._drives[row], values[:, None], strict=True):
                joint.drive_target = value
