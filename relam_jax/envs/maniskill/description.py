"""What a simulation is made of and what it says each step: numpy alone, shared by all processes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from relam_jax.geometry import Array


class Geom(NamedTuple):
    """One visible shape, fixed on a body."""

    kind: str
    """box, sphere, cylinder, capsule (these along x) or mesh."""
    size: tuple[float, ...]
    """metres: half sizes; (radius,); (radius, half length). Empty for a mesh."""
    position: tuple[float, ...]
    quaternion: tuple[float, ...]
    """wxyz, in the frame of the body."""
    rgba: tuple[float, ...]
    vertices: np.ndarray | None = None
    faces: np.ndarray | None = None


class Body(NamedTuple):
    """A link or an actor."""

    name: str
    kind: str
    """link, dynamic, kinematic or static."""
    solid: bool
    """whether it can be touched."""
    parent: str | None
    """of a link: the link that carries it."""
    geoms: tuple[Geom, ...]


class Description(NamedTuple):
    """A task's simulation, the same for each of its environments."""

    env_id: str
    bodies: tuple[Body, ...]
    """in the order of all poses."""
    tcp: str
    """the link between the fingers."""
    action_dim: int
    proprio_dim: int
    control_freq: int
    """env_steps a second."""


class Frame(NamedTuple):
    """N environments after a reset or an agent step; axis B bodies. From the GPU, poses and proprio
    are jax arrays there."""

    poses: Float[Array, "N B 7"]
    """float32: position (metres), quaternion wxyz."""
    proprio: Float[Array, "N P"]
    """float32: joint positions (rad, m) and velocities, position of the tcp (m)."""
    reward: Float[np.ndarray, " N"]
    """the task's own normalised dense reward, summed over the agent step; 0 if not asked for."""
    success: Bool[np.ndarray, " N"]
    """the task's own flag at any env_step of the agent step."""
