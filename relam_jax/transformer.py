"""The block that the anticipation transformer and the video model of `--reward diffusion` are made
of."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    width: int
    num_heads: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B N D"],
        mask: Bool[Array, "B 1 N M"] | None = None,
        past: tuple[Array, ...] = (),
    ) -> tuple[Float[Array, "B N D"], tuple[Array, Array]]:
        """The same shape, and keys and values of all M tokens.

        `mask[b, 0, i, j]`: token i may look at token j, those of the `past` (earlier keys and
        values) coming first; each at all if None.
        """
        h = nn.LayerNorm()(x)
        heads = (self.num_heads, self.width // self.num_heads)
        query, key, value = (nn.DenseGeneral(heads, name=n)(h) for n in ("query", "key", "value"))
        if past:
            key, value = (
                jnp.concatenate(kv, axis=1) for kv in zip(past, (key, value), strict=True)
            )
        h = jax.nn.dot_product_attention(query, key, value, mask=mask)
        x = x + nn.DenseGeneral(self.width, axis=(-2, -1), name="out")(h)
        h = nn.Dense(4 * self.width)(nn.LayerNorm()(x))
        return x + nn.Dense(self.width)(nn.gelu(h)), (key, value)
