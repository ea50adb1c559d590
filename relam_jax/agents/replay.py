"""Uniform replay on the device: a ring of transitions as a pytree (pure functions, after
flashbax)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from relam_jax.agents.frames import Sight


class Transition(NamedTuple):
    """Agent steps; leading axes are free. With frames, obs and next_obs are a `Sight`."""

    obs: Any
    """(…, D)."""
    action: Float[Array, "*B A"]
    reward: Float[Array, "*B"]
    discount: Float[Array, "*B"]
    """0 where the episode terminated, else 1; a time limit does not terminate."""
    next_obs: Any
    """(…, D): the final observation where the episode was cut, never that of the next episode."""


class Replay(NamedTuple):
    """Ring buffer; `data` and `last` have leading axis capacity."""

    data: Transition
    last: Bool[Array, "*B"]
    """the episode ended with this row, by termination or by its time limit."""
    position: Int[Array, ""]
    size: Int[Array, ""]


def init(capacity: int, obs_dim: int, action_dim: int, with_frames: bool = False) -> Replay:
    """An empty buffer of zeros; `with_frames`, for numbers of frames beside the vectors."""

    def obs() -> Any:
        vector = jnp.zeros((capacity, obs_dim))
        return Sight(vector, jnp.zeros(capacity, jnp.int32)) if with_frames else vector

    data = Transition(
        obs(),
        jnp.zeros((capacity, action_dim)),
        jnp.zeros(capacity),
        jnp.zeros(capacity),
        obs(),
    )
    zero = jnp.zeros((), jnp.int32)
    return Replay(data, jnp.zeros(capacity, bool), zero, zero)


def add(replay: Replay, batch: Transition, last: Bool[Array, " N"] | None = None) -> Replay:
    """Append `batch` (leading axis N); the oldest are overwritten. Capacity must be a multiple of
    N. `last`: where an episode ended (everywhere if None)."""
    capacity, count = replay.last.shape[0], batch.reward.shape[0]
    last = jnp.ones(count, bool) if last is None else last
    data, ends = jax.tree.map(
        lambda ring, rows: jax.lax.dynamic_update_slice_in_dim(ring, rows, replay.position, 0),
        (replay.data, replay.last),
        (batch, last),
    )
    return Replay(
        data, ends, (replay.position + count) % capacity, jnp.minimum(replay.size + count, capacity)
    )


def sample(
    replay: Replay,
    key: PRNGKeyArray,
    shape: tuple[int, ...],
    n_step: int = 1,
    num_envs: int = 1,
    gamma: float | Float[Array, ""] = 1.0,
    pay: Callable[[Array, Array], Array] | None = None,
) -> Transition:
    """Uniform draws with replacement, `shape` of them; meaningless while the buffer is empty.

    Each is up to `n_step` steps of its environment as one: their rewards discounted by `gamma`, the
    last one's next_obs and, times gamma a further step, its discount. Fewer where the episode or
    what is stored ends. Rows must have been added `num_envs` at a time. `pay`, if given, maps
    obs and next_obs of rows to the rewards that count in the place of the stored ones.
    """

    def rows(at: Array) -> Transition:
        found = jax.tree.map(lambda ring: ring[at], replay.data)
        if pay is None:
            return found
        return found._replace(reward=pay(found.obs, found.next_obs))

    index = jax.random.randint(key, shape, 0, jnp.maximum(replay.size, 1))
    first = rows(index)
    if n_step == 1:
        return first
    capacity = replay.last.shape[0]
    newer = (replay.position - 1 - index) % capacity // num_envs  # steps of the same environment
    end, reward, factor, more = index, first.reward, jnp.ones(shape), jnp.ones(shape, bool)
    for step in range(1, n_step):
        more &= (newer >= step) & ~replay.last[end]
        end = jnp.where(more, (end + num_envs) % capacity, end)
        factor = jnp.where(more, gamma**step, factor)
        reward += jnp.where(more, factor * rows(end).reward, 0)
    return first._replace(
        reward=reward,
        discount=factor * replay.data.discount[end],
        next_obs=jax.tree.map(lambda ring: ring[end], replay.data.next_obs),
    )


def can_sample(replay: Replay, min_size: int) -> Array:
    """True once `min_size` transitions are stored."""
    return replay.size >= min_size
