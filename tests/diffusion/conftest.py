"""Small videos of something that moves the same way each time."""

import cv2
import numpy as np
import pytest

from relam_jax.diffusion.denoiser import DenoiserConfig
from relam_jax.diffusion.fit import SIZES, DiffusionConfig, Size, fit_video_model
from relam_jax.diffusion.vqvae import VQConfig

FRAMES, SIDE = 16, 32


def places(path):
    """The path itself, image sides."""
    return np.asarray(path, np.float32) / SIDE


def draw(path):
    """A disc at each (x, y) of `path`, pixels, over a still background."""
    background = np.linspace(40, 120, SIDE)[None, :, None] * np.ones((SIDE, 1, 3))
    frames = np.repeat(background[None].astype(np.uint8), len(path), axis=0)
    for frame, (x, y) in zip(frames, path, strict=True):
        cv2.circle(frame, (round(x * 16), round(y * 16)), 3 * 16, (230, 60, 40), -1, shift=4)
    return frames


def demonstration(seed, show=draw):
    """From the left to the right, in an arc, at a height of its own."""
    t = np.linspace(0, 1, FRAMES)
    height = 20 + np.random.default_rng(seed).uniform(-3, 3)
    return show(np.stack([4 + 24 * t, height - 10 * np.sin(np.pi * t)], axis=1))


def wander(seed, show=draw):
    """From where demonstrations begin, at about their speed, in random directions."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, FRAMES - 1)
    steps = 2.4 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    path = [np.array([4.0, 20.0])]
    for step in steps:
        path.append(np.clip(path[-1] + step, 3, 28))
    return show(np.array(path))


@pytest.fixture(scope="module")
def config():
    small = SIZES["small"]
    SIZES["small"] = Size(
        VQConfig(grid=8, num_codes=64, channels=64),
        DenoiserConfig(width=32, num_heads=2, num_layers=1),
    )
    yield DiffusionConfig(frame_size=SIDE, vq_steps=500, fit_steps=1000, denoising_steps=4)
    SIZES["small"] = small


@pytest.fixture(scope="module")
def fitted(config):
    """The model, and its log as {name: [metrics]}."""
    log = {"codec": [], "denoiser": []}
    clips = [demonstration(seed) for seed in range(16)]
    model = fit_video_model(clips, 1, config, 0, lambda name, _, row: log[name].append(row))
    return model, log


@pytest.fixture(scope="module")
def fitted_to_places(config):
    """The model of keypoint_diffusion."""
    clips = [demonstration(seed, places) for seed in range(16)]
    return fit_video_model(clips, 1, config, 0, kind="keypoint_diffusion")
