"""The anticipation transformer: from the keypoints of a keyframe to those of the next (method §3).

One token a point and stage: Fourier features of its position + entity, view and stage embeddings.
The pose summary of the first frame is added to each. Attention is full inside a stage and causal
across stages. Each token emits the point's displacement to the next keyframe and a logit, "this
point will stay in sight"; each stage emits one logit, "the next keyframe is the last". Nothing
depends on the order or the number of points.

Where a goal is shown, each token also emits a factor for each entity, with which the entity's place
in the first frame is added to the displacement: "to where the goal is" is a constant then, 1 for
the goal and −1 for the cube.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from relam_jax.transformer import Block


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
    shows_goal: bool = False
    """An entity is a goal, and displacements may contain the ways between entities."""
    fourier_bands: int = 3
    """Frequencies 2^0 … 2^(bands − 1) half-turns an image side."""


class Cache(NamedTuple):
    """What later stages see of the stages before them."""

    layers: tuple[tuple[Float[Array, "B M H D"], Float[Array, "B M H D"]], ...]
    """keys and values of their M tokens, a layer."""
    seen: Bool[Array, "B M"]


class Anticipated(NamedTuple):
    """What the model says of S stages."""

    displacement: Float[Array, "B S V E P 2"]
    """of each point to the next keyframe, image sides."""
    in_sight: Float[Array, "B S V E P"]
    """logit that the point is well seen in the whole clip (learned at the first stage only)."""
    stop: Float[Array, "B S"]
    """logit that the next keyframe is the last."""
    cache: Cache
    """for the stages after these."""


class AnticipationModel(nn.Module):
    """Points of S successive keyframes → displacement of each to its successor."""

    config: ModelConfig

    @nn.compact
    def __call__(
        self,
        points: Float[Array, "B S V E P 2"],
        visibility: Bool[Array, "B S V E P"],
        pose: Float[Array, "B F"],
        past: Cache | None = None,
    ) -> Anticipated:
        """Hidden points are ignored as context; `pose` is the first frame's `pose_summary`. With a
        `past` the S stages are those that follow it.

        Raises:
            ValueError: there are more views, entities or stages than the config has embeddings for.
        """
        c = self.config
        batch, stages, views, entities, slots = visibility.shape
        tokens = views * entities * slots  # a stage
        began = past.seen.shape[1] // tokens if past else 0
        if views > c.num_views or entities > c.num_entities or began + stages > c.max_stages:
            raise ValueError(
                f"the anticipation model knows {c.num_views} views, {c.num_entities} entities and "
                f"{c.max_stages} stages, but was given {views}, {entities} and {began + stages}"
            )
        frequencies = jnp.pi * 2.0 ** jnp.arange(c.fourier_bands)
        phase = ((points - 0.5)[..., None] * frequencies).reshape(*points.shape[:-1], -1)
        features = jnp.concatenate([points - 0.5, jnp.sin(phase), jnp.cos(phase)], axis=-1)
        stage = self.param("stage", nn.initializers.normal(0.5), (c.max_stages, c.width))
        view = self.param("view", nn.initializers.normal(0.5), (c.num_views, c.width))
        entity = self.param("entity", nn.initializers.normal(0.5), (c.num_entities, c.width))
        code = nn.Dense(c.width)(nn.gelu(nn.Dense(4 * c.width)(pose)))
        x = (
            nn.Dense(c.width)(features)
            + code[:, None, None, None, None]
            + stage[began : began + stages, None, None, None]
            + view[:views, None, None]
            + entity[:entities, None]
        )
        x = x.reshape(batch, -1, c.width)

        seen = visibility.reshape(batch, -1)
        seen = jnp.concatenate([past.seen, seen], axis=1) if past else seen
        order = jnp.repeat(jnp.arange(began + stages), tokens)
        mask = (order[began * tokens :, None] >= order) & seen[:, None, :]
        layers = []
        for layer in range(c.num_layers):
            x, kept = Block(c.width, c.num_heads)(
                x, mask[:, None], past.layers[layer] if past else ()
            )
            layers.append(kept)
        x = nn.LayerNorm()(x)
        numbers = 3 + c.num_entities * c.shows_goal
        out = nn.Dense(numbers, kernel_init=nn.initializers.zeros)(x)
        out = out.reshape(*points.shape[:-1], numbers)
        displacement = out[..., :2]
        if c.shows_goal:
            place = pose.reshape(batch, 1, views, entities, -1, 2)[..., 0, :]
            for e in range(entities):  # as one contraction XLA's CPU compiler dies of it
                displacement += out[..., 3 + e, None] * place[:, :, :, None, None, e]
        weight = visibility.reshape(batch, stages, -1, 1)
        pooled = (x.reshape(batch, stages, -1, c.width) * weight).sum(2) / jnp.maximum(
            weight.sum(2), 1
        )
        stop = nn.Dense(1)(nn.gelu(nn.Dense(c.width)(pooled)))[..., 0]
        return Anticipated(displacement, out[..., 2], stop, Cache(tuple(layers), seen))


def pose_summary(
    points: Float[Array, "B V E C 2"], visibility: Bool[Array, "B V E C"]
) -> Float[Array, "B F"]:
    """Where each entity stands in each view: mean and bounding box of its visible points."""
    seen = visibility[..., None]
    x = points - 0.5
    mean = jnp.where(seen, x, 0.0).sum(-2) / jnp.maximum(seen.sum(-2), 1)
    low, high = jnp.where(seen, x, 1.0).min(-2), jnp.where(seen, x, -1.0).max(-2)
    stats = jnp.where(seen.any(-2)[..., None, :], jnp.stack([mean, low, high], axis=-2), 0.0)
    return stats.reshape(len(points), -1)


class RollOut(NamedTuple):
    """A chain of S subgoals."""

    subgoals: Float[Array, "B S V E P 2"]
    """image sides."""
    in_sight: Float[Array, "B V E P"]
    """logit that the point will be well seen in the whole clip."""
    stop: Float[Array, "B S"]
    """logit that this subgoal is the last."""


def roll_out(
    model: AnticipationModel,
    params: dict,
    points: Float[Array, "B V E P 2"],
    visibility: Bool[Array, "B V E P"],
    num_stages: int,
    pose: Float[Array, "B F"] | None = None,
) -> RollOut:
    """Anticipate `num_stages` subgoals from the first frame alone, each fed the model's own
    previous one.

    `pose` is the `pose_summary` of more points than these, if there are more.
    """
    apply: Callable[..., Any] = model.apply
    pose = pose_summary(points, visibility) if pose is None else pose
    now, seen, in_sight, past = points[:, None], visibility[:, None], None, None
    subgoals, stops = [], []
    for _ in range(num_stages):
        out = apply(params, now, seen, pose, past)
        now, past = now + out.displacement, out.cache
        if in_sight is None:
            in_sight = out.in_sight
            seen = seen & (in_sight > 0)
        subgoals.append(now)
        stops.append(out.stop)
    assert in_sight is not None, "num_stages must be positive"
    return RollOut(jnp.concatenate(subgoals, 1), in_sight[:, 0], jnp.concatenate(stops, 1))
