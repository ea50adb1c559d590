"""Train autoencoder, then video model, on the frames of demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from relam_jax.diffusion.bins import NUM_BINS, centres, encode, make_bins
from relam_jax.diffusion.denoiser import Denoiser, DenoiserConfig, denoising_loss
from relam_jax.diffusion.entropy import make_entropy
from relam_jax.diffusion.vqvae import VQVAE, Codec, VQConfig, make_vqvae, vq_step
from relam_jax.fitting import Log, Unfinished, descend


class Size(NamedTuple):
    """Of both networks."""

    vq: VQConfig
    denoiser: DenoiserConfig


SIZES = {
    "small": Size(VQConfig(), DenoiserConfig()),
    "published": Size(
        VQConfig(num_codes=1024, code_dim=64, channels=256, num_blocks=4),
        DenoiserConfig(width=128, num_heads=16, num_layers=16),
    ),
}
"""small: minutes on one core. published: tokens, codebook, width and depth of the authors'."""


@dataclass(frozen=True)
class DiffusionConfig:
    """The model of demonstrations of `--reward diffusion`, `viper` and `keypoint_diffusion`."""

    model: str = ""
    """Folder of the fitted model, for several runs to share (default: diffusion in the run
    folder); fitted where there is none."""
    size: Literal["small", "published"] = "small"
    """small: fitted in minutes on one core; published: 16 layers and 1024 codes, for a GPU."""
    frame_size: int = 64
    """Pixels a side of the frames."""
    history: int = 2
    """Frames, an agent step apart, that the next one is told from."""
    denoising_steps: int = 6
    """Steps in which a frame's tokens are unveiled."""
    futures: int = 1
    """Futures (viper: orders of unveiling) a state that are averaged."""
    novelty: float = 0.2
    """Weight of the novelty bonus; that of the video model is 1 − novelty. (Published for
    diffusion: 0.95, beside a success flag's 1.)"""
    sparse: float = 0.0
    """Weight of the simulator's success flag (published: 1)."""
    vq_steps: int = 1000
    """grad_steps of the autoencoder."""
    fit_steps: int = 1500
    """grad_steps of the video model."""
    batch_size: int = 32
    """Frames a grad_step."""
    learning_rate: float = 1e-3
    """Peak of a cosine schedule with 5 % warm-up, AdamW."""
    weight_decay: float = 0.01
    """AdamW."""
    validation: float = 0.1
    """Share of the clips that only choose among the video model's parameters."""


NATS = {"diffusion": "entropy", "viper": "surprise", "keypoint_diffusion": "entropy"}
"""What each reward wants less of."""
MEASURES = ("entropy", "surprise")
FILMED = ("diffusion", "viper")
"""Those whose model is of videos, which runs share; the other's is fitted by each run."""
EVERY = 250
"""grad_steps between looks at the validation clips, and rows of the log."""
CODEC, DENOISER = "autoencoder", "video model"
"""The two fits, in their progress bars and unfinished files."""


class VideoModel(NamedTuple):
    """All that is fitted."""

    codec: Any
    """a Codec of frames, or Bins of places."""
    params: Any
    """of the denoiser."""
    mean: Float[Array, " 2"]
    """of `MEASURES` over the demonstrations, nats a token."""
    std: Float[Array, " 2"]


class Judge(NamedTuple):
    """The pure functions of a reward and a size."""

    vqvae: VQVAE | None
    """None where places are judged."""
    denoiser: Denoiser
    tokens: Callable[[VideoModel, Array], Array]
    """frames (B, H, H, 3) uint8, or places (B, P) → tokens (B, P)."""
    codes: Callable[[VideoModel, Array], Array]
    """tokens (B, P) → what they stand for (B, P, D)."""
    nats: Callable[[str, VideoModel, Array], Array]
    """(measure, model, tokens of the last H + 1 frames (B, H + 1, P)) → entropy of the next frame,
    or surprise at the newest (B), nats a token."""
    reward: Callable[[VideoModel, Array], Array]
    """(model, the same tokens) → (mean − nats) / std (B) of the reward's measure."""


