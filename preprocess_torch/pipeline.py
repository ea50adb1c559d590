"""One clip → one record: decode, segment the first frame, choose points, follow them.

`Engine` holds what is costly to build (models, later); `process_clip` changes nothing in it, so a
worker process or a Ray actor can hold one engine and be given clip after clip.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from preprocess_torch.config import MAX_POINTS, PreprocessConfig
from preprocess_torch.discover import Clip, View
from preprocess_torch.errors import ClipError, NotFoundError, UsageError
from preprocess_torch.models import sha256
from preprocess_torch.sampling import entity_queries
from preprocess_torch.segmenters import build_segmenter
from preprocess_torch.segmenters.base import Segmenter
from preprocess_torch.trackers import build_tracker
from preprocess_torch.trackers.base import Tracker
from preprocess_torch.video import Timing, Video, parse_timing
from relam_jax.keypoints.schema import SCHEMA_VERSION, KeypointRecord

PIPELINE_VERSION = 2
"""Raise it when records change for the same segmenter and tracker."""


@dataclass(frozen=True)
class Engine:
    """What a process needs to turn clips into records."""

    segmenter: Segmenter
    tracker: Tracker
    points: int
    """candidate slots an entity."""
    timing: Timing
    """which frames of a clip are taken."""
    cameras: tuple[str, ...]
    """views that are taken; all if empty."""

    def describe(self) -> dict[str, Any]:
        """All settings on which a record depends; clips are done again when it changes."""
        asked = {"fps": self.timing.fps, "cameras": list(self.cameras)}
        asked["trim"] = (
            []
            if self.timing == Timing(self.timing.fps)
            else [self.timing.start, str(self.timing.end)]
        )
        return {key: value for key, value in asked.items() if value} | {
            "schema": SCHEMA_VERSION,
            "pipeline": PIPELINE_VERSION,
            "points": self.points,
            "entities": list(self.segmenter.entities),
            "segmenter": self.segmenter.describe(),
            "tracker": self.tracker.describe(),
        }


@dataclass(frozen=True)
class Processed:
    """A record, and what the preview shows besides."""

    record: KeypointRecord
    masks: tuple[dict[str, Bool[np.ndarray, "H W"]], ...]
    """one a view."""
    edges: tuple[tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W 3"]], ...]
    """first and last frame, one pair a view."""


def build_engine(config: PreprocessConfig, folder: Path) -> Engine:
    """The segmenter and tracker for the videos in `folder`. Raises `UsageError`."""
    if not 1 <= config.points <= MAX_POINTS:
        raise UsageError(f"--points {config.points}: between 1 and {MAX_POINTS}, please")
    timing = parse_timing(config.fps, config.trim)
    cameras = tuple(name.strip() for name in config.cameras.split(",") if name.strip())
    return Engine(
        build_segmenter(config, folder), build_tracker(config), config.points, timing, cameras
    )


def clip_key(clip: Clip, engine: Engine) -> str:
    """Names the record that `clip` gives: a hash of its files' contents and of all settings."""
    digest = hashlib.sha256(json.dumps(engine.describe(), sort_keys=True).encode())
    digest.update(clip.video_id.encode("utf-8", "surrogateescape"))
    for view in clip.views:
        digest.update(f"\0{view.path.name}\0".encode("utf-8", "surrogateescape"))
        digest.update(_source_digest(view).encode())
        for path in (*engine.segmenter.inputs(view.path), *engine.tracker.inputs(view.path)):
            digest.update(f"\0{path.name}\0".encode("utf-8", "surrogateescape"))
            digest.update(sha256(path).encode() if path.is_file() else b"-")
    return digest.hexdigest()


