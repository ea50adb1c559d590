"""Small videos of something that moves the same way each time."""

import cv2
import numpy as np
import pytest

from relam_jax.diffusion.denoiser import DenoiserConfig
from relam_jax.diffusion.fit import SIZES, DiffusionConfig, Size, fit_video_model
from relam_jax.diffusion.vqvae import VQConfig

FRAMES, SIDE = 30, 32


def draw(path):
    """A disc at each (x, y) of `path`, pixels, over a still background."""
    background = np.linspace(40, 120, SIDE)[None, :, None] * np.ones((SIDE, 1, 3))
    frames = np.repeat(background[None].astype(np.uint8), len(path), axis=0)
    for frame, (x, y) in zip(frames, path, strict=True):
        cv2.circle(frame, (round(x * 16), round(y * 16)), 3 * 16, (230, 60, 40), -1, shift=4)
    return frames


def demonstration(seed):
    """From the left to the right, in an arc, at a height of its own."""
    t = np.linspace(0, 1, FRAMES)
    height = 20 + np.random.default_rng(seed).uniform(-3, 3)
    return draw(np.stack([4 + 24 * t, height - 10 * np.sin(np.pi * t)], axis=1))


def wander(seed):
    """At random, at the same speed."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(FRAMES, 2)) * 1.2
    return draw(np.clip(np.array([4, 20]) + np.cumsum(steps, axis=0), 3, 28))


@pytest.fixture(scope="session")
def config():
    small = SIZES["small"]
    SIZES["small"] = Size(
        VQConfig(grid=8, num_codes=64, channels=64),
        DenoiserConfig(width=32, num_heads=2, num_layers=1),
    )
    yield DiffusionConfig(frame_size=SIDE, vq_steps=500, fit_steps=750, denoising_steps=4)
    SIZES["small"] = small


@pytest.fixture(scope="session")
def fitted(config):
    """The model, and its log as {name: [metrics]}."""
    log = {"codec": [], "denoiser": []}
    clips = [demonstration(seed) for seed in range(12)]
    model = fit_video_model(clips, 1, config, 0, lambda name, _, row: log[name].append(row))
    return model, log
