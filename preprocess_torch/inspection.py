"""`python -m preprocess_torch inspect data/drawer_open`: one HTML page about a data set.

It shows one clip in detail, the keyframes of all, and why videos were rejected. Selection and
keyframe parameters are its own: records hold all candidates, nothing is tracked again.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import tyro
from jaxtyping import Int, UInt8
from markupsafe import Markup

from preprocess_torch.discover import find_clips
from preprocess_torch.errors import ClipError, UsageError
from preprocess_torch.store import file_name, json_lines
from preprocess_torch.video import parse_timing
from relam_jax.keypoints.keyframes import KeyframeConfig, find_keyframes
from relam_jax.keypoints.records import INFO, read_records
from relam_jax.keypoints.schema import KeypointRecord
from relam_jax.keypoints.selection import EpisodeTracks, SelectionConfig, select
from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.report.drawing import draw_points
from relam_jax.report.keypoints import keyframe_rows, keypoint_section
from relam_jax.report.page import environment, section
from relam_jax.report.pictures import frame_symbols
from relam_jax.report.svg import data_uri
from relam_jax.video import write_video

HEIGHT, TRAIL, MOST_FPS = 320, 24, 20.0
"""of the video, pixels; of the white lines, frames; of the video, frames a second: to follow it."""
MAX_PREVIEWS = 20
"""pictures of rejected videos, at most."""


@dataclass(frozen=True)
class InspectConfig:
    """Keypoint records → one HTML page."""

    data: Annotated[Path, tyro.conf.Positional]
    """data set that preprocess_torch made."""
    out: Path | None = None
    """page to write; default inspect.html in the data set's folder."""
    videos: Path | None = None
    """folder of its videos, to draw on, and of true tracks; default videos/<task>."""
    episode: str = ""
    """the one shown in detail; default the first."""
    selection: Annotated[SelectionConfig, tyro.conf.OmitArgPrefixes] = field(
        default_factory=SelectionConfig
    )
    """which candidates count."""
    keyframes: Annotated[KeyframeConfig, tyro.conf.OmitArgPrefixes] = field(
        default_factory=KeyframeConfig
    )
    """where the motions bend."""


def inspect(config: InspectConfig, args: list[str]) -> Path:
    """Write the page, which quotes the command's `args`; returns its file.

    Raises `UsageError` when there is nothing to show, or no such episode.
    """
    records, lines = _read(config.data)
    shown = _index(records, config)
    context: dict[str, Any] = {
        "name": config.data.resolve().name,
        "records": len(records),
        "accepted": [_row(line) for line in lines if line.get("status") == "ok"],
        "rejected": _rejected(config.data, lines),
        "command": shlex.join(["python", "-m", "preprocess_torch", "inspect", *args]),
        "frames": Markup(""),
        "made": None,
        "episode": "",
    }
    none = {"missing": "No video was tracked."}
    context["sections"] = {"preview": none, "videos": none, "keypoints": none}
    if records:
        record = records[shown]
        context |= {"frames": frame_symbols(record), "made": _made(record)}
        context |= {"episode": record.video_id, "sections": _sections(records, shown, config)}
    out = config.out or config.data / "inspect.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(
        out, environment().get_template("inspect.html").render(context).encode("utf-8", "replace")
    )
    return out


def _read(data: Path) -> tuple[list[KeypointRecord], list[dict[str, Any]]]:
    """All records, and the lines of the manifest, if there is one."""
    lines = list({x.get("video_id"): x for x in json_lines(data / "manifest.jsonl")}.values())
    try:
        if not (data / INFO).exists() and any(line.get("status") == "failed" for line in lines):
            return [], lines
        return read_records(data), lines
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def _index(records: list[KeypointRecord], config: InspectConfig) -> int:
    """Where the episode to show is among the records."""
    names = [record.episode_id for record in records]
    if config.episode and config.episode not in names:
        raise UsageError(
            f"--episode {config.episode}: {config.data} has {', '.join(names[:8])}"
            + (" …" if len(names) > 8 else "")
        )
    return names.index(config.episode) if config.episode else 0


def _sections(
    records: list[KeypointRecord], shown: int, config: InspectConfig
) -> dict[str, dict[str, Any]]:
    chosen = [select(record, config.selection) for record in records]
    found = find_keyframes(chosen, config.keyframes)
    lengths = [record.num_frames for record in records]
    numbers = keypoint_section(
        records,
        shown,
        config.selection,
        config.keyframes,
        found,
        judged=records,
        videos=_folder(config, records[shown]),
    )
    return {
        "preview": section(lambda: {"uri": _preview(config.data, records[shown].video_id)}),
        "videos": section(
            lambda: {"videos": _videos(config, records[shown], chosen[shown], found.frames[shown])}
        ),
        "keypoints": numbers
        | {
            "which": "Clip",
            "kind": "",
            "missing": "",
            "rows": keyframe_rows(found, lengths, shown),
        },
    }


