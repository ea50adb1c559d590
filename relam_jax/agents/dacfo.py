"""Discriminator actor-critic from observations: the reward of the baseline `--reward dacfo`.

A discriminator tells pairs of consecutive observations of the demonstrations from those of the
policy, out of its replay; the actor-critic is paid the discriminator's logit, log D − log(1 − D)
(discriminator-actor-critic, Kostrikov et al. 2019, on pairs of observations in place of observation
and action, as Torabi et al. 2019; gradient penalty as Gulrajani et al. 2017). As there, the reward
is computed when a batch is drawn, not when it is stored: a stored one would be of a discriminator
that has long changed.

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
from jaxtyping import Array, Float, PRNGKeyArray

from relam_jax.agents.networks import MLP

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
    sides of change."""


class Discriminator(NamedTuple):
    """All that learning changes."""

    params: Any
    opt: optax.OptState
    key: PRNGKeyArray


class DACfO(NamedTuple):
    """The pure functions, for one seed."""

    init: Callable[[PRNGKeyArray], Discriminator]
    reward: Callable[[Discriminator, Array, Array], Array]
    """(state, obs (…, D), next_obs (…, D)) → logit (…)."""
    update: Callable[[Discriminator, Array, Array], tuple[Discriminator, dict[str, Array]]]
    """one scan of grad_steps over the policy's obs and next_obs (U, B, D); returns mean metrics."""


class Logit(nn.Module):
    """The discriminator's logit: positive where a pair looks like a demonstration's."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, pair: Float[Array, "*B D"]) -> Float[Array, "*B"]:
        """Of the outcome of `as_input`."""
        return nn.Dense(1)(MLP(self.widths)(pair))[..., 0]


def as_input(now: Float[Array, "*B F"], then: Float[Array, "*B F"]) -> Float[Array, "*B D"]:
    """Where the entities are, in 0.1, and how they move, in 0.01 image sides: both about 1. (In
    the scale of places alone a step would be lost.)"""
    return jnp.concatenate([10 * (now - 0.5), 100 * (then - now)], axis=-1)


def make_dacfo(config: DACfOConfig, demonstrations: Float[np.ndarray, "P 2 F"]) -> DACfO:
    """Close over everything static. `demonstrations`: pairs of what ends an observation (see
    training/imitation.py), image sides."""
    num_features = demonstrations.shape[-1]
    pairs = jnp.asarray(demonstrations, jnp.float32)
    shown = as_input(pairs[:, 0], pairs[:, 1])
    network, adam = Logit(config.widths), optax.adam(config.learning_rate)
    logit: Callable[..., Any] = network.apply

    def seen(obs: Array, next_obs: Array) -> Array:
        return as_input(obs[..., -num_features:], next_obs[..., -num_features:])

    def init(key: PRNGKeyArray) -> Discriminator:
        key, now = jax.random.split(key)
        params = network.init(now, shown[:1])
        return Discriminator(params, adam.init(params), key)

    def reward(state: Discriminator, obs: Array, next_obs: Array) -> Array:
        return logit(state.params, seen(obs, next_obs))

    def loss(params: Any, real: Array, fake: Array, between: Array) -> tuple[Array, tuple]:
        on_real, on_fake = logit(params, real), logit(params, fake)
        slope = jax.vmap(jax.grad(logit, argnums=1), in_axes=(None, 0))(params, between)
        length = jnp.sqrt((slope**2).sum(-1) + 1e-12)  # the gradient of ‖0‖ is NaN
        entropy = jax.nn.softplus(-on_real).mean() + jax.nn.softplus(on_fake).mean()
        penalty = ((length - 1) ** 2).mean()
        return entropy + config.gradient_penalty * penalty, (on_real.mean(), on_fake.mean())

    def grad_step(
        state: Discriminator, batch: tuple[Array, PRNGKeyArray]
    ) -> tuple[Discriminator, dict[str, Array]]:
        fake, key = batch
        choice_key, share_key = jax.random.split(key)
        real = shown[jax.random.randint(choice_key, (len(fake),), 0, len(shown))]
        share = jax.random.uniform(share_key, (len(fake), 1))
        between = share * real + (1 - share) * fake
        (value, logits), grads = jax.value_and_grad(loss, has_aux=True)(
            state.params, real, fake, between
        )
        step, opt = adam.update(grads, state.opt)
        params = optax.apply_updates(state.params, step)
        info: dict[str, Array] = dict(zip(METRICS, (value, *logits), strict=True))
        return state._replace(params=params, opt=opt), info

    def update(
        state: Discriminator, obs: Array, next_obs: Array
    ) -> tuple[Discriminator, dict[str, Array]]:
        key, scan_key = jax.random.split(state.key)
        keys = jax.random.split(scan_key, len(obs))
        state, info = jax.lax.scan(grad_step, state._replace(key=key), (seen(obs, next_obs), keys))
        return state, jax.tree.map(jnp.mean, info)

    return DACfO(init, reward, update)
