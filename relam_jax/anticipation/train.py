"""Fit the anticipation model to a task's clips: Huber on displacements, cross-entropy on the stop
logit (method §3)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from relam_jax.anticipation.dataset import PlanExamples
from relam_jax.anticipation.model import AnticipationModel, ModelConfig, pose_summary, roll_out
from relam_jax.fitting import Log, Unfinished, descend

NAME = "anticipation"
"""Of the fit, in its progress bar and its unfinished file."""


@dataclass(frozen=True)
class FitConfig:
    """How the anticipation model is trained."""

    num_steps: int = 2500
    """Gradient steps at most."""
    batch_size: int = 8
    """Clips a step, each with a fresh random subset of its points. (16 take twice the time and are
    no better: 0.0043 against 0.0044 image sides on door_open, 0.0009 against 0.0011 on
    button_press.)"""
    num_points: int = 3
    """Points an entity and view in a training subset, of those that stay in sight."""
    num_sight_points: int = 2
    """Further ones of any kind, from which the model learns what stays in sight."""
    learning_rate: float = 2e-3
    """Peak of a cosine schedule with 5 % warm-up."""
    weight_decay: float = 1e-4
    """AdamW."""
    huber_delta: float = 0.02
    """Image sides at which the loss turns from quadratic to linear."""
    point_noise: float = 0.002
    """Standard deviation of each point's jitter in the first frame, image sides."""
    exact_moments: float = 0.4
    """Share of the gradient steps in which a keyframe's moment is not yet left open."""
    validation: float = 0.15
    """Share of the clips that early stopping looks at."""
    test: float = 0.15
    """Share of the clips that only the reported error looks at."""
    eval_every: int = 250
    """Gradient steps between looks at the validation clips."""
    patience: int = 5
    """Stop after so many looks without a better free-running error."""
    num_clips: int = 0
    """Clips to train on at most, of those that validation and test leave (0: all)."""
    seed: int = 0
    """Of the split, the initial weights and the batches."""


