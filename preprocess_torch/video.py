"""Decode a whole clip with PyAV, in order of presentation time."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.logging import PANIC, set_level
from jaxtyping import UInt8

from preprocess_torch.errors import ClipError

MAX_BYTES = 4 << 30
"""A clip whose decoded frames need more memory than this is refused."""

AV_TIME_BASE = 1_000_000
"""FFmpeg's ticks a second of container times."""

set_level(PANIC)  # FFmpeg's own lines would break the progress bar


@dataclass(frozen=True)
class Video:
    """A decoded clip."""

    frames: UInt8[np.ndarray, "T H W 3"]
    """RGB."""
    fps: float
    """mean frame rate, 1/s; 0 where the file does not say."""


def read_video(path: Path) -> Video:
    """All frames of the first video stream.

    Raises `ClipError` that says what is wrong: not a video, no video stream, no frames, damaged or
    cut off, or too large for memory.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                what = "has sound but no pictures" if container.streams.audio else "has no pictures"
                raise ClipError(what)
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # 680 frames/s at 480²; the tracker is what takes time
            frames, times, damaged, size = [], [], False, 0
            for picture in container.decode(stream):
                damaged |= bool(picture.is_corrupt)
                frames.append(picture.to_ndarray(format="rgb24"))
                times.append(picture.pts)
                size += frames[-1].nbytes
                if size > MAX_BYTES:
                    raise ClipError(f"needs more than {MAX_BYTES >> 30} GiB when decoded: cut it")
            _check_complete(container, stream, times)
            rate = stream.average_rate or stream.guessed_rate
    except FFmpegError as error:
        if isinstance(error, OSError) and error.errno in (13,):
            raise ClipError("cannot be opened: permission denied") from error
        raise ClipError(
            f"is not a video that FFmpeg can read, or is cut off ({error.strerror})"
        ) from error
    if not frames:
        raise ClipError("has no frames")
    if damaged:
        raise ClipError("is damaged: the decoder marks frames as corrupt")
    if len({frame.shape for frame in frames}) > 1:
        raise ClipError("changes its picture size within the clip")
    if all(time is not None for time in times):
        order = np.argsort(np.asarray(times), kind="stable")
        frames = [frames[i] for i in order]
    return Video(np.stack(frames), float(rate or 0.0))


def _check_complete(
    container: InputContainer, stream: av.VideoStream, times: list[int | None]
) -> None:
    """Raise `ClipError` when the file promises frames after the last one that came out."""
    known = [time for time in times if time is not None]
    if not known or not stream.average_rate or not stream.time_base:
        return
    frame = 1 / stream.average_rate
    end = max(known) * stream.time_base + Fraction(5, 2) * frame  # seconds, with some tolerance
    if stream.frames:
        # an edit list may hide frames on purpose: then the last shown frame still ends the stream
        missing = stream.frames - len(times)
        promised = (stream.start_time or 0) + (stream.duration or 0)
        if missing > 0 and not (stream.duration and end > promised * stream.time_base):
            raise ClipError(f"is cut off: {len(times)} of {stream.frames} frames can be decoded")
    elif container.duration and not container.streams.audio:  # Matroska counts no frames
        start = Fraction(container.start_time or 0, AV_TIME_BASE)
        promised = start + Fraction(container.duration, AV_TIME_BASE)
        if end < promised:
            raise ClipError(f"is cut off: it ends at {float(end):.1f} s of {float(promised):.1f} s")
