"""φ of method §4: falls from 1 at x = 0 to (about) 0 at x = 1, where x = d / D_k."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

Form = Literal["linear", "gaussian", "tanh", "exp"]

SHAPING: dict[str, Callable[[Float[Array, "*B"]], Float[Array, "*B"]]] = {
    "linear": lambda x: jnp.clip(1 - x, 0, 1),
    "gaussian": lambda x: jnp.exp(-0.5 * (3 * x) ** 2),
    "tanh": lambda x: 1 - jnp.tanh(2 * x),
    "exp": lambda x: jnp.exp(-3 * x),
}