def _folder(config: InspectConfig, record: KeypointRecord) -> Path:
    return config.videos or Path("videos") / record.task


def _videos(
    config: InspectConfig,
    record: KeypointRecord,
    chosen: EpisodeTracks,
    keyframes: Int[np.ndarray, " S"],
) -> list[tuple[str, str]]:
    """(view, video as a data URI) of a clip with its keypoints. Raises `ValueError`, `OSError`."""
    asked = json.loads(record.provenance).get("parameters", {})
    start, end = asked.get("trim") or ("", "")
    timing = parse_timing(
        asked.get("fps", 0.0), f"{start}:{end if end != 'inf' else ''}" if end else ""
    )
    folder = _folder(config, record)
    if not folder.is_dir():
        raise UsageError(f"No video: there is no folder {folder}; --videos names it.")
    clips = {clip.episode_id: clip for clip in find_clips(folder)}
    views = (
        {v.name: v for v in clips[record.episode_id].views} if record.episode_id in clips else {}
    )
    videos = []
    for v, name in enumerate(record.view_names):
        if name not in views or views[name].source.digest() != record.source_sha256[v]:
            raise ClipError(
                f"No video: {folder} no longer holds the file from which {name} of "
                f"{record.video_id} was tracked; --videos names another folder."
            )
        frames = views[name].source.read(timing).frames
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "clip.mp4"
            fps = min(record.fps or MOST_FPS, MOST_FPS)
            write_video(file, _drawn(frames, chosen, keyframes, v), fps, crf=24)
            videos.append((name, data_uri("video/mp4", file.read_bytes())))
    return videos


def _drawn(
    frames: UInt8[np.ndarray, "T H W 3"],
    chosen: EpisodeTracks,
    keyframes: Int[np.ndarray, " S"],
    view: int,
) -> Iterator[UInt8[np.ndarray, "Height Width 3"]]:
    """The frames of a view with the chosen keypoints and where they are at the next keyframe."""
    height, width = frames.shape[1:3]
    size = (2 * round(HEIGHT * width / height / 2), HEIGHT)
    points, seen = chosen.points[:, view], chosen.visibility[:, view]
    for t, image in enumerate(frames):
        ahead = keyframes[min(np.searchsorted(keyframes, t, "right"), len(keyframes) - 1)]
        trails = points[max(0, t - TRAIL) : t + 1]
        yield draw_points(image, size, points[t], points[ahead], seen[t], trails)


def _preview(data: Path, video_id: str) -> str:
    """A preview as a small data URI. Raises `ValueError` when it is not there."""
    file = data / "previews" / f"{file_name(video_id)}.png"
    image = cv2.imread(str(file)) if file.is_file() else None
    if image is None:
        raise ClipError(f"No picture of the masks: {file} is missing or damaged.")
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    return data_uri("image/jpeg", jpeg)


def _rejected(data: Path, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Why each video that failed did, with a picture of the masks where one was made."""
    rows = []
    for line in lines:
        if line.get("status") != "ok":
            row = {k: line.get(k, "") for k in ("video_id", "reason")}
            row |= {"files": line.get("files", []), "uri": ""}
            if len(rows) < MAX_PREVIEWS:
                shown = section(lambda row=row: {"uri": _preview(data, str(row["video_id"]))})
                row["uri"] = shown.get("uri", "")
            rows.append(row)
    return rows


def _row(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the manifest as words."""
    points = line.get("points", {})
    words = ", ".join(f"{name} {'/'.join(map(str, n))}" for name, n in points.items())
    numbers = {k: line.get(k, "–") for k in ("video_id", "frames", "seen", "seconds")}
    return numbers | {"points": words or "–"}


def _made(record: KeypointRecord) -> dict[str, Any]:
    """What the head of the page says of how records came about."""
    provenance = json.loads(record.provenance)
    parameters = provenance.get("parameters", {})
    return {
        "segmenter": parameters.get("segmenter", {}).get("name", "unknown"),
        "tracker": parameters.get("tracker", {}).get("name", "unknown"),
        "views": record.view_names,
        "entities": record.entity_names,
        "provenance": json.dumps(provenance, indent=2),
    }
