"""Frames as tokens: a vector-quantised autoencoder (van den Oord et al. 2017).

The published model's is a VQ-GAN. Here a frame is cut into patches, one a token, which an MLP codes
and, in the published size, residual 3 × 3 convolutions mix before: no adversarial and no perceptual
loss, which need a second network, and weights trained on other images. The codebook is a moving
average of what is assigned to it; a code that is hardly used is put where some patch of the batch
lies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

DECAY = 0.99
"""of the moving averages, a grad_step."""
HARDLY_USED = 0.1
"""patches a batch, on that average, below which a code is moved."""
COMMITMENT = 0.25
"""weight of the encoder's distance to its code."""


@dataclass(frozen=True)
class VQConfig:
    """Size of the autoencoder."""

    grid: int = 8
    """Tokens a side of a frame."""
    num_codes: int = 128
    """Codebook entries."""
    code_dim: int = 16
    """Numbers a code."""
    channels: int = 128
    """Hidden numbers a patch."""
    num_blocks: int = 0
    """Residual blocks of the encoder, and of the decoder, that mix neighbouring patches; with none
    each patch is coded by itself, which is fast on a CPU, and a token tells of its patch alone."""


class Residual(nn.Module):
    """Two 3 × 3 convolutions beside the identity."""

    channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "B G G C"]) -> Float[Array, "B G G C"]:
        """Same shape."""
        h = nn.Conv(self.channels, (3, 3))(nn.gelu(nn.LayerNorm()(x)))
        return x + nn.Conv(self.channels, (3, 3))(nn.gelu(nn.LayerNorm()(h)))


class Encoder(nn.Module):
    """Frames → a vector a patch."""

    config: VQConfig

    @nn.compact
    def __call__(self, frames: Float[Array, "B H H 3"]) -> Float[Array, "B G G D"]:
        """Of frames in (−1, 1)."""
        c, batch = self.config, len(frames)
        patch = frames.shape[1] // c.grid
        x = frames.reshape(batch, c.grid, patch, c.grid, patch, 3).transpose(0, 1, 3, 2, 4, 5)
        x = nn.Dense(c.channels)(x.reshape(batch, c.grid, c.grid, -1))
        x = x + self.param("place", nn.initializers.normal(0.1), (c.grid, c.grid, c.channels))
        for _ in range(c.num_blocks):
            x = Residual(c.channels)(x)
        x = nn.Dense(c.channels)(nn.gelu(nn.LayerNorm()(x)))
        return nn.Dense(c.code_dim)(nn.gelu(x))


class Decoder(nn.Module):
    """Codes → frames."""

    config: VQConfig
    frame_size: int

    @nn.compact
    def __call__(self, codes: Float[Array, "B G G D"]) -> Float[Array, "B H H 3"]:
        """In about (−1, 1)."""
        c, size, batch = self.config, self.frame_size, len(codes)
        patch = size // c.grid
        x = nn.Dense(c.channels)(codes)
        x = x + self.param("place", nn.initializers.normal(0.1), (c.grid, c.grid, c.channels))
        for _ in range(c.num_blocks):
            x = Residual(c.channels)(x)
        x = nn.gelu(nn.Dense(c.channels)(nn.gelu(nn.LayerNorm()(x))))
        x = nn.Dense(patch * patch * 3)(x).reshape(batch, c.grid, c.grid, patch, patch, 3)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, size, size, 3)


class Codec(NamedTuple):
    """A trained autoencoder."""

    params: Any
    """of encoder and decoder."""
    codebook: Float[Array, "C D"]
    count: Float[Array, " C"]
    """patches a batch that a code stands for, moving average."""
    total: Float[Array, "C D"]
    """sum of their vectors, the same average."""


class VQVAE(NamedTuple):
    """The pure functions, and their size."""

    config: VQConfig
    init: Callable[[PRNGKeyArray, Array], Codec]
    """(key, some frames (B, H, H, 3) uint8) → a codec with those frames' patches as codes."""
    loss: Callable[[Any, Codec, Array], tuple[Array, Array]]
    """(params, codec, frames) → loss, encoder's vectors (B·P, D)."""
    encode: Callable[[Codec, Array], Array]
    """frames (B, H, H, 3) uint8 → tokens (B, P) int32."""
    decode: Callable[[Codec, Array], Array]
    """tokens (B, P) → frames (B, H, H, 3) in (0, 255)."""