def make_judge(config: DiffusionConfig, kind: str = "diffusion") -> Judge:
    """Close over the sizes; `kind`: of `NATS`. ValueError if a number fits nothing."""
    for name in ("history", "denoising_steps", "futures"):
        if getattr(config, name) < 1:
            raise ValueError(f"--diffusion.{name} must be at least 1, not {getattr(config, name)}")
    size, of_places = SIZES[config.size], kind not in FILMED
    vqvae = None if of_places else make_vqvae(size.vq, config.frame_size)
    num_codes = size.vq.num_codes if vqvae else NUM_BINS
    denoiser = Denoiser(size.denoiser, num_codes)
    entropy = make_entropy(denoiser.apply, num_codes, config.denoising_steps, config.futures)

    def tokens(model: VideoModel, shown: Array) -> Array:
        return vqvae.encode(model.codec, shown) if vqvae else encode(model.codec, shown)

    def codes(model: VideoModel, tokens: Array) -> Array:
        return model.codec.codebook[tokens] if vqvae else centres(tokens)

    def nats(measure: str, model: VideoModel, seen: Array) -> Array:
        if measure == "entropy":
            return entropy(model.params, seen[:, 1:])
        return entropy(model.params, seen[:, :-1], seen[:, -1])

    def reward(model: VideoModel, seen: Array) -> Array:
        measure = NATS[kind]
        which = MEASURES.index(measure)
        return (model.mean[which] - nats(measure, model, seen)) / model.std[which]

    return Judge(vqvae, denoiser, tokens, codes, nats, reward)


def windows(length: int, history: int, stride: int) -> Int[np.ndarray, "T H1"]:
    """Frames `stride` apart of a clip, `history` of them and the next, for every next one but the
    first; before the clip its first frame."""
    then = np.arange(1, length)[:, None]
    return (then - stride * np.arange(history, -1, -1)).clip(min=0)


def clip_windows(
    lengths: Sequence[int], history: int, stride: int
) -> list[Int[np.ndarray, "_ H1"]]:
    """The same, a clip, as rows of all clips in one."""
    starts = np.cumsum([0, *lengths[:-1]])
    return [s + windows(n, history, stride) for s, n in zip(starts, lengths, strict=True)]


def _optimizer(config: DiffusionConfig, steps: int) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, max(1, steps // 20), max(2, steps)
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=config.weight_decay)
    )


