"""Robot data sets as they are: LeRobot (v2.x and v3) and RLDS (TFDS) folders, read without either
library.

A LeRobot episode's views are the camera keys (`observation.images.front` is called `front`), as
videos or as pictures in Parquet. An RLDS episode's are the image fields of its steps'
observations. Label images go beside `meta/` or the TFRecords, as `episode_000007.front.masks.png`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocess_torch.discover import Clip, View
from preprocess_torch.errors import ClipError, UsageError
from preprocess_torch.sources import ParquetImages, RecordImages, Source, VideoFile, example_fields
from relam_jax.keypoints.tfrecord import frame_offsets, read_frame_at

OBSERVATION = "steps/observation/"


def is_lerobot(folder: Path) -> bool:
    """Whether a folder is a LeRobot data set."""
    return (folder / "meta" / "info.json").is_file()


def is_rlds(folder: Path) -> bool:
    """Whether a folder is a TFDS data set of TFRecords."""
    return (folder / "features.json").is_file() and any(folder.glob("*.tfrecord*"))


def lerobot_clips(folder: Path) -> list[Clip]:
    """The episodes of a LeRobot data set. Raises `UsageError` when its meta data are odd."""
    try:
        info = json.loads((folder / "meta" / "info.json").read_text())
        version = str(info["codebase_version"]).lstrip("v")
        kinds = {k: v["dtype"] for k, v in info["features"].items()}
        cameras = {k: kinds[k] for k in kinds if kinds[k] in ("video", "image")}
        episodes = _episodes_v3(folder) if version.startswith("3") else _episodes_v2(folder, info)
        names = short_names(list(cameras))
        clips = []
        for episode in episodes:
            index = int(episode["episode_index"])
            name = f"episode_{index:06d}"
            views = tuple(
                View(
                    names[key],
                    folder / f"{name}.{names[key]}.view",
                    _lerobot_source(folder, info, episode, key, kind == "video"),
                )
                for key, kind in cameras.items()
            )
            clips.append(Clip(folder.resolve().name, name, views))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{folder} is no LeRobot data set of version 2 or 3 that can be read "
            f"({type(error).__name__}: {error})"
        ) from error
    if not cameras:
        raise UsageError(f"{folder}: this LeRobot data set has no cameras")
    return sorted(clips, key=lambda clip: clip.episode_id)


def _episodes_v2(folder: Path, info: dict[str, Any]) -> list[dict[str, Any]]:
    lines = (folder / "meta" / "episodes.jsonl").read_text().splitlines()
    episodes = [json.loads(line) for line in lines if line.strip()]
    for episode in episodes:
        episode["episode_chunk"] = int(episode["episode_index"]) // int(info["chunks_size"])
    return episodes


def _episodes_v3(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as parquet

    files = sorted((folder / "meta" / "episodes").rglob("*.parquet"))
    if not files:
        raise ValueError("meta/episodes holds no Parquet files")
    rows = []
    for file in files:
        wanted = ("episode_index", "data/", "videos/")
        columns = [c for c in parquet.read_schema(file).names if c.startswith(wanted)]
        rows += parquet.read_table(file, columns=columns).to_pylist()
    return rows


def _lerobot_source(
    folder: Path, info: dict[str, Any], episode: dict[str, Any], key: str, video: bool
) -> Source:
    """Where the pictures of camera `key` are. v3 keeps many episodes in a file."""
    index = int(episode["episode_index"])
    where = {"episode_index": index, "video_key": key}
    if "episode_chunk" in episode:
        where["episode_chunk"] = episode["episode_chunk"]
        if video:
            return VideoFile(folder / info["video_path"].format(**where))
    else:
        prefix = f"videos/{key}/" if video else "data/"
        where |= {n: episode[prefix + n] for n in ("chunk_index", "file_index")}
        if video:
            span = (float(episode[f"{prefix}{end}_timestamp"]) for end in ("from", "to"))
            start, stop = span
            return VideoFile(folder / info["video_path"].format(**where), (start, stop))
    path = folder / info["data_path"].format(**where)
    return ParquetImages(path, key, index, float(info["fps"]))


def rlds_clips(folder: Path) -> list[Clip]:
    """The episodes of an RLDS data set. Raises `UsageError` when it has no pictures."""
    try:
        places = [
            (file, offset)
            for file in sorted(folder.glob("*.tfrecord*"))
            for offset in frame_offsets(file)
        ]
        fields = example_fields(read_frame_at(*places[0])) if places else {}
    except (ValueError, OSError, ClipError) as error:
        raise UsageError(f"{folder} cannot be read: {error}") from error
    keys = [k for k in sorted(fields) if k.startswith(OBSERVATION) and _is_picture(fields[k])]
    if not keys:
        raise UsageError(
            f"{folder} is a TFDS data set without episodes of pictures ({OBSERVATION}…): "
            "give a folder of videos, or of RLDS or LeRobot data"
        )
    names, clips = short_names(keys), []
    for index, (file, offset) in enumerate(places):
        name = f"episode_{index:06d}"
        views = tuple(
            View(names[key], folder / f"{name}.{names[key]}.view", RecordImages(file, offset, key))
            for key in keys
        )
        clips.append(Clip(folder.resolve().name, name, views))
    return clips


def _is_picture(values: Any) -> bool:
    """Whether a field's bytes are colour or grey pictures of 8 bits: no depth, no text."""
    if not values or not values[0][:4].startswith((b"\xff\xd8", b"\x89PNG")):
        return False
    image = cv2.imdecode(np.frombuffer(values[0], np.uint8), cv2.IMREAD_UNCHANGED)
    return image is not None and image.dtype == np.uint8


def short_names(keys: list[str]) -> dict[str, str]:
    """Camera key → its last part, or all of it where that is not unique; fit for a file's name."""
    last = {key: key.replace("/", ".").rsplit(".", 1)[-1] for key in keys}
    counts = Counter(last.values())
    return {key: last[key] if counts[last[key]] == 1 else key.replace(os.sep, ".") for key in keys}