class Split(NamedTuple):
    """Clip indices."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    @property
    def kind(self) -> Literal["held-out", "training"]:
        """What the test clips are: of fewer than 5 none can be held out."""
        return "training" if np.isin(self.test, self.train).any() else "held-out"


def split_clips(num_clips: int, config: FitConfig) -> Split:
    """A random split by clip; with fewer than 5 clips validation and test are the training clips
    themselves."""
    order = np.random.default_rng(config.seed).permutation(num_clips)
    if num_clips < 5:
        return Split(order, order, order)
    val = max(1, round(config.validation * num_clips))
    test = max(1, round(config.test * num_clips))
    train = order[val + test :]
    return Split(train[: config.num_clips or len(train)], order[:val], order[val : val + test])


class PlanError(NamedTuple):
    """Median over points and clips of the distance to the true keyframe (at its `nearest_moment`),
    image sides, a stage."""

    free_running: Float[np.ndarray, " S"]
    teacher_forced: Float[np.ndarray, " S"]
    by_group: Float[np.ndarray, "S V E"]
    """free-running, the mean over the points of an entity and view (what the reward compares),
    median over clips."""
    stop_accuracy: float
    """share of the stages whose stop logit has the right sign."""


def which_count(
    visibility: Bool[Array, "B S1 V E P"], num_stages: Int[Array, " B"]
) -> Bool[Array, "B S V E P"]:
    """The points of each real stage that are seen in the first frame and in that keyframe."""
    real_stage = jnp.arange(visibility.shape[1] - 1) < num_stages[:, None]
    return visibility[:, :1] & visibility[:, 1:] & real_stage[..., None, None, None]


def nearest_moment(
    subgoals: Float[Array, "B S V E P 2"],
    around: Float[Array, "B S W V E P 2"],
    weight: Bool[Array, "B S V E P"],
    free: Bool[Array, ""] | bool = True,
) -> Float[Array, "B S V E P 2"]:
    """The true points at that one of the W moments at which they are nearest to the subgoal: when
    a clip comes by matters less than where. At the middle one unless `free`."""
    gap = jnp.linalg.norm(jax.lax.stop_gradient(subgoals)[:, :, None] - around, axis=-1)
    weight = weight[:, :, None]
    group = (gap * weight).sum(-1) / jnp.maximum(weight.sum(-1), 1)
    best = jnp.where(free, group.sum((-2, -1)).argmin(-1), around.shape[2] // 2)
    return jnp.take_along_axis(around, best[:, :, None, None, None, None, None], axis=2)[:, :, 0]


def anticipation_loss(
    model: AnticipationModel,
    params: Any,
    start: Float[Array, "B V E P 2"],
    around: Float[Array, "B S W V E P 2"],
    visibility: Bool[Array, "B S1 V E P"],
    first_seen: Bool[Array, "B V E P"],
    pose: Float[Array, "B F"],
    num_stages: Array,
    free: Bool[Array, ""],
    key: PRNGKeyArray,
    config: FitConfig,
) -> tuple[Array, dict[str, Array]]:
    """Visibility-weighted Huber on the anticipated keyframes, each from the model's own previous
    one (so that errors are not left to compound), plus the losses of the two logits."""
    stages = around.shape[1]
    noise = config.point_noise * jax.random.normal(key, start.shape)
    out = roll_out(model, params, start + noise, first_seen, stages, pose)
    real_stage = jnp.arange(stages) < num_stages[:, None]
    weight = which_count(visibility, num_stages)
    subgoals = out.subgoals - noise[:, None]
    distance = (subgoals - nearest_moment(subgoals, around, weight, free)) / config.huber_delta
    huber = optax.huber_loss(distance).sum(-1)
    # every entity and view counts alike, however many of its points are seen
    group = (huber * weight).sum(-1) / jnp.maximum(weight.sum(-1), 1)
    group_real = weight.any(-1)
    huber = (group * group_real).sum() / jnp.maximum(group_real.sum(), 1)
    is_last = jnp.arange(stages) == num_stages[:, None] - 1
    bce = optax.sigmoid_binary_cross_entropy(out.stop, is_last.astype(jnp.float32))
    stop_loss = (bce * real_stage).sum() / real_stage.sum()
    bce = optax.sigmoid_binary_cross_entropy(out.in_sight, visibility[:, 0] * 1.0)
    slot = jnp.arange(first_seen.shape[-1])
    any_kind = first_seen & (slot >= len(slot) - config.num_sight_points)
    sight_loss = (bce * any_kind).sum() / jnp.maximum(any_kind.sum(), 1)
    info = {"huber": huber, "stop": stop_loss, "sight": sight_loss}
    return huber + 0.1 * (stop_loss + sight_loss), info


def free_gap(
    model: AnticipationModel,
    params: Any,
    start: Float[Array, "B V E C 2"],
    around: Float[Array, "B S W V E C 2"],
    visibility: Bool[Array, "B S1 V E C"],
    first_seen: Bool[Array, "B V E C"],
    num_stages: Int[Array, " B"],
) -> tuple[Float[Array, "B S V E C"], Bool[Array, "B S V E C"]]:
    """Distance of the model's own roll-out to the true points, image sides, and where it counts."""
    subgoals = roll_out(model, params, start, first_seen, around.shape[1]).subgoals
    weight = which_count(visibility, num_stages)
    return jnp.linalg.norm(subgoals - nearest_moment(subgoals, around, weight), axis=-1), weight


def plan_error(
    model: AnticipationModel, params: Any, examples: PlanExamples, clips: np.ndarray
) -> PlanError:
    """How far the anticipated keyframes lie from the true ones, over all well-seen candidates of
    `clips`."""
    arrays = (examples.points, examples.around, examples.visibility, examples.first_seen)
    points, around, seen, first_seen = (jnp.asarray(x[clips]) for x in arrays)
    num_stages = examples.num_stages[clips]
    gap, weight = jax.jit(partial(free_gap, model))(
        params, points[:, 0], around, seen, first_seen, jnp.asarray(num_stages)
    )
    context = seen[:, :-1].at[:, 0].set(first_seen)
    pose = pose_summary(points[:, 0], first_seen)
    out = jax.jit(model.apply)(params, points[:, :-1], context, pose)
    forced = points[:, :-1] + out.displacement
    forced_gap = jnp.linalg.norm(forced - nearest_moment(forced, around, weight), axis=-1)
    weight = np.asarray(weight)
    gap = np.where(weight, gap, np.nan)
    forced_gap = np.where(weight & seen[:, :-1], forced_gap, np.nan)
    count = weight.sum(-1)
    group = np.nansum(gap, axis=-1) / np.where(count, count, np.nan)
    stage = np.arange(around.shape[1])
    is_last, real = stage == num_stages[:, None] - 1, stage < num_stages[:, None]
    return PlanError(
        _median(gap, (0, 2, 3, 4)),
        _median(forced_gap, (0, 2, 3, 4)),
        _median(group, (0,)),
        float(((np.asarray(out.stop) > 0) == is_last)[real].mean()),
    )


