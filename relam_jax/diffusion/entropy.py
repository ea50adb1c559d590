"""What the video model says of frames: how unsure it is of what comes next, and how much what came
surprises it.

Diffusion Reward (Huang et al. 2024) pays minus the entropy of the future that the model imagines
after the last H frames.

A future is denoised in T steps. Step t unveils the positions R_t, a random part of those still
masked, each drawn from p(z_i | z_t, past), z_t being what was unveiled before. By the chain rule
the entropy of such futures is

    H(past) = E Σ_t Σ_{i ∈ R_t} H[p(z_i | z_t, past)],

estimated by the mean over m futures. Of the last draws their entropies are taken, not the log-
probabilities of what was drawn: the same expectation, less noise. (The published reward sums the
terms of a variational bound, for the same quantity.) Every state is judged with the same random
numbers, so the reward is a function of the frames alone and rewards differ by what is seen.

VIPER (Escontrela et al. 2023) pays the log-likelihood of the newest frame after the H before it,

    log p(z | past) = Σ_t Σ_{i ∈ R_t} log p(z_i | z_t, past):

the same steps, in which the true tokens are unveiled in the place of drawn ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int


def unveiled_per_step(positions: int, num_steps: int) -> list[int]:
    """How many positions each step unveils, as even as can be."""
    edges = np.linspace(0, positions, num_steps + 1).round().astype(int)
    return np.diff(edges).tolist()


def make_entropy(
    apply: Callable[..., Any], num_codes: int, num_steps: int, num_futures: int
) -> Callable[..., Array]:
    """(params, past (B, H, P)) → entropy of the next frame (B), nats a token; with that frame
    (B, P) as a third argument its surprise, −log p, instead."""

    def future(params: Any, past: Array, true: Array | None, key: Array) -> Float[Array, " B"]:
        batch, _, positions = past.shape
        order_key, draw_key = jax.random.split(key)
        order = jax.random.permutation(order_key, positions)
        edges = np.cumsum([0, *unveiled_per_step(positions, num_steps)])

        def step(carry: tuple[Array, Array], t: Array) -> tuple[tuple[Array, Array], None]:
            tokens, nats = carry
            logits = jax.nn.log_softmax(apply(params, tokens, past))
            now = (order >= jnp.asarray(edges)[t]) & (order < jnp.asarray(edges)[t + 1])
            if true is None:
                noise = jax.random.gumbel(jax.random.fold_in(draw_key, t), logits.shape[1:])
                unveiled = (logits + noise).argmax(-1).astype(tokens.dtype)
                log_p = (jnp.exp(logits) * logits).sum(-1)
            else:
                unveiled = true
                log_p = jnp.take_along_axis(logits, true[..., None], axis=-1)[..., 0]
            nats -= (log_p * now).sum(-1)
            return (jnp.where(now, unveiled, tokens), nats), None

        blank = jnp.full((batch, positions), num_codes, past.dtype)
        start = (blank, jnp.zeros(batch))
        (_, nats), _ = jax.lax.scan(step, start, jnp.arange(num_steps))
        return nats / positions

    def mean_nats(
        params: Any, past: Int[Array, "B H P"], true: Int[Array, "B P"] | None = None
    ) -> Float[Array, " B"]:
        keys = jax.random.split(jax.random.key(0), num_futures)
        return jax.lax.map(lambda key: future(params, past, true, key), keys).mean(0)

    return mean_nats
