"""h264 files that every browser plays."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8


def write_video(
    path: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], fps: float, crf: int = 18
) -> None:
    """Encode RGB frames as h264 (yuv420p), deterministically (one thread) and atomically.

    Raises:
        ValueError: there are no frames, or their height or width is odd.
    """
    part = path.with_name(path.name + ".part")
    try:
        with av.open(str(part), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
            stream.pix_fmt = "yuv420p"
            stream.options = {"crf": str(crf), "preset": "slow", "threads": "1"}
            count = 0
            for count, image in enumerate(frames, start=1):
                if count == 1:
                    stream.height, stream.width = image.shape[:2]
                    if stream.height % 2 or stream.width % 2:
                        raise ValueError(
                            f"video frames need even sides, not {image.shape[1]} × {image.shape[0]}"
                        )
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            if not count:
                raise ValueError(f"no frames to write to {path}")
            container.mux(stream.encode())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
