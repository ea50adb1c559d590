"""Discriminator actor-critic from observations: the reward of the baseline `--reward dacfo`.

A discriminator tells pairs of consecutive observations of the demonstrations from those of the
policy, out of its replay; the actor-critic is paid the discriminator's logit, log D − log(1 − D)
(discriminator-actor-critic, Kostrikov et al. 2019, on pairs of observations in place of observation
and action, as Torabi et al. 2019; gradient penalty as Gulrajani et al. 2017). As there, the reward
is computed when a batch is drawn, not when it is stored: a stored one would be of a discriminator
that has long changed.

Observations are vectors that end with where the entities are, or frames; then the discriminator has
an encoder of its own and looks at both images of a pair at once, moved at random alike, and rows of
the replay number the frames of a film.

All functions work on one seed and are mapped over a leading axis by the training loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from relam_jax.agents.frames import random_shift
from relam_jax.agents.networks import MLP, Encoder

METRICS = ("discriminator_loss", "logit_demonstrations", "logit_policy")


@dataclass(frozen=True)
class DACfOConfig:
    """The discriminator of `--reward dacfo`."""

    widths: tuple[int, ...] = (128, 128)
    """Hidden layers."""
    batch_size: int = 256
    """Pairs of the demonstrations, and as many of the policy, a grad_step; it takes as many
    grad_steps as the actor-critic."""
    learning_rate: float = 3e-4
    """Adam."""
    gradient_penalty: float = 10.0
    """Weight of (‖∇ logit‖ − 1)² between the two, per 0.1 image sides of position and 0.01 image
    sides of change, or per whole brightness of a frame's pixels."""


class Discriminator(NamedTuple):
    """All that learning changes."""

    params: Any
    opt: optax.OptState
    key: PRNGKeyArray


class DACfO(NamedTuple):
    """The pure functions, for one seed."""

    init: Callable[[PRNGKeyArray], Discriminator]
    reward: Callable[..., Array]
    """(state, obs (U, B, D), next_obs (U, B, D)) → logit (U, B). With frames the observations
    number those of a fourth argument, (R, H, W, C)."""
    update: Callable[..., tuple[Discriminator, dict[str, Array]]]
    """one scan of grad_steps over the policy's (state, obs, next_obs); returns mean metrics. With
    frames those of the film, and of the demonstrations, are a fourth and a fifth argument."""


class Logit(nn.Module):
    """The discriminator's logit: positive where a pair looks like a demonstration's."""

    widths: tuple[int, ...]
    of_frames: bool = False

    @nn.compact
    def __call__(self, pair: Float[Array, "..."]) -> Float[Array, "..."]:
        """(…) of the outcome of `as_input` (…, D) or `as_image` (…, H, W, D)."""
        features = Encoder()(255 * pair) if self.of_frames else pair
        return nn.Dense(1)(MLP(self.widths)(features))[..., 0]


def as_input(now: Float[Array, "*B F"], then: Float[Array, "*B F"]) -> Float[Array, "*B D"]:
    """Where the entities are, in 0.1, and how they move, in 0.01 image sides: both about 1. (In
    the scale of places alone a step would be lost.)"""
    return jnp.concatenate([10 * (now - 0.5), 100 * (then - now)], axis=-1)


def as_image(
    frames: UInt8[Array, "R H W C"],
    now: Int[Array, " B"],
    then: Int[Array, " B"],
    key: PRNGKeyArray | None = None,
) -> Float[Array, "B H W D"]:
    """The frames of these numbers, brightness in [0, 1], and how they change, in 1/30, as channels
    of one image, moved at random with a `key`. (Changes are small, and few pixels change: beside
    whole images as they are, a clip backwards is paid as much.)"""
    pair = jnp.concatenate([frames[now], frames[then]], axis=-1)
    pair = pair if key is None else random_shift(key, pair)
    before, after = jnp.split(pair.astype(jnp.float32) / 255, 2, axis=-1)
    return jnp.concatenate([before, 30 * (after - before)], axis=-1)


