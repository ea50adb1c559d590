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


def read_frames(path: Path) -> Iterator[bytes]:
    """The payloads of a TFRecord file, in order.

    Raises `ValueError` with the file and the record at fault when a frame is cut off or a check
    sum differs.
    """
    with open(path, "rb") as file:
        left, index = os.fstat(file.fileno()).st_size, 0
        while left:
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise ValueError(f"{path} is cut off in record {index}")
            length, check = _HEADER.unpack(header)
            if masked_crc(header[:8]) != check:
                raise ValueError(f"{path} is corrupt: the length of record {index} fails its check")
            left -= _HEADER.size + length + _FOOTER.size
            if left < 0:
                raise ValueError(f"{path} is cut off in record {index}")
            payload = file.read(length)
            if masked_crc(payload) != _FOOTER.unpack(file.read(_FOOTER.size))[0]:
                raise ValueError(f"{path} is corrupt: record {index} fails its check")
            yield payload
            index += 1


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
