"""Uniform replay on the device: a ring of transitions as a pytree (pure functions, after
flashbax)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Transition(NamedTuple):
    """Agent steps; leading axes are free."""

    obs: Float[Array, "*B D"]
    action: Float[Array, "*B A"]
    reward: Float[Array, "*B"]
    discount: Float[Array, "*B"]
    """0 where the episode terminated, else 1; a time limit does not terminate."""
    next_obs: Float[Array, "*B D"]
    """the final observation where the episode was cut, never that of the next episode."""


class Replay(NamedTuple):
    """Ring buffer; `data` has leading axis capacity."""

    data: Transition
    position: Int[Array, ""]
    size: Int[Array, ""]


def init(capacity: int, obs_dim: int, action_dim: int) -> Replay:
    """An empty buffer of zeros."""
    data = Transition(
        jnp.zeros((capacity, obs_dim)),
        jnp.zeros((capacity, action_dim)),
        jnp.zeros(capacity),
        jnp.zeros(capacity),
        jnp.zeros((capacity, obs_dim)),
    )
    return Replay(data, jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def add(replay: Replay, batch: Transition) -> Replay:
    """Append `batch` (leading axis N); the oldest are overwritten. Capacity must be a multiple of
    N."""
    capacity, count = replay.data.reward.shape[0], batch.reward.shape[0]
    data = jax.tree.map(
        lambda ring, rows: jax.lax.dynamic_update_slice_in_dim(ring, rows, replay.position, 0),
        replay.data,
        batch,
    )
    return Replay(
        data, (replay.position + count) % capacity, jnp.minimum(replay.size + count, capacity)
    )


def sample(replay: Replay, key: PRNGKeyArray, shape: tuple[int, ...]) -> Transition:
    """Uniform draws with replacement, `shape` of them; meaningless while the buffer is empty."""
    index = jax.random.randint(key, shape, 0, jnp.maximum(replay.size, 1))
    return jax.tree.map(lambda ring: ring[index], replay.data)


def can_sample(replay: Replay, min_size: int) -> Array:
    """True once `min_size` transitions are stored."""
    return replay.size >= min_size
