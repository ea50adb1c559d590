"""Actor, critic and image encoder networks."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Real

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


class MLP(nn.Module):
    """Dense → (LayerNorm) → ReLU, for each hidden width."""

    widths: Sequence[int]
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B H"]:
        """Features of the last hidden layer."""
        for width in self.widths:
            x = nn.Dense(width)(x)
            x = nn.LayerNorm()(x) if self.layer_norm else x
            x = nn.relu(x)
        return x


class Actor(nn.Module):
    """Squashed Gaussian policy."""

    action_dim: int
    widths: Sequence[int]

    @nn.compact
    def __call__(
        self, obs: Float[Array, "*B D"]
    ) -> tuple[Float[Array, "*B A"], Float[Array, "*B A"]]:
        """Mean and log standard deviation before the tanh."""
        x = MLP(self.widths)(obs)
        mean, log_std = jnp.split(nn.Dense(2 * self.action_dim)(x), 2, axis=-1)
        log_std = LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (jnp.tanh(log_std) + 1)
        return mean, log_std


class Critic(nn.Module):
    """Q(obs, action)."""

    widths: Sequence[int]
    layer_norm: bool = True

    @nn.compact
    def __call__(
        self, obs: Float[Array, "*B D"], action: Float[Array, "*B A"]
    ) -> Float[Array, "*B"]:
        """The value, discounted reward units."""
        x = MLP(self.widths, self.layer_norm)(jnp.concatenate([obs, action], axis=-1))
        return nn.Dense(1)(x)[..., 0]


class Convolution(nn.Module):
    """3×3 convolution without padding, as a matrix product over patches: on a CPU its gradient
    takes a third of the time of XLA's own convolution."""

    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "*B H W C"]) -> Float[Array, "*B H2 W2 D"]:
        """The feature maps before the activation."""
        height, width = ((n - 3) // self.stride * self.stride + 1 for n in x.shape[-3:-1])
        parts = [
            x[..., i : i + height : self.stride, j : j + width : self.stride, :]
            for i in range(3)
            for j in range(3)
        ]
        dense = nn.Dense(self.channels, kernel_init=nn.initializers.orthogonal(2**0.5))
        return dense(jnp.concatenate(parts, axis=-1))


class Encoder(nn.Module):
    """Images to features: the encoder and the trunk of DrQ-v2 (Yarats et al. 2021)."""

    channels: int = 32
    features: int = 50

    @nn.compact
    def __call__(self, frames: Real[Array, "*B H W C"]) -> Float[Array, "*B F"]:
        """Features in (−1, 1), of brightness in 0 to 255."""
        x = frames.astype(jnp.float32) / 255 - 0.5
        for stride in (2, 1, 1, 1):
            x = nn.relu(Convolution(self.channels, stride)(x))
        x = x.reshape(*x.shape[:-3], -1)
        x = nn.Dense(self.features, kernel_init=nn.initializers.orthogonal())(x)
        return jnp.tanh(nn.LayerNorm()(x))


def sample_squashed(
    key: PRNGKeyArray, mean: Float[Array, "*B A"], log_std: Float[Array, "*B A"]
) -> tuple[Float[Array, "*B A"], Float[Array, "*B"]]:
    """A tanh-squashed Gaussian action in (−1, 1) and its log-probability (Haarnoja et al. 2018,
    appendix C)."""
    noise = jax.random.normal(key, mean.shape)
    raw = mean + jnp.exp(log_std) * noise
    log_prob = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2 * jnp.pi)
    # log(1 − tanh²) in the form that does not underflow
    log_prob -= 2 * (jnp.log(2.0) - raw - jax.nn.softplus(-2 * raw))
    return jnp.tanh(raw), log_prob.sum(-1)