def _median(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    kept = [a for a in range(x.ndim) if a not in axes]
    flat = np.transpose(x, (*kept, *axes)).reshape(*[x.shape[a] for a in kept], -1)
    some = np.any(np.isfinite(flat), axis=-1, keepdims=True)
    median = np.nanmedian(np.where(some, flat, 0), axis=-1)
    return np.where(some[..., 0], median, np.nan)


class Fit(NamedTuple):
    """A trained anticipation model."""

    params: Any
    error: PlanError
    """on the test clips."""


def fit(
    examples: PlanExamples,
    model_config: ModelConfig,
    config: FitConfig,
    log: Log = lambda steps, metrics: None,
    kept: Unfinished | None = None,
) -> Fit:
    """Train with early stopping on the validation clips' free-running error; returns the best
    parameters. With `kept` it goes on where it was.

    Raises:
        FloatingPointError: the loss is NaN.
    """
    model = AnticipationModel(model_config)
    split = split_clips(len(examples.points), config)
    points, visibility = jnp.asarray(examples.points), jnp.asarray(examples.visibility)
    first_seen, around = jnp.asarray(examples.first_seen), jnp.asarray(examples.around)
    num_stages, train_clips = jnp.asarray(examples.num_stages), jnp.asarray(split.train)
    count = min(config.num_points, points.shape[4])
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, max(1, config.num_steps // 20), config.num_steps
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=config.weight_decay)
    )
    init_key, data_key = jax.random.split(jax.random.key(config.seed))
    few = points[:1, :-1, :, :, :count], visibility[:1, :-1, :, :, :count]
    params = jax.jit(model.init)(init_key, *few, pose_summary(few[0][:, 0], few[1][:, 0]))

    def grad_step(carry: tuple, step: Array) -> tuple:
        params, opt_state = carry
        clip_key, subset_key, noise_key = jax.random.split(jax.random.fold_in(data_key, step), 3)
        clips = jax.random.choice(clip_key, train_clips, (config.batch_size,))
        start, seen, first = points[clips, 0], visibility[clips], first_seen[clips]
        score = jnp.where(first, jax.random.uniform(subset_key, first.shape), -1.0)
        half = first & ((score > 0.5) | (score == score.max(-1, keepdims=True)))
        pose = pose_summary(start, half)
        # motion is learned from points that stay in sight, sight from any
        tracked = jnp.where(seen[:, 0], score, -1.0)
        parts = jax.lax.top_k(tracked, count)[1], jax.lax.top_k(score, config.num_sight_points)[1]
        subset = jnp.concatenate(parts, axis=-1)
        first = jnp.take_along_axis(first, subset, axis=3)
        start = jnp.take_along_axis(start, subset[..., None], axis=3)
        near = jnp.take_along_axis(around[clips], subset[:, None, None, ..., None], axis=5)
        seen = jnp.take_along_axis(seen, subset[:, None], axis=4)
        stages = num_stages[clips]
        # only a model that knows the middle moments may choose: else all slide to the earliest
        free = step >= config.num_steps * config.exact_moments
        (loss, info), grads = jax.value_and_grad(
            lambda p: anticipation_loss(
                model, p, start, near, seen, first, pose, stages, free, noise_key, config
            ),
            has_aux=True,
        )(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), {"loss": loss, **info}

    @jax.jit
    def validation_error(params: Any) -> Array:
        clips = split.validation
        gap, weight = free_gap(
            model,
            params,
            points[clips, 0],
            around[clips],
            visibility[clips],
            first_seen[clips],
            num_stages[clips],
        )
        return (gap * weight).sum() / jnp.maximum(weight.sum(), 1)

    best = descend(
        grad_step,
        (params, optimizer.init(params)),
        config.num_steps,
        config.eval_every,
        NAME,
        validate=validation_error,
        patience=config.patience,
        log=log,
        kept=kept,
    )
    return Fit(best, plan_error(model, best, examples, split.test))
