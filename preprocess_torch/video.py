"""Decode a whole clip with PyAV, in order of presentation time, upright, at the rate asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from av.logging import PANIC, set_level
from jaxtyping import UInt8

from preprocess_torch.errors import ClipError, UsageError

MAX_BYTES = 4 << 30
"""A clip whose decoded frames need more memory than this is refused."""

AV_TIME_BASE = 1_000_000
"""FFmpeg's ticks a second of container times."""

TOLERANCE = 1e-3
"""seconds by which a frame may come later than the moment that it is taken for."""

set_level(PANIC)  # FFmpeg's own lines would break the progress bar

T = TypeVar("T")


@dataclass(frozen=True)
class Video:
    """A decoded clip."""

    frames: UInt8[np.ndarray, "T H W 3"]
    """RGB."""
    fps: float | int
    """mean frame rate, 1/s; 0 where the file does not say."""


@dataclass(frozen=True)
class Timing:
    """Which moments of a clip are taken."""

    fps: float | int = 0.0
    """frames a second; 0 takes all frames."""
    start: float | int = 0.0
    """seconds from the clip's first frame."""
    end: float | int = math.inf
    """likewise; counted back from the clip's end if negative."""


def parse_timing(fps: float | int, trim: str) -> Timing:
    """What `--fps` and `--trim START:END` say. Raises `UsageError`."""
    if not 0 <= fps < math.inf:
        raise UsageError(f"--fps {fps:g}: frames a second, more than 0, please")
    try:
        first, last = trim.split(":") if trim else ("", "")
        start, end = float(first or 0), float(last or math.inf)
    except ValueError:
        start, end = 1.0, 0.0
    if start < 0 or math.isnan(end) or 0 <= end <= start:
        raise UsageError(
            f"--trim {trim!r}: START:END in seconds, for instance 1.5:8, or 2: or :-0.5"
        )
    return Timing(fps, start, end)


def select(
    timed: Iterable[tuple[float, T]],
    timing: Timing,
    array: Callable[[T], UInt8[np.ndarray, "H W 3"]],
) -> list[UInt8[np.ndarray, "H W 3"]]:
    """The frames that `timing` takes of (seconds, frame) in order of time; only these are unpacked.

    At a given rate each moment gets the frame that a player would show then.
    """
    taken: list[tuple[float, np.ndarray]] = []
    size, zero, current, now, gap = 0, None, None, 0.0, 0.0

    def take(until: float) -> None:
        """Keep `current` for the moments before `until`."""
        nonlocal size
        while True:
            moment = timing.start + len(taken) / timing.fps if timing.fps else now
            if not timing.start - TOLERANCE <= moment < until - TOLERANCE:
                return
            same = taken and timing.fps and taken[-1][0] == now
            taken.append((now, taken[-1][1] if same else array(current)))  # pyright: ignore
            size += taken[-1][1].nbytes
            if size > MAX_BYTES:
                raise ClipError(
                    f"needs more than {MAX_BYTES >> 30} GiB when decoded: cut it, or use --trim "
                    "or --fps"
                )
            if not timing.fps:
                return

    for time, frame in timed:
        zero = time if zero is None else zero
        if current is not None:
            gap = time - zero - now
            take(min(now + gap, timing.end) if timing.end > 0 else now + gap)
        current, now = frame, time - zero
        if 0 < timing.end <= now + TOLERANCE:
            current = None
            break
    if current is not None:
        gap = gap or 1.0
        end = timing.end if timing.end > 0 else now + gap
        take(min(now + gap, end))
    if timing.end < 0:  # the length is known only now
        count = len(taken)
        while count and (_moment(timing, taken, count - 1) >= now + gap + timing.end - TOLERANCE):
            count -= 1
        del taken[count:]
    return [frame for _, frame in taken]


def _moment(timing: Timing, taken: list[tuple[float, np.ndarray]], index: int) -> float:
    return timing.start + index / timing.fps if timing.fps else taken[index][0]


def read_video(
    path: Path, timing: Timing | None = None, span: tuple[float, float] | None = None
) -> Video:
    """The frames of the first video stream; of a file that holds several clips, those from `span`'s
    first to before its second time in seconds.

    Raises `ClipError` that says what is wrong: not a video, no video stream, no frames, damaged or
    cut off, or too large for memory.
    """
    timing, times, seconds, damaged = timing or Timing(), [], [], False
    try:
        # `file:`, lest a name be taken for a protocol, and a playlist lead elsewhere
        options = {"protocol_whitelist": "file"}
        with av.open(f"file:{path}", options=options) as container:
            if not container.streams.video:
                what = "has sound but no pictures" if container.streams.audio else "has no pictures"
                raise ClipError(what)
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # 680 frames/s at 480²; the tracker is what takes time
            rate = stream.average_rate or stream.guessed_rate
            half = 0.5 / float(rate or 100)
            if span and stream.time_base:
                container.seek(max(0, int((span[0] - half) / stream.time_base)), stream=stream)

            def timed() -> Iterable[tuple[float, av.VideoFrame]]:
                nonlocal damaged
                for index, picture in enumerate(container.decode(stream)):
                    time = picture.time if picture.time is not None else 2 * half * index
                    if span and time < span[0] - half:
                        continue
                    if span and time > span[1] - half:
                        return
                    damaged |= bool(picture.is_corrupt)
                    times.append(picture.pts)
                    seconds.append(time)
                    yield time, picture

            stopped = timing.end > 0 and timing.end != math.inf
            frames = select(timed(), timing, _upright)
            if not (span or stopped):
                _check_complete(container, stream, times)
    except FFmpegError as error:
        if isinstance(error, OSError) and error.errno in (13,):
            raise ClipError("cannot be opened: permission denied") from error
        raise ClipError(
            f"is not a video that FFmpeg can read, or is cut off ({error.strerror})"
        ) from error
    if not times:
        raise ClipError("has no frames")
    if not frames:
        raise ClipError("has no frames within --trim")
    if damaged:
        raise ClipError("is damaged: the decoder marks frames as corrupt")
    return Video(stack(frames), timing.fps or _mean_rate(seconds, float(rate or 0.0)))


def _mean_rate(seconds: list[float], promised: float) -> float:
    """What the file promises, unless the frames' times say something else."""
    if len(seconds) < 2 or seconds[-1] <= seconds[0]:
        return promised
    shown = (len(seconds) - 1) / (seconds[-1] - seconds[0])
    return promised if abs(shown - promised) < 0.02 * promised else shown


def stack(frames: list[UInt8[np.ndarray, "H W 3"]]) -> UInt8[np.ndarray, "T H W 3"]:
    """All frames of a clip. Raises `ClipError` when their sizes differ."""
    if len({frame.shape for frame in frames}) > 1:
        raise ClipError("changes its picture size within the clip")
    return np.stack(frames)


def _upright(picture: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
    """RGB of any pixel format, turned as the file says it should be shown."""
    frame = picture.to_ndarray(format="rgb24")
    turns = round(picture.rotation / 90) % 4  # counter-clockwise
    return np.ascontiguousarray(np.rot90(frame, turns)) if turns else frame


def _check_complete(
    container: InputContainer, stream: av.VideoStream, times: list[int | None]
) -> None:
    """Raise `ClipError` when the file promises frames after the last one that came out."""
    known = [time for time in times if time is not None]
    if not known or not stream.average_rate or not stream.time_base:
        return
    # AVI counts the slots between frames of a variable rate as frames
    shown = Fraction(max(known) - min(known), max(1, len(known) - 1)) * stream.time_base
    frame = max(1 / stream.average_rate, shown)
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
