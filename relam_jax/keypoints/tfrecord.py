"""TFRecord framing and atomic files, without TensorFlow.

A TFRecord file is a run of frames: length (uint64 LE), masked crc32c of the length, payload,
masked crc32c of the payload (tensorflow/core/lib/io/record_writer.cc). grain reads the same files
but checks no sum and imports jax, so the thirty lines are written out here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import crc32c as crc

_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


def masked_crc(data: bytes) -> int:
    """crc32c, rotated and offset as TFRecord stores it."""
    value = crc.crc32c(data)
    return (((value >> 15) | (value << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """`payload` with its length and its two check sums."""
    length = struct.pack("<Q", len(payload))
    return b"".join(
        (length, _FOOTER.pack(masked_crc(length)), payload, _FOOTER.pack(masked_crc(payload)))
    )


def frame_offsets(path: Path) -> Iterator[int]:
    """Where each frame of a TFRecord file begins; the payloads are passed over.

    Raises `ValueError` when a frame is cut off or a length fails its check.
    """
    with open(path, "rb") as file:
        offset, index, size = 0, 0, os.fstat(file.fileno()).st_size
        while offset < size:
            file.seek(offset)
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise ValueError(f"{path} is cut off in record {index}")
            length, check = _HEADER.unpack(header)
            if masked_crc(header[:8]) != check:
                raise ValueError(f"{path} is corrupt: the length of record {index} fails its check")
            end = offset + _HEADER.size + length + _FOOTER.size
            if end > size:
                raise ValueError(f"{path} is cut off in record {index}")
            yield offset
            offset, index = end, index + 1


def read_frame_at(path: Path, offset: int, index: int | None = None) -> bytes:
    """The payload of the frame that begins at `offset`. Raises `ValueError` when its check sum
    differs."""
    with open(path, "rb") as file:
        file.seek(offset)
        length, _ = _HEADER.unpack(file.read(_HEADER.size))
        payload = file.read(length)
        if masked_crc(payload) != _FOOTER.unpack(file.read(_FOOTER.size))[0]:
            which = f"record {index}" if index is not None else f"the record at {offset}"
            raise ValueError(f"{path} is corrupt: {which} fails its check")
        return payload


def read_frames(path: Path) -> Iterator[bytes]:
    """The payloads of a TFRecord file, in order.

    Raises `ValueError` with the file and the record at fault when a frame is cut off or a check
    sum differs.
    """
    for index, offset in enumerate(frame_offsets(path)):
        yield read_frame_at(path, offset, index)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it; whatever was written is removed when that
    fails."""
    try:
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` in one step: a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write_synced(temporary, data)
    os.replace(temporary, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
