"""The video model of a run: on disk, or fitted to the videos that its keypoint records are of."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from relam_jax.diffusion.bins import Bins
from relam_jax.diffusion.fit import (
    CODEC,
    DENOISER,
    FILMED,
    MEASURES,
    DiffusionConfig,
    VideoModel,
    fit_video_model,
    make_judge,
)
from relam_jax.fitting import Unfinished
from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.logs import RunLog

NOT_THE_MODELS = ("model", "novelty", "sparse")
"""Fields of the config that change no model."""


def _settings(config: DiffusionConfig, stride: int, kind: str) -> dict[str, Any]:
    kept = {k: v for k, v in asdict(config).items() if k not in NOT_THE_MODELS}
    return kept | {"stride": stride, "of": "frames" if kind in FILMED else "places"}


def save_video_model(
    folder: Path, model: VideoModel, config: DiffusionConfig, stride: int, kind: str = "diffusion"
) -> None:
    """Write `folder`/params (orbax), then `folder`/config.json."""
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    tree = model._asdict() | {"codec": model.codec._asdict()}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", tree, force=True)
    settings = _settings(config, stride, kind)
    if isinstance(model.codec, Bins):
        settings["positions"] = len(model.codec.low)
    write_atomic(folder / "config.json", json.dumps(settings, indent=2).encode())


def load_video_model(
    folder: Path, config: DiffusionConfig, stride: int, kind: str = "diffusion"
) -> VideoModel:
    """Read what `save_video_model` wrote.

    Raises:
        ValueError: there is no model, or it was fitted with other settings or by another version.
    """
    folder = folder.absolute()
    if not (folder / "config.json").exists():
        raise ValueError(f"no video model at {folder}: experiments/fit_video_model.py fits one")
    found = json.loads((folder / "config.json").read_text())
    wanted = _settings(config, stride, kind)
    differ = [f"{k}: {found.get(k)} → {v}" for k, v in wanted.items() if found.get(k) != v]
    if differ:
        raise ValueError(
            f"the video model at {folder} was fitted with other settings ({'; '.join(differ)}): "
            "use the same ones, or another --diffusion.model"
        )
    judge, key = make_judge(config, kind), jax.random.key(0)
    number = jax.ShapeDtypeStruct((len(MEASURES),), jnp.float32)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            if judge.vqvae:
                side = config.frame_size
                frames = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
                codec = jax.eval_shape(judge.vqvae.init, key, frames)
                positions = judge.vqvae.config.grid**2
            else:
                positions = found["positions"]
                codec = Bins(jnp.zeros(positions), jnp.zeros(positions))
            past = jnp.zeros((1, config.history, positions), jnp.int32)
            params = jax.eval_shape(judge.denoiser.init, key, past[:, 0], past)
            shapes = {"codec": codec._asdict(), "params": params, "mean": number, "std": number}
            stored = checkpointer.restore(folder / "params", shapes)
    except (TypeError, KeyError, ValueError, FileNotFoundError) as error:
        raise ValueError(
            f"the video model at {folder} does not fit this version ({error}): delete the folder"
        ) from error
    return VideoModel(**stored | {"codec": type(codec)(**stored["codec"])})


def ensure_video_model(
    folder: Path,
    read: Callable[[], Sequence[np.ndarray]],
    config: DiffusionConfig,
    stride: int,
    seed: int,
    kind: str = "diffusion",
) -> None:
    """Fit one to the clips that `read` reads into `folder`, with its log (CSV, TensorBoard), unless
    there is one; killed and called again it goes on where it was. Raises as `read`,
    `fit_video_model` and `load_video_model` do."""
    if (folder / "config.json").exists():
        load_video_model(folder, config, stride, kind)
        return
    clips = read()
    kept = Unfinished(folder, (_settings(config, stride, kind), seed), clips)
    log = RunLog(folder, {"codec": kept.steps(CODEC), "denoiser": kept.steps(DENOISER)})
    try:
        model = fit_video_model(clips, stride, config, seed, log.write, kind, kept)
    finally:
        log.close()
    kept.write_timing()
    save_video_model(folder, model, config, stride, kind)
    kept.remove()
    scale = zip(MEASURES, model.mean.tolist(), model.std.tolist(), strict=True)
    known = ", ".join(f"{name} {mean:.4f} ± {std:.4f}" for name, mean, std in scale)
    print(f"video model: {len(clips)} clips, {known} nats a token, {kept.seconds:.0f} s")
