"""The anticipation transformer: from the keypoints of a keyframe to those of the next (method §3).

One token a point and stage: Fourier features of its position + entity, view and stage embeddings.
Attention is full inside a stage and causal across stages. Each token emits the point's displacement
to the next
keyframe; each stage emits one logit, "the next keyframe is the last". Nothing depends on the order
or the
number of points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@dataclass(frozen=True)
class ModelConfig:
    """Size of the transformer and of the task set it can hold."""

    num_entities: int = 2
    """Rows of the entity embedding."""
    num_views: int = 2
    """Rows of the view embedding."""
    max_stages: int = 8
    """S: most subgoals of a plan."""
    width: int = 64
    """Token size."""
    num_heads: int = 2
    """Attention heads."""
    num_layers: int = 3
    """Transformer blocks."""
    fourier_bands: int = 3
    """Frequencies 2^0 … 2^(bands − 1) half-turns an image side."""


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "B N D"], mask: Bool[Array, "B 1 N N"]
    ) -> Float[Array, "B N D"]:
        """`mask[b, 0, i, j]`: token i may look at token j."""
        h = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=self.config.num_heads)(h, mask=mask)
        h = nn.Dense(4 * self.config.width)(nn.LayerNorm()(x))
        return x + nn.Dense(self.config.width)(nn.gelu(h))


class AnticipationModel(nn.Module):
    """Points of S successive keyframes → displacement of each to its successor, and the stop
    logits."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self, points: Float[Array, "B S V E P 2"], visibility: Bool[Array, "B S V E P"]
    ) -> tuple[Float[Array, "B S V E P 2"], Float[Array, "B S"]]:
        """Returns (displacement in image sides, stop logit); hidden points are ignored as context.

        Raises:
            ValueError: there are more views, entities or stages than the config has embeddings for.
        """
        c = self.config
        batch, stages, views, entities, slots = visibility.shape
        if views > c.num_views or entities > c.num_entities or stages > c.max_stages:
            raise ValueError(
                f"the anticipation model knows {c.num_views} views, {c.num_entities} entities and "
                f"{c.max_stages} stages, but was given {views}, {entities} and {stages}"
            )
        frequencies = jnp.pi * 2.0 ** jnp.arange(c.fourier_bands)
        phase = ((points - 0.5)[..., None] * frequencies).reshape(*points.shape[:-1], -1)
        features = jnp.concatenate([points - 0.5, jnp.sin(phase), jnp.cos(phase)], axis=-1)
        stage = self.param("stage", nn.initializers.normal(0.5), (c.max_stages, c.width))
        view = self.param("view", nn.initializers.normal(0.5), (c.num_views, c.width))
        entity = self.param("entity", nn.initializers.normal(0.5), (c.num_entities, c.width))
        x = nn.Dense(c.width)(features)
        x = (
            x
            + stage[:stages, None, None, None]
            + view[:views, None, None]
            + entity[:entities, None]
        )
        x = x.reshape(batch, -1, c.width)

        seen = visibility.reshape(batch, -1)
        order = jnp.repeat(jnp.arange(stages), views * entities * slots)
        mask = (order[:, None] >= order[None]) & seen[:, None, :]
        for _ in range(c.num_layers):
            x = Block(c)(x, mask[:, None])
        x = nn.LayerNorm()(x)
        displacement = nn.Dense(2, kernel_init=nn.initializers.zeros)(x)
        weight = visibility.reshape(batch, stages, -1, 1)
        pooled = (x.reshape(batch, stages, -1, c.width) * weight).sum(2) / jnp.maximum(
            weight.sum(2), 1
        )
        stop = nn.Dense(1)(nn.gelu(nn.Dense(c.width)(pooled)))[..., 0]
        return displacement.reshape(points.shape), stop


def roll_out(
    model: AnticipationModel,
    params: dict,
    points: Float[Array, "B V E P 2"],
    visibility: Bool[Array, "B V E P"],
    num_stages: int,
) -> tuple[Float[Array, "B S V E P 2"], Float[Array, "B S"]]:
    """Anticipate `num_stages` subgoals from the first frame alone, each fed the model's own
    previous one.

    Returns (subgoals in image sides, stop logits).
    """
    apply: Callable[..., Any] = model.apply
    shape = (points.shape[0], num_stages + 1, *points.shape[1:])
    track = jnp.zeros(shape, points.dtype).at[:, 0].set(points)
    seen = jnp.repeat(visibility[:, None], num_stages, axis=1)

    def stage(s: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        track, stop = carry
        displacement, logits = apply(params, track[:, :-1], seen)
        track = track.at[:, s + 1].set(track[:, s] + displacement[:, s])
        return track, stop.at[:, s].set(logits[:, s])

    stop = jnp.zeros((points.shape[0], num_stages))
    track, stop = jax.lax.fori_loop(0, num_stages, stage, (track, stop))
    return track[:, 1:], stop
