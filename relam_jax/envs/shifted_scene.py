"""Meta-World scenes that differ from those of training: lights, looks, physics, a box before them.

All of it is done to MuJoCo's `MjSpec`, before the model is compiled, so that inertias, bounding
volumes and whatever else depends on it fit. What only changes looks leaves the physics as it is, to
the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from relam_jax.envs.scene import camera_pose
from relam_jax.envs.scripted import entity_bodies, initial_states, make_simulation, reset_simulation
from relam_jax.envs.shifts import Shift
from relam_jax.envs.simulator import MjModel, mujoco
from relam_jax.envs.tasks import TaskSpec

MjSpec = Any
PURPLE = np.array([0.6, 0.1, 0.8, 1.0])
GLOSS = ("specular", "shininess", "emission")
TABLE = "tablelink"
SQUARES = 8
"""of the chequer, along a side of an object."""
BAR_DISTANCE = 0.25
"""metres from a camera to the bar before it."""


def scene_edit(shift: Shift, task: TaskSpec) -> Callable[[MjSpec], None] | None:
    """What `make_simulation` is to do to the scene, or None if the shift leaves it alone."""
    return (
        partial(_edit, factor=shift.factor, level=shift.level, task=task)
        if shift.of_scene
        else None
    )


def _edit(spec: MjSpec, factor: str, level: float, task: TaskSpec) -> None:
    """Raises ValueError if the task has no object to change."""
    if factor.startswith("light_"):
        return _light(spec, factor, level)
    env = make_simulation(task.env_id)
    plain: MjModel = env.model
    objects = [plain.body(b).name for b in dict(entity_bodies(task)).get("object", ())]
    bodies = [TABLE] if factor.startswith("table_") else objects
    if factor == "occluder":
        for camera in task.cameras:
            _bar(spec, camera_pose(plain, camera), level)
    elif not bodies:
        raise ValueError(f"{task.name} has no object whose {factor.split('_')[-1]} could change")
    elif factor == "friction":
        _friction(spec, bodies, level)
    elif factor == "mass":
        for body in bodies:
            _weigh(spec.body(body), plain, level, level)
    elif factor == "size":
        reset_simulation(env, initial_states(task.env_id, "demos", 0, 1)[0])
        _resize(spec, plain, env.data, bodies, level)
    else:
        _paint(spec, bodies, factor.endswith("texture"), level)


def _light(spec: MjSpec, factor: str, level: float) -> None:
    """Lights and the cameras' own headlight: brighter, of another colour, or from elsewhere."""
    if factor == "light_direction":
        cos, sin = np.cos(np.radians(level)), np.sin(np.radians(level))
        for light in spec.lights:
            light.dir = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ light.dir
        return
    if factor == "light_intensity":
        scale = np.full(3, level)
    else:
        scale = 1 - np.abs(level) * np.array([level < 0, 0.5, level > 0])
    for light in (*spec.lights, spec.visual.headlight):
        for kind in ("ambient", "diffuse", "specular"):
            setattr(light, kind, scale * getattr(light, kind))


def _paint(spec: MjSpec, bodies: list[str], texture: bool, level: float) -> None:
    """Mix purple into the colour of what bodies show, or put a chequer on it."""
    if texture:
        row = np.arange(64) * SQUARES // 64
        dark = (row[:, None] + row) % 2 == 1
        side = np.where(dark, round(255 * (1 - level)), 255).astype(np.uint8)
        cube = np.repeat(np.tile(side, (6, 1))[..., None], 3, axis=2)
        picture = spec.add_texture(name="shift", type=mujoco.mjtTexture.mjTEXTURE_CUBE)
        picture.width, picture.height, picture.nchannel = 64, 6 * 64, 3
        picture.data = cube.tobytes()
    materials = {material.name: material for material in spec.materials}
    for body in bodies:
        for number, geom in enumerate(spec.body(body).geoms):
            old, new = materials.get(geom.material), spec.add_material(name=f"{body} {number}")
            new.rgba, geom.material = (old or geom).rgba, new.name
            if old is not None:
                for name in (*("texrepeat", "texuniform", "textures"), *GLOSS):
                    setattr(new, name, getattr(old, name))
            if texture:
                textures = list(new.textures)
                textures[int(mujoco.mjtTextureRole.mjTEXROLE_RGB)] = "shift"
                new.textures = textures
            else:
                mixed = (1 - level) * np.asarray(new.rgba) + level * PURPLE
                new.rgba = [*mixed[:3], new.rgba[3]]


