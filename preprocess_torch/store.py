"""Finished records while a run goes on: one file a video, so that a kill loses at most the video
in work.

    <out>/.parts/<video>.tfrecord    one record; removed once the shards hold it
    <out>/manifest.jsonl             one line a video: status, why not, seconds, counts
    <out>/config.json                the settings all records share
    <out>/previews/<video>.png

At the end the parts, and the records of an earlier run that are still good, become the shards.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from preprocess_torch.errors import UsageError
from relam_jax.keypoints.records import (
    INFO,
    decode_record,
    read_examples,
    write_examples,
)
from relam_jax.keypoints.tfrecord import frame, read_frames, write_atomic


@dataclass
class Store:
    """The output folder of one data set; use as a context manager, which locks it."""

    out: Path
    _kept: dict[str, Path | int] = field(default_factory=dict)
    """key of a record → its part, or its place in the shards of an earlier run."""
    _lines: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: IO[str] | None = None
    _in_shards: list[str] = field(default_factory=list)

    @property
    def _parts(self) -> Path:
        return self.out / ".parts"

    @property
    def _manifest(self) -> Path:
        return self.out / "manifest.jsonl"

    def __enter__(self) -> Store:
        self.out.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.out / ".lock", "w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise UsageError(f"another run is writing to {self.out}: wait for it") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.close()  # the file stays: removing it could part two runs from one lock

    def open(self, settings: dict[str, Any], redo: bool) -> str | None:
        """Take stock of what earlier runs left. Returns a remark for the user, if there is one.

        Raises `UsageError` when the folder was made with other settings and `redo` is not given.
        """
        for pattern in ("*.tmp", ".*.tmp", ".parts/.*.tmp", "previews/.*.tmp"):
            for left_over in self.out.glob(pattern):
                left_over.unlink(missing_ok=True)
        file, text = self.out / "config.json", json.dumps(settings, indent=2, sort_keys=True)
        old = file.read_text() if file.exists() else None
        if old != text and not redo:
            if old is not None:
                raise UsageError(
                    f"{self.out} was made with other settings ({_changes(old, settings)}): "
                    "give another --out, or --redo to track all videos again"
                )
            if (self.out / INFO).exists():
                raise UsageError(
                    f"{self.out} holds a data set that preprocess_torch did not make: "
                    "give another --out, or --redo to replace it"
                )
        remark = self._take_stock() if old == text else None
        self._parts.mkdir(exist_ok=True)
        (self.out / "previews").mkdir(exist_ok=True)
        write_atomic(file, text.encode())
        return remark

    def _take_stock(self) -> str | None:
        for line in json_lines(self._manifest):
            self._lines[line.get("video_id", "")] = line
        remark = None
        if (self.out / INFO).exists():
            try:
                for index, example in enumerate(read_examples(self.out)):
                    self._in_shards.append(_key(example))
                    self._kept[self._in_shards[-1]] = index
            except (ValueError, OSError) as error:
                remark = f"{error}; its videos are tracked again"
                self._kept, self._in_shards = {}, []
        for part in sorted(self._parts.glob("*.tfrecord")):
            try:
                (example,) = read_frames(part)
                self._kept[_key(example)] = part
            except (ValueError, OSError):
                part.unlink(missing_ok=True)
        return remark

    def finished(self) -> frozenset[str]:
        """Keys of the records that are there."""
        return frozenset(self._kept)

    def add(self, key: str, video_id: str, example: bytes, preview: bytes) -> None:
        """Keep a finished record; once this returns, a kill does not lose it."""
        self.add_preview(video_id, preview)
        part = self._parts / f"{file_name(video_id)}.tfrecord"
        write_atomic(part, frame(example))
        self._kept[key] = part

    def add_preview(self, video_id: str, preview: bytes) -> Path:
        """Keep the preview of a video that failed; returns its file."""
        file = self.out / "previews" / f"{file_name(video_id)}.png"
        write_atomic(file, preview)
        return file

    def report(self, line: dict[str, Any]) -> None:
        """Append a line to the manifest."""
        self._lines[line["video_id"]] = line
        with open(self._manifest, "a") as file:
            file.write(json.dumps(line) + "\n")

    def line(self, video_id: str) -> dict[str, Any]:
        """What the manifest says of a video; empty when nothing."""
        return self._lines.get(video_id, {})

    def finish(self, keys: list[str], video_ids: list[str], views: int, slots: int) -> None:
        """Merge the records `keys` into shards, write the manifest in order, remove the parts."""
        if keys and (keys != self._in_shards or not (self.out / INFO).exists()):
            write_examples(self.out, self._examples(keys), views, slots)
        lines = [json.dumps(self._lines[v]) + "\n" for v in video_ids if v in self._lines]
        write_atomic(self._manifest, "".join(lines).encode())
        if keys:
            for part in self._parts.glob("*.tfrecord"):
                part.unlink()
            self._parts.rmdir()

    def _examples(self, keys: list[str]) -> Iterator[bytes]:
        """Serialised records in the order of `keys`; those in old shards come in nearly that
        order."""
        shards, ahead = enumerate(read_examples(self.out)) if self._in_shards else iter(()), {}
        for key in keys:
            place = self._kept[key]
            if isinstance(place, Path):
                (example,) = read_frames(place)
                yield example
                continue
            while place not in ahead:
                index, example = next(shards)
                ahead[index] = example
            yield ahead.pop(place)


def file_name(video_id: str) -> str:
    """A file name for a video, whatever characters its own name has; different for different
    videos."""
    episode = video_id.split("/", 1)[-1]
    name = quote(episode, safe=" ()+,-_", errors="surrogateescape")
    if name == episode and len(name) < 100 and name[0] != ".":
        return name
    digest = hashlib.sha256(episode.encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return f"{name[:80].lstrip('.')}-{digest}"


def _key(example: bytes) -> str:
    return str(json.loads(decode_record(example).provenance).get("key", ""))


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that are whole: a killed run may leave half a line."""
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def _changes(old: str, new: dict[str, Any]) -> str:
    """`points 64 → 128`, for the first settings that differ."""
    try:
        before = _flat(json.loads(old))
    except ValueError:
        return "config.json is damaged"
    after = _flat(new)
    keys = [k for k in sorted({*before, *after}) if before.get(k) != after.get(k)]
    named = [k for k in keys if k.endswith(".name")]
    return ", ".join(f"{k} {before.get(k)} → {after.get(k)}" for k in (named or keys)[:3])


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{prefix}{key}.") if isinstance(item, dict) else {prefix + key: item}
    return flat
