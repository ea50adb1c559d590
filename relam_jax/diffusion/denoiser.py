"""The video model: the next frame's tokens given those of the last H frames, by discrete diffusion.

The noise is absorbing (Austin et al. 2021): a token is either right or a mask. The published
model's also replaces tokens by random ones (VQ-Diffusion, Gu et al. 2022); with masks alone the
bound on the likelihood is a mean cross-entropy, and the network needs no time, for the number of
masks tells it.

The cameras stand still, so each position of the token grid has one column: the embeddings of its
past tokens are added to that of its own, and attention runs over the P positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from relam_jax.transformer import Block


@dataclass(frozen=True)
class DenoiserConfig:
    """Size of the transformer."""

    width: int = 64
    """Numbers a position."""
    num_heads: int = 2
    """Attention heads."""
    num_layers: int = 2
    """Transformer blocks."""


class Denoiser(nn.Module):
    """Masked tokens and the past → logits of the true tokens."""

    config: DenoiserConfig
    num_codes: int

    @nn.compact
    def __call__(
        self, tokens: Int[Array, "B P"], past: Int[Array, "B H P"]
    ) -> Float[Array, "B P C"]:
        """`tokens` are `num_codes` where masked; `past`: oldest frame first."""
        c, positions = self.config, tokens.shape[1]
        embed = nn.initializers.normal(0.5)
        now = self.param("now", embed, (self.num_codes + 1, c.width))
        before = self.param("before", embed, (past.shape[1], self.num_codes + 1, c.width))
        x = now[tokens] + self.param("place", embed, (positions, c.width))
        for age in range(past.shape[1]):
            x = x + before[age][past[:, age]]
        for _ in range(c.num_layers):
            x, _ = Block(c.width, c.num_heads)(x)
        return nn.Dense(self.num_codes, kernel_init=nn.initializers.zeros)(nn.LayerNorm()(x))


def denoising_loss(
    apply: Callable[..., Any],
    params: Any,
    tokens: Int[Array, "B P"],
    past: Int[Array, "B H P"],
    num_codes: int,
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    """Bound on −log p(tokens | past), nats a token: with n masks, n uniform in 1 … P, in random
    places, the mean cross-entropy at the masks (Hoogeboom et al. 2022, equation 5)."""
    batch, positions = tokens.shape
    count_key, place_key = jax.random.split(key)
    count = jax.random.randint(count_key, (batch, 1), 1, positions + 1)
    noise = jax.random.uniform(place_key, tokens.shape)
    rank = (noise[:, :, None] > noise[:, None]).sum(-1)  # a sort takes XLA seconds to compile
    masked = rank < count
    logits = apply(params, jnp.where(masked, num_codes, tokens), past)
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], axis=-1)[..., 0]
    return -((masked * log_p).sum(-1) / count[:, 0]).mean()