def process_clip(clip: Clip, engine: Engine, key: str) -> Processed:
    """The record of a clip; `key` is kept in its provenance. Raises `ClipError`.

    The record depends on the files and the settings alone: the same ones give the same bytes.
    """
    videos = _read_views(clip, engine.timing)
    height, width = videos[0].frames.shape[1:3]
    slots = engine.points * len(engine.segmenter.entities)
    entity_id = np.repeat(np.arange(len(engine.segmenter.entities), dtype=np.int32), engine.points)
    shape = (len(videos), len(videos[0].frames), slots)
    tracks = np.zeros((*shape, 2), np.float32)
    visibility, confidence = np.zeros(shape, bool), np.zeros(shape, np.float32)
    all_masks = []
    for index, (view, video) in enumerate(zip(clip.views, videos, strict=True)):
        masks = engine.segmenter.segment(video.frames, view.path)
        used, queries = _choose(video, masks, engine)
        if len(used):
            out = engine.tracker.track(
                video.frames, queries, entity_id[used], view.path, _labels(masks, engine)
            )
            tracks[index][:, used] = out.points / np.array([width, height], np.float32)
            visibility[index][:, used], confidence[index][:, used] = out.visibility, out.confidence
        all_masks.append(masks)
    missing = [e for e in engine.segmenter.required if not any(e in masks for masks in all_masks)]
    if missing:
        prompts = engine.segmenter.describe().get("prompts", {})
        named = [f"{e} ({prompts[e]!r})" if e in prompts else e for e in missing]
        raise NotFoundError(
            f"no pixel of {' or '.join(named)} was found in the first frame",
            [video.frames[0] for video in videos],
            all_masks,
        )
    record = KeypointRecord(
        video_id=clip.video_id,
        episode_id=clip.episode_id,
        task=clip.task,
        fps=float(videos[0].fps),
        image_size=(height, width),
        view_names=tuple(view.name for view in clip.views),
        entity_names=engine.segmenter.entities,
        tracks=tracks,
        visibility=visibility,
        confidence=confidence,
        entity_id=entity_id,
        query_frame=0,
        first_frames=tuple(_jpeg(video.frames[0]) for video in videos),
        source_sha256=tuple(view.source.digest() for view in clip.views),
        provenance=_provenance(engine, key),
    )
    edges = tuple((video.frames[0], video.frames[-1]) for video in videos)
    return Processed(record, tuple(all_masks), edges)


def _read_views(clip: Clip, timing: Timing) -> list[Video]:
    """Decode all views and hold them against each other."""
    videos = []
    for view in clip.views:
        try:
            video = view.source.read(timing)
        except ClipError as error:
            raise ClipError(f"{view.path.name} {error}") from error
        if len(video.frames) < 2:
            raise ClipError(f"{view.path.name} has one frame: nothing can be tracked")
        videos.append(video)
    for what, axes in (("length", slice(0, 1)), ("picture size", slice(1, 3))):
        seen = [video.frames.shape[axes] for video in videos]
        if len(set(seen)) > 1:
            both = " and ".join("×".join(map(str, shape)) for shape in dict.fromkeys(seen))
            hint = "" if what == "length" else " (choose by --cameras)"
            raise ClipError(f"its views differ in {what}: {both}{hint}")
    return videos


def _choose(
    video: Video, masks: dict[str, np.ndarray], engine: Engine
) -> tuple[np.ndarray, np.ndarray]:
    """Slots that are filled in this view, and their query points (pixels from the corner)."""
    there = [i for i, name in enumerate(engine.segmenter.entities) if name in masks]
    wanted = [masks[engine.segmenter.entities[i]] for i in there]
    queries = entity_queries(video.frames[0], wanted, engine.points)
    used = [i * engine.points + np.arange(len(q)) for i, q in zip(there, queries, strict=True)]
    return (
        np.concatenate([np.zeros(0, np.int64), *used]),
        np.concatenate([np.zeros((0, 2), np.float32), *queries]),
    )


def _labels(masks: dict[str, np.ndarray], engine: Engine) -> np.ndarray:
    """(H, W) uint8: index of the entity + 1, 0 for none."""
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for index, name in enumerate(engine.segmenter.entities):
        if name in masks:
            labels[masks[name]] = index + 1
    return labels


def _provenance(engine: Engine, key: str) -> str:
    packages = ("numpy", "opencv-python-headless", "av")
    tools = {name: importlib.metadata.version(name) for name in packages}
    parameters = engine.describe()
    models = [
        parameters[part]["model"]
        for part in ("segmenter", "tracker")
        if "model" in parameters[part]
    ]
    return json.dumps(
        {
            "schema_version": SCHEMA_VERSION,
            "tools": tools,
            "models": models,
            "parameters": parameters,
            "seed": "crc32 of the first frame, one a view",
            "key": key,
        },
        sort_keys=True,
    )


def _jpeg(frame: np.ndarray) -> bytes:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), quality)[1].tobytes()


def _source_digest(view: View) -> str:
    try:
        return view.source.digest()
    except FileNotFoundError:
        return "-"
