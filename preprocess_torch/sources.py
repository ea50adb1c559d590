"""Where the frames of one view of one episode come from: a video file, a part of one, a folder of
pictures, a column of a Parquet file or a step sequence of a TFRecord."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from preprocess_torch.errors import ClipError, no_bombs
from preprocess_torch.models import sha256
from preprocess_torch.video import Timing, Video, read_video, select, stack
from relam_jax.keypoints.tfrecord import read_frame_at

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"}


@runtime_checkable
class Source(Protocol):
    """Frames on a disk."""

    def read(self, timing: Timing) -> Video:
        """Decode them. Raises `ClipError`."""
        ...

    def digest(self) -> str:
        """sha256 of what `read` depends on."""
        ...


@dataclass(frozen=True)
class VideoFile:
    """A video, or from `span`'s first to before its second time in seconds."""

    path: Path
    span: tuple[float, float] | None = None

    def read(self, timing: Timing) -> Video:
        """See `Source`."""
        return read_video(self.path, timing, self.span)

    def digest(self) -> str:
        """See `Source`."""
        whole = file_sha256(self.path)
        return whole if self.span is None else _sum([whole, str(self.span)])


@dataclass(frozen=True)
class FrameFolder:
    """Pictures in a folder, in the order of the numbers in their names."""

    path: Path

    def read(self, timing: Timing) -> Video:
        """See `Source`. Pictures carry no times: `timing.fps` is the rate at which they were
        taken."""
        files = frame_files(self.path)
        frames = ((file.name, file.read_bytes()) for file in files)
        return read_pictures(frames, timing.fps, Timing(0, timing.start, timing.end))

    def digest(self) -> str:
        """See `Source`."""
        return _sum([f"{file.name} {sha256(file)}" for file in frame_files(self.path)])


@dataclass(frozen=True)
class ParquetImages:
    """Encoded pictures in column `column`, in the rows of one episode (LeRobot's layout)."""

    path: Path
    column: str
    episode: int
    fps: float

    def read(self, timing: Timing) -> Video:
        """See `Source`."""
        rows = self._rows()
        if not rows or any(not (row or {}).get("bytes") for row in rows):
            raise ClipError(f"{self.path.name} holds no pictures for it in {self.column}")
        frames = ((f"row {index}", row["bytes"]) for index, row in enumerate(rows))
        return read_pictures(frames, self.fps, timing)

    def digest(self) -> str:
        """See `Source`."""
        return _sum([file_sha256(self.path), self.column, str(self.episode)])

    def _rows(self) -> list[dict[str, Any]]:
        import pyarrow.parquet as parquet

        only = [("episode_index", "=", self.episode)]
        table = parquet.read_table(self.path, columns=[self.column], filters=only)
        return table.column(self.column).to_pylist()


@dataclass(frozen=True)
class RecordImages:
    """Encoded pictures in the field `key` of the `tf.train.Example` at a place in a TFRecord file
    (RLDS: one example an episode)."""

    path: Path
    offset: int
    key: str

    def read(self, timing: Timing) -> Video:
        """See `Source`. RLDS keeps no times: `timing.fps` is the rate of the steps."""
        pictures = example_fields(read_frame_at(self.path, self.offset)).get(self.key, ())
        frames = ((f"step {index}", data) for index, data in enumerate(pictures))
        return read_pictures(frames, timing.fps, Timing(0, timing.start, timing.end))

    def digest(self) -> str:
        """See `Source`."""
        payload = read_frame_at(self.path, self.offset)
        return _sum([hashlib.sha256(payload).hexdigest(), self.key])


def frame_files(folder: Path) -> list[Path]:
    """The pictures in a folder, `f2.png` before `f10.png`; label images are none."""

    def numbers(path: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", path.name)
        return [(int(p), "") if p.isdigit() else (-1, p) for p in parts]

    return sorted(
        (
            p
            for p in folder.iterdir()
            if p.suffix.lower() in PICTURES
            and p.name[0] != "."
            and ".masks." not in p.name
            and p.is_file()
        ),
        key=numbers,
    )


def read_pictures(frames: Iterable[tuple[str, bytes]], fps: float | int, timing: Timing) -> Video:
    """(name, encoded picture) in order, at `fps`; 0 if that is not known. Raises `ClipError`."""
    if not fps and timing not in (Timing(), Timing(fps=timing.fps)):
        raise ClipError("is pictures without times: --trim needs their rate, --fps")
    timed = ((index / (fps or 1.0), frame) for index, frame in enumerate(frames))
    found = select(timed, timing, _decode)
    if not found:
        raise ClipError("has no frames" + (" within --trim" if timing != Timing() else ""))
    return Video(stack(found), timing.fps or fps)


def _decode(frame: tuple[str, bytes]) -> UInt8[np.ndarray, "H W 3"]:
    name, data = frame
    with suppress(OSError, SyntaxError), no_bombs(name):  # OpenCV would fill the memory first
        Image.open(io.BytesIO(data)).close()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise ClipError(f"has a picture that cannot be read: {name}")
    return np.ascontiguousarray(image[..., ::-1])


def example_fields(payload: bytes) -> dict[str, Sequence[bytes]]:
    """The fields of a serialised `tf.train.Example` that hold bytes. Raises `ClipError`."""
    from tensorflow_datasets.proto import tf_example_pb2

    message: Any = tf_example_pb2
    try:
        features = message.Example.FromString(payload).features.feature
    except Exception as error:  # protobuf's own
        raise ClipError("is no tf.train.Example") from error
    return {key: list(value.bytes_list.value) for key, value in features.items()}


def file_sha256(path: Path) -> str:
    """Of a file's bytes; a file that holds many episodes is read once."""
    if not path.is_file():  # a pipe or a device never ends
        raise FileNotFoundError(f"{path} is no file")
    status = path.stat()
    return _cached_sha256(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1024)
def _cached_sha256(path: Path, changed: int, size: int) -> str:
    return sha256(path)


def _sum(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