def fit_codec(
    vqvae: VQVAE,
    frames: UInt8[np.ndarray, "F H H 3"],
    config: DiffusionConfig,
    seed: int,
    log: Log,
    kept: Unfinished | None = None,
) -> Codec:
    """Train the autoencoder. FloatingPointError if its loss is NaN."""
    shown = jnp.asarray(frames)
    init_key, data_key = jax.random.split(jax.random.key(seed))
    optimizer = _optimizer(config, config.vq_steps)
    step = vq_step(vqvae, optimizer)
    codec = jax.jit(vqvae.init)(init_key, shown[:: max(1, len(shown) // 64)])

    def one(carry: Any, number: Array) -> Any:
        rows_key, codes_key = jax.random.split(jax.random.fold_in(data_key, number))
        rows = jax.random.randint(rows_key, (config.batch_size,), 0, len(shown))
        carry, value = step(carry, (shown[rows], codes_key))
        return carry, {"loss": value}

    carry = codec, optimizer.init(codec.params)
    return descend(one, carry, config.vq_steps, EVERY, CODEC, log=log, kept=kept)


def fit_denoiser(
    judge: Judge,
    tokens: Int[np.ndarray, "F P"],
    rows: Sequence[Int[np.ndarray, "_ H1"]],
    config: DiffusionConfig,
    seed: int,
    log: Log,
    kept: Unfinished | None = None,
) -> Any:
    """Train the video model on windows of frames, a clip each; returns the parameters that are best
    on the validation clips. FloatingPointError if the loss is NaN."""
    order = np.random.default_rng(seed).permutation(len(rows))
    held_out = round(config.validation * len(rows)) if len(rows) > 4 else 0
    training = jnp.asarray(np.concatenate([rows[i] for i in order[held_out:]]))
    validation = np.concatenate([rows[i] for i in (order[:held_out] if held_out else order)])
    shown = jnp.asarray(tokens)
    num_codes, apply = judge.denoiser.num_codes, judge.denoiser.apply
    optimizer = _optimizer(config, config.fit_steps)
    init_key, data_key = jax.random.split(jax.random.key(seed))
    some = shown[training[:1]]
    params = jax.jit(judge.denoiser.init)(init_key, some[:, -1], some[:, :-1])

    def loss(params: Any, rows: Array, key: Array) -> Array:
        seen = shown[rows]
        return denoising_loss(apply, params, seen[:, -1], seen[:, :-1], num_codes, key)

    def one(carry: Any, number: Array) -> Any:
        params, opt = carry
        rows_key, loss_key = jax.random.split(jax.random.fold_in(data_key, number))
        rows = training[jax.random.randint(rows_key, (config.batch_size,), 0, len(training))]
        value, grads = jax.value_and_grad(loss)(params, rows, loss_key)
        change, opt = optimizer.update(grads, opt, params)
        return (optax.apply_updates(params, change), opt), {"loss": value}

    @jax.jit
    def validate(params: Any) -> Array:
        return loss(params, jnp.asarray(validation), jax.random.key(0))

    carry = params, optimizer.init(params)
    return descend(
        one, carry, config.fit_steps, EVERY, DENOISER, validate=validate, log=log, kept=kept
    )


def in_batches(fn: Callable[[Array], Array], rows: Any, size: int = 128) -> np.ndarray:
    """`fn` of all rows, `size` at a time, the last ones filled up: one trace."""
    out = []
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        out.append(np.asarray(fn(jnp.asarray(filled)))[: len(part)])
    return np.concatenate(out)


def fit_video_model(
    clips: Sequence[UInt8[np.ndarray, "_ H H 3"] | Float[np.ndarray, "_ P"]],
    stride: int,
    config: DiffusionConfig,
    seed: int,
    log: Callable[[str, int, dict[str, float]], None] = lambda name, step, metrics: None,
    kind: str = "diffusion",
    kept: Unfinished | None = None,
) -> VideoModel:
    """Tokens, model, and mean and standard deviation of `MEASURES` over the clips.

    `clips`: frames, or places where `kind`, of `NATS`, is keypoint_diffusion; `stride`: frames of a
    clip between two that the policy sees; log(name, step, metrics); with `kept` it goes on where it
    was.

    Raises:
        ValueError: there are no clips.
        FloatingPointError: a loss is NaN.
    """
    if not clips:
        raise ValueError("there are no clips to learn a video model from")
    judge, shown = make_judge(config, kind), np.concatenate(clips)
    if judge.vqvae:
        codec = fit_codec(judge.vqvae, shown, config, seed, partial(log, "codec"), kept)
    else:
        codec = make_bins(clips)
    model = VideoModel(codec, None, jnp.zeros(len(MEASURES)), jnp.ones(len(MEASURES)))
    tokens = in_batches(jax.jit(partial(judge.tokens, model)), shown)
    rows = clip_windows([len(clip) for clip in clips], config.history, stride)
    params = fit_denoiser(judge, tokens, rows, config, seed, partial(log, "denoiser"), kept)
    model, seen = model._replace(params=params), tokens[np.concatenate(rows)]
    nats = np.array([in_batches(jax.jit(partial(judge.nats, m, model)), seen) for m in MEASURES])
    return model._replace(mean=jnp.asarray(nats.mean(1)), std=jnp.asarray(nats.std(1) + 1e-6))
