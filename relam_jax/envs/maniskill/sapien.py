"""mani_skill, imported so that it starts without Vulkan, and the visible shapes of what it builds.

Without a renderer SAPIEN refuses to make materials, and ManiSkill's tasks make them even where
nothing is rendered. Two stand-ins, which only remember their colour, let every rigid-body task that
loads no textures start with `render_backend="none"`; physics never looks at them. Only worker
processes import this module (it needs torch).
"""

from __future__ import annotations

import difflib
import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from relam_jax.envs.maniskill.description import Geom

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # "Failed to find system libvulkan": it is not needed
    sapien: Any = importlib.import_module("sapien")
    sapien_builder: Any = importlib.import_module("sapien.wrapper.actor_builder")


class _Material:
    """Stands for a SAPIEN material or texture where nothing can be rendered."""

    def __init__(self, *_: Any, **known: Any) -> None:
        self.base_color = [0.8, 0.8, 0.8, 1.0]
        self.__dict__.update(known)

    def set_base_color(self, color: Any) -> None:
        """As SAPIEN's own."""
        self.base_color = color


for _name in ("RenderMaterial", "RenderTexture2D"):
    _class = type(_name, (_Material,), {})
    setattr(sapien.render, _name, _class)
    setattr(sapien.pysapien.render, _name, _class)

logging.getLogger("mani_skill").setLevel(logging.ERROR)  # a warning a simulation and actor
gym: Any = importlib.import_module("gymnasium")
importlib.import_module("mani_skill.envs")
structs: Any = importlib.import_module("mani_skill.utils.structs")
REGISTERED: dict[str, Any] = importlib.import_module(
    "mani_skill.utils.registration"
).REGISTERED_ENVS

CONTROL_MODE = "pd_ee_delta_pos"


def make_simulation(
    env_id: str, num_envs: int = 1, *, gpu: bool = False, reward: bool = False
) -> Any:
    """ManiSkill's own environment of a task, state only.

    Raises ValueError, in one sentence, if there is no such task or it cannot start here.
    """
    if env_id not in REGISTERED:
        near = difflib.get_close_matches(env_id, REGISTERED, n=3, cutoff=0.5)
        hint = f": did you mean {' or '.join(near)}?" if near else "."
        raise ValueError(f"ManiSkill has no task {env_id!r}{hint}")
    try:
        return gym.make(
            env_id,
            num_envs=num_envs,
            sim_backend="gpu" if gpu else "cpu",
            render_backend="none",
            control_mode=CONTROL_MODE,
            obs_mode="none",
            reward_mode="normalized_dense" if reward else "none",
        ).unwrapped
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"ManiSkill's {env_id} cannot be simulated here: {reason}") from error


@contextmanager
def shapes_of(env_id: str) -> Iterator[tuple[Any, dict[str, list[Any]]]]:
    """A simulation of a task and the visible shapes (SAPIEN's records) of each of its bodies."""
    builders: list[Any] = []
    base, original = sapien_builder.ActorBuilder, sapien_builder.ActorBuilder.__init__

    def remember(self: Any, *args: Any, **named: Any) -> None:
        original(self, *args, **named)
        builders.append(self)

    base.__init__ = remember
    try:
        env = make_simulation(env_id)
    finally:
        base.__init__ = original
    yield env, {b.name: b.visual_records for b in builders if b.visual_records}


def geoms(records: list[Any]) -> tuple[Geom, ...]:
    """SAPIEN's records as plain numbers, files read."""
    out: list[Geom] = []
    for r in records:
        position, quaternion = tuple(r.pose.p.tolist()), tuple(r.pose.q.tolist())
        color = tuple(float(c) for c in getattr(r.material, "base_color", (0.8, 0.8, 0.8, 1.0)))
        sizes = {
            "box": tuple(float(s) for s in r.scale),
            "sphere": (float(r.radius),),
            "capsule": (float(r.radius), float(r.length)),
            "cylinder": (float(r.radius), float(r.length)),
        }
        if r.type in sizes:
            out.append(Geom(r.type, sizes[r.type], position, quaternion, color))
        elif r.type == "file":
            for vertices, faces, own in _mesh_file(r.filename):
                scaled = vertices * np.asarray(r.scale)
                rgba = color if r.material is not None else own
                out.append(Geom("mesh", (), position, quaternion, rgba, scaled, faces))
    return tuple(out)


def _mesh_file(path: str) -> list[tuple[np.ndarray, np.ndarray, tuple[float, ...]]]:
    """(vertices, faces, mean colour) of each part of a mesh file."""
    trimesh = importlib.import_module("trimesh")
    scene = trimesh.load(path, force="scene")
    parts = []
    for part in scene.dump():
        if hasattr(part, "faces") and len(part.faces) >= 4:
            visual = part.visual.to_color() if hasattr(part.visual, "to_color") else part.visual
            color = np.asarray(visual.vertex_colors, float).reshape(-1, 4).mean(0)
            rgba = (*(color[:3] / 255).tolist(), 1.0)
            parts.append((np.asarray(part.vertices), np.asarray(part.faces), rgba))
    return parts