def make_dacfo(
    config: DACfOConfig,
    demonstrations: Float[np.ndarray, "P 2 F"] | Int[np.ndarray, "P 2"],
    frame_shape: tuple[int, int, int] | None = None,
) -> DACfO:
    """Close over everything static. `demonstrations`: pairs of what ends an observation (see
    training/imitation.py), image sides; or, with the (H, W, C) of frames, of their numbers."""
    pairs = jnp.asarray(demonstrations)
    network = Logit(config.widths, frame_shape is not None)
    adam = optax.adam(config.learning_rate)
    logit: Callable[..., Any] = network.apply

    def seen(obs: Any) -> Array:
        return obs[..., -pairs.shape[-1] :] if frame_shape is None else obs.frames

    def shown(now: Array, then: Array, frames: Array | None, key: Any = None) -> Array:
        return as_input(now, then) if frames is None else as_image(frames, now, then, key)

    def init(key: PRNGKeyArray) -> Discriminator:
        key, now = jax.random.split(key)
        first = pairs[:1, 0], pairs[:1, 1]
        blank = None if frame_shape is None else jnp.zeros((1, *frame_shape), jnp.uint8)
        params = network.init(now, shown(*first, blank))
        return Discriminator(params, adam.init(params), key)

    def reward(state: Discriminator, obs: Any, next_obs: Any, film: Array | None = None) -> Array:
        def one(rows: tuple[Array, Array]) -> Array:
            return logit(state.params, shown(rows[0], rows[1], film))

        rows = seen(obs), seen(next_obs)
        return one(rows) if film is None else jax.lax.map(one, rows)  # all at once takes gigabytes

    def loss(params: Any, real: Array, fake: Array, between: Array) -> tuple[Array, tuple]:
        on_real, on_fake = logit(params, real), logit(params, fake)
        slope = jax.vmap(jax.grad(logit, argnums=1), in_axes=(None, 0))(params, between)
        squared = (slope.reshape(len(slope), -1) ** 2).sum(-1)
        length = jnp.sqrt(squared + 1e-12)  # the gradient of ‖0‖ is NaN
        entropy = jax.nn.softplus(-on_real).mean() + jax.nn.softplus(on_fake).mean()
        penalty = ((length - 1) ** 2).mean()
        return entropy + config.gradient_penalty * penalty, (on_real.mean(), on_fake.mean())

    def update(
        state: Discriminator,
        obs: Any,
        next_obs: Any,
        film: Array | None = None,
        demonstrated: Array | None = None,
    ) -> tuple[Discriminator, dict[str, Array]]:
        def grad_step(state: Discriminator, batch: Any) -> tuple[Discriminator, dict[str, Array]]:
            now, then, key = batch
            choice_key, share_key = jax.random.split(key)
            real = pairs[jax.random.randint(choice_key, (len(now),), 0, len(pairs))]
            real = shown(real[:, 0], real[:, 1], demonstrated, jax.random.fold_in(key, 1))
            fake = shown(now, then, film, jax.random.fold_in(key, 2))
            share = jax.random.uniform(share_key, (len(fake), *[1] * (fake.ndim - 1)))
            between = share * real + (1 - share) * fake
            (value, logits), grads = jax.value_and_grad(loss, has_aux=True)(
                state.params, real, fake, between
            )
            step, opt = adam.update(grads, state.opt)
            params = optax.apply_updates(state.params, step)
            info: dict[str, Array] = dict(zip(METRICS, (value, *logits), strict=True))
            return state._replace(params=params, opt=opt), info

        key, scan_key = jax.random.split(state.key)
        rows = seen(obs), seen(next_obs)
        keys = jax.random.split(scan_key, len(rows[0]))
        state, info = jax.lax.scan(grad_step, state._replace(key=key), (*rows, keys))
        return state, jax.tree.map(jnp.mean, info)

    return DACfO(init, reward, update)