def _bar(spec: MjSpec, camera: Any, width: float) -> None:
    """A grey upright bar before a camera; nothing touches it."""
    half = BAR_DISTANCE * np.tan(0.5 * np.radians(camera.fovy))
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(camera.rotation).ravel())
    centre = camera.position - BAR_DISTANCE * camera.rotation[:, 2]
    body = spec.worldbody.add_body(pos=centre, quat=quat)
    look = {"type": mujoco.mjtGeom.mjGEOM_BOX, "size": [width * half, 1.2 * half, 0.001]}
    body.add_geom(**look, rgba=[0.3, 0.3, 0.3, 1], group=1, contype=0, conaffinity=0, mass=0)


def _friction(spec: MjSpec, objects: list[str], level: float) -> None:
    """Scale it everywhere: of two bodies in touch the larger one counts."""
    for geom in spec.geoms:
        geom.friction = level * np.asarray(geom.friction)
    for body in objects:
        for joint in spec.body(body).joints:
            joint.damping, joint.frictionloss = level * joint.damping, level * joint.frictionloss


def _weigh(body: Any, plain: MjModel, mass: float, inertia: float) -> None:
    """Give a body its plain mass and inertia, scaled."""
    index = plain.body(body.name).id
    body.explicitinertial, body.mass = True, mass * plain.body_mass[index]
    body.inertia = inertia * plain.body_inertia[index]
    body.ipos, body.iquat = plain.body_ipos[index].copy(), plain.body_iquat[index].copy()


def _resize(spec: MjSpec, plain: MjModel, data: Any, objects: list[str], scale: float) -> None:
    """Scale objects, with all that they hang on or that hangs on them, about the table below.

    Masses stay. Meta-World's success keeps its own fixed lengths.
    """
    meshes: set[str] = set()
    roots = {}
    for name in objects:
        _weigh(spec.body(name), plain, 1.0, scale**2)
        root = spec.body(name)
        while root.parent.name != "world":
            root = root.parent
        roots[root.name] = root
    for name, root in roots.items():
        index = plain.body(name).id
        height = np.array([0.0, 0.0, data.xpos[index][2]])
        _scale(root, -data.xmat[index].reshape(3, 3).T @ height, scale, meshes)
    for mesh in spec.meshes:
        if mesh.name in meshes:
            mesh.scale = scale * np.asarray(mesh.scale)


def _scale(body: Any, about: np.ndarray, scale: float, meshes: set[str]) -> None:
    """Scale what is in a body about a point of its frame; notes the meshes that it shows."""

    def moved(position: np.ndarray) -> np.ndarray:
        return about + scale * (position - about)

    for part in (*body.geoms, *body.sites, *body.joints, *body.bodies):
        part.pos = moved(part.pos)
    for shape in (*body.geoms, *body.sites):
        shape.size = scale * shape.size
        shape.fromto = np.concatenate([moved(shape.fromto[:3]), moved(shape.fromto[3:])])
    meshes.update(geom.meshname for geom in body.geoms)
    for joint in body.joints:
        if joint.type == mujoco.mjtJoint.mjJNT_SLIDE:
            joint.range = scale * joint.range
    if body.explicitinertial:
        body.ipos = moved(body.ipos)
    for child in body.bodies:
        _scale(child, np.zeros(3), scale, meshes)
