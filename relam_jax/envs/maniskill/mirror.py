"""A MuJoCo model that looks like a ManiSkill scene: to cast rays in and to render, never to step.

SAPIEN needs Vulkan to see; MuJoCo needs nothing to cast rays and any OpenGL to render. Every link
and actor becomes a body that is put where SAPIEN says; the shapes are those that SAPIEN would show,
textures left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from relam_jax.envs.maniskill.description import Body, Description, Geom
from relam_jax.envs.simulator import MjData, MjModel, mujoco

MAX_FACES = 150_000
_ALONG_X = (np.sqrt(0.5), 0.0, np.sqrt(0.5), 0.0)
"""turns MuJoCo's axis of capsules and cylinders (z) onto SAPIEN's (x)."""
_FLOOR = -0.92


class Mirror:
    """The model, and data that takes on poses."""

    def __init__(self, description: Description) -> None:
        spec = mujoco.MjSpec()
        spec.worldbody.add_light(pos=[0.5, 0.5, 3], dir=[-0.2, -0.2, -1], diffuse=[0.6] * 3)
        spec.worldbody.add_light(pos=[1, -1, 2], dir=[-0.5, 0.5, -1], diffuse=[0.4] * 3)
        for _ in range(4):  # the renderer moves these to where it looks from
            spec.worldbody.add_camera()
        plane, box = mujoco.mjtGeom.mjGEOM_PLANE, [3.0, 3.0, 0.1]
        spec.worldbody.add_geom(type=plane, size=box, pos=[0, 0, _FLOOR], rgba=[0.5, 0.5, 0.5, 1])
        for index, body in enumerate(description.bodies):
            twin = spec.worldbody.add_body(name=f"{index} {body.name}", mocap=True)
            for part, geom in enumerate(body.geoms):
                _add(spec, twin, geom, f"{index} {part}")
        self.model: MjModel = spec.compile()
        self.data: MjData = mujoco.MjData(self.model)
        self.state_size = mujoco.mj_stateSize(self.model, mujoco.mjtState.mjSTATE_INTEGRATION)

    def show(self, poses: Float[np.ndarray, "B 7"]) -> tuple[MjModel, MjData]:
        """Put the bodies (in the description's order) there."""
        self.data.mocap_pos[:], self.data.mocap_quat[:] = poses[:, :3], poses[:, 3:]
        mujoco.mj_kinematics(self.model, self.data)
        return self.model, self.data

    def state(self, poses: Float[np.ndarray, "B 7"]) -> Float[np.ndarray, " S"]:
        """MuJoCo's integration state with the bodies there, as `SceneRenderer` wants it."""
        self.show(poses)
        state = np.empty(self.state_size)
        mujoco.mj_getState(self.model, self.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
        return state


def _add(spec: Any, body: Any, geom: Geom, name: str) -> None:
    types = mujoco.mjtGeom
    turn, size = geom.quaternion, list(geom.size)
    common = {"pos": geom.position, "rgba": geom.rgba, "contype": 0, "conaffinity": 0}
    if geom.kind == "mesh":
        assert geom.vertices is not None and geom.faces is not None
        if len(geom.faces) > MAX_FACES:
            return
        mesh = spec.add_mesh(name=name)
        mesh.uservert = geom.vertices.astype(np.float32).ravel()
        mesh.userface = geom.faces.astype(np.int32).ravel()
        mesh.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
        body.add_geom(type=types.mjGEOM_MESH, meshname=name, quat=turn, **common)
    else:
        kind = {
            "box": types.mjGEOM_BOX,
            "sphere": types.mjGEOM_SPHERE,
            "capsule": types.mjGEOM_CAPSULE,
            "cylinder": types.mjGEOM_CYLINDER,
        }[geom.kind]
        if geom.kind in ("capsule", "cylinder"):
            out = np.zeros(4)
            mujoco.mju_mulQuat(out, np.array(turn, float), np.array(_ALONG_X))
            turn, size = tuple(out), [size[0], max(size[1], 1e-4)]
        body.add_geom(type=kind, size=size + [0.0] * (3 - len(size)), quat=turn, **common)


def default_entities(description: Description) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(entity, its bodies): the gripper, each movable actor by its name, the marks of the goal."""
    bodies = description.bodies
    by_name = {b.name: b for b in bodies}
    root = by_name[description.tcp].parent or description.tcp
    entities = [("gripper", tuple(b.name for b in bodies if _hangs_on(b, root, by_name)))]
    entities += [(b.name, (b.name,)) for b in bodies if b.kind == "dynamic"]
    marks = tuple(b.name for b in bodies if b.kind == "kinematic" and not b.solid)
    entities += [("goal", marks)] if marks else []
    shown = {b.name for b in bodies if b.geoms}
    return tuple(
        (name, tuple(n for n in names if n in shown))
        for name, names in entities
        if shown & {*names}
    )


def _hangs_on(body: Body, root: str, by_name: dict[str, Body]) -> bool:
    while body.kind == "link":
        if body.name == root:
            return True
        if body.parent is None:
            return False
        body = by_name[body.parent]
    return False
