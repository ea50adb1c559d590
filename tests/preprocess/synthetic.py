"""Synthetic clips: textured squares that move by known sub-pixel amounts over a still ground."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

SIZE, FRAMES = 96, 12


def texture(seed: int, size: int, tint: tuple[float, float, float]) -> np.ndarray:
    """Smooth random texture (size, size, 3) uint8."""
    noise = np.random.default_rng(seed).random((size, size)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), 1.5)
    noise = (noise - noise.min()) / (noise.max() - noise.min())
    return ((noise[..., None] * 120 + 60) * np.array(tint)).astype(np.uint8)


def render(
    shifts: dict[str, np.ndarray], size: int = SIZE, side: int = 28, still: bool = False
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Frames (T, size, size, 3) and first-frame masks; one square an entry of `shifts` (T, 2) px.

    Squares start side by side and a later one covers an earlier one.
    """
    length = len(next(iter(shifts.values())))
    frames = np.repeat(texture(0, size, (0.7, 0.7, 0.7))[None], length, 0)
    masks = {}
    for index, (name, shift) in enumerate(shifts.items()):
        tint = ((1.0, 0.3, 0.3), (0.3, 1.0, 0.3), (0.3, 0.3, 1.0))[index]
        patch = np.zeros((size, size, 3), np.uint8)
        alpha = np.zeros((size, size), np.float32)
        top, left = size // 3, 8 + index * (side + 12)
        patch[top : top + side, left : left + side] = texture(1 + index, side, tint)
        alpha[top : top + side, left : left + side] = 1
        masks[name] = alpha > 0
        for t, (dx, dy) in enumerate(shift):
            move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
            moved = cv2.warpAffine(patch, move, (size, size), flags=cv2.INTER_CUBIC)
            cover = cv2.warpAffine(alpha, move, (size, size))[..., None]
            frames[t] = (cover * moved + (1 - cover) * frames[t]).astype(np.uint8)
    return frames, masks


def line(dx: float, dy: float, length: int = FRAMES, start: int = 0) -> np.ndarray:
    """Shifts (length, 2): at rest until `start`, then a straight line to (dx, dy)."""
    way = np.clip((np.arange(length) - start) / (length - 1 - start), 0, 1)
    return way[:, None] * np.array([dx, dy])


def write_video(path: Path, frames: np.ndarray, fps: int = 20, codec: str = "libx264") -> Path:
    """Encode RGB frames nearly without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv444p" if codec == "libx264" else "yuv420p"
        stream.options = {"crf": "8", "preset": "veryfast", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_audio(path: Path) -> Path:
    """A file with sound and no pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_masks(video: Path, masks: dict[str, np.ndarray]) -> None:
    """Label image beside `video`, and masks.json."""
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for index, mask in enumerate(masks.values(), 1):
        labels[mask] = index
    Image.fromarray(labels).save(video.with_name(f"{video.stem}.masks.png"))
    names = {str(index): name for index, name in enumerate(masks, 1)}
    video.with_name("masks.json").write_text(json.dumps(names))
