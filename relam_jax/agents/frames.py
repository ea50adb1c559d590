"""Observations with camera frames, and the film that keeps each frame once.

A film is a ring of frames (uint8) on the device; rows of the replay hold numbers of its frames
instead of copies. What an action led to is what the next one starts from, so that each frame is
stored once, and the last one of an episode beside the first one of the next.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray, UInt8

SHIFT = 4
"""Pixels that an image is moved at most, to each side (Yarats et al. 2021)."""


class Sight(NamedTuple):
    """An observation with what the cameras show; leading axes are free."""

    vector: Any
    """float32 (…, D)."""
    frames: Any
    """uint8 (…, H, W, 3 V), the views stacked as channels; in a replay int32 (…), numbers of frames
    of a film."""


class Film(NamedTuple):
    """A ring of frames for each of N environments, one after the other in an array."""

    frames: UInt8[Array, "R H W C"]
    now: Int[Array, " N"]
    """number of the frame that each environment shows."""
    age: Int[Array, " N"]
    """steps since each environment began its episode."""


def stacked(frames: UInt8[np.ndarray, "N V H W 3"]) -> UInt8[np.ndarray, "N H W C"]:
    """Views as channels."""
    moved = np.moveaxis(frames, 1, 3)
    return moved.reshape(*moved.shape[:3], -1)


def film_length(steps: int, episode_steps: int) -> int:
    """Frames of an environment's last `steps` steps, with time limits at `episode_steps`: one each,
    one that they began with, and for each limit one that the next episode began with."""
    return steps + 1 + -(-steps // episode_steps)


def init(length: int, first: UInt8[np.ndarray, "N H W C"]) -> Film:
    """A film with `length` frames an environment, the first of them `first`."""
    now = length * jnp.arange(len(first), dtype=jnp.int32)
    blank = jnp.zeros((length * len(first), *first.shape[1:]), jnp.uint8)
    return Film(blank.at[now].set(first), now, jnp.zeros_like(now))


@partial(jax.jit, donate_argnums=0, static_argnames="episode_steps")
def record(
    film: Film,
    obs: Sight,
    final_obs: Sight,
    next_obs: Sight,
    ended: Bool[Array, " N"],
    episode_steps: int,
) -> tuple[Film, Sight, Sight]:
    """Put what a step from `obs`, whose frames are `now`, led to; returns `obs` and `final_obs`
    with numbers for frames.

    `next_obs` is what the next step starts from, another than `final_obs` where the episode
    `ended`. Of an episode that ended before its time limit, as the simulation became unstable, the
    last frame is not kept: the one before stands for it.
    """
    length = len(film.frames) // len(film.now)
    first, early = film.now // length * length, ended & (film.age + 1 < episode_steps)
    after = first + (film.now + 1) % length
    now = jnp.where(ended & ~early, first + (film.now + 2) % length, after)
    frames = film.frames.at[after].set(final_obs.frames).at[now].set(next_obs.frames)
    shown = jnp.where(early, film.now, after)
    return (
        Film(frames, now, jnp.where(ended, 0, film.age + 1)),
        obs._replace(frames=film.now),
        final_obs._replace(frames=shown),
    )


def random_shift(
    key: PRNGKeyArray, frames: UInt8[Array, "B H W C"], most: int = SHIFT
) -> UInt8[Array, "B H W C"]:
    """Each image moved by up to `most` pixels in either direction, its edge repeated where nothing
    came from; all views of an image alike. The augmentation of DrQ-v2, in whole pixels."""
    height, width = frames.shape[1:3]
    move = jax.random.randint(key, (len(frames), 2), -most, most + 1)
    rows = jnp.clip(jnp.arange(height) + move[:, :1], 0, height - 1)
    columns = jnp.clip(jnp.arange(width) + move[:, 1:], 0, width - 1)
    return frames[jnp.arange(len(frames))[:, None, None], rows[:, :, None], columns[:, None, :]]