def scaled(frames: UInt8[Array, "*B"]) -> Float[Array, "*B"]:
    """0 … 255 → −1 … 1."""
    return frames.astype(jnp.float32) / 127.5 - 1


def nearest(codebook: Float[Array, "C D"], vectors: Float[Array, "*B D"]) -> Int[Array, "*B"]:
    """Index of the nearest code."""
    return ((codebook**2).sum(-1) - 2 * vectors @ codebook.T).argmin(-1).astype(jnp.int32)


def make_vqvae(config: VQConfig, frame_size: int) -> VQVAE:
    """Close over the sizes. ValueError if the grid does not divide the frame."""
    if frame_size % config.grid:
        raise ValueError(f"frames of {frame_size} pixels have no {config.grid} patches a side")
    encoder, decoder = Encoder(config), Decoder(config, frame_size)
    to_vectors: Callable[..., Any] = encoder.apply
    to_frames: Callable[..., Any] = decoder.apply

    def init(key: PRNGKeyArray, frames: Array) -> Codec:
        keys = jax.random.split(key, 3)
        codes = jnp.zeros((1, config.grid, config.grid, config.code_dim))
        params = {
            "encoder": encoder.init(keys[0], scaled(frames[:1])),
            "decoder": decoder.init(keys[1], codes),
        }
        vectors = to_vectors(params["encoder"], scaled(frames)).reshape(-1, config.code_dim)
        codebook = jax.random.choice(keys[2], vectors, (config.num_codes,))
        return Codec(params, codebook, jnp.ones(config.num_codes), codebook)

    def loss(params: Any, codec: Codec, frames: Array) -> tuple[Array, Array]:
        image = scaled(frames)
        vectors = to_vectors(params["encoder"], image)
        codes = codec.codebook[nearest(codec.codebook, vectors)]
        straight = vectors + jax.lax.stop_gradient(codes - vectors)
        error = ((to_frames(params["decoder"], straight) - image) ** 2).mean()
        apart = ((vectors - codes) ** 2).mean()
        return error + COMMITMENT * apart, jax.lax.stop_gradient(vectors)

    def encode(codec: Codec, frames: Array) -> Array:
        vectors = to_vectors(codec.params["encoder"], scaled(frames))
        return nearest(codec.codebook, vectors).reshape(len(frames), -1)

    def decode(codec: Codec, tokens: Array) -> Array:
        codes = codec.codebook[tokens.reshape(-1, config.grid, config.grid)]
        return 127.5 * (to_frames(codec.params["decoder"], codes) + 1)

    return VQVAE(config, init, loss, encode, decode)


def moved_codebook(
    codec: Codec, vectors: Float[Array, "*B D"], key: PRNGKeyArray
) -> tuple[Float[Array, "C D"], Float[Array, " C"], Float[Array, "C D"]]:
    """Codebook, count and total after a batch of the encoder's vectors."""
    vectors = vectors.reshape(-1, vectors.shape[-1])
    chosen = jax.nn.one_hot(nearest(codec.codebook, vectors), len(codec.codebook))
    count = DECAY * codec.count + (1 - DECAY) * chosen.sum(0)
    total = DECAY * codec.total + (1 - DECAY) * chosen.T @ vectors
    dead = count < HARDLY_USED
    fresh = jax.random.choice(key, vectors, (len(count),))
    count = jnp.where(dead, 1.0, count)
    total = jnp.where(dead[:, None], fresh, total)
    return total / count[:, None], count, total


def vq_step(
    vqvae: VQVAE, adam: optax.GradientTransformation
) -> Callable[[tuple[Codec, Any], tuple[Array, PRNGKeyArray]], tuple[tuple[Codec, Any], Array]]:
    """One grad_step, to be scanned: (codec, opt), (frames, key) → the same, loss."""

    def step(
        carry: tuple[Codec, Any], batch: tuple[Array, PRNGKeyArray]
    ) -> tuple[tuple[Codec, Any], Array]:
        (codec, opt), (frames, key) = carry, batch
        graded = jax.value_and_grad(vqvae.loss, has_aux=True)
        (value, vectors), grads = graded(codec.params, codec, frames)
        change, opt = adam.update(grads, opt, codec.params)
        params = optax.apply_updates(codec.params, change)
        return (Codec(params, *moved_codebook(codec, vectors, key)), opt), value

    return step
