"""What selection and keyframe rules make of a set of records: pictures and distributions.

Needs no jax, so that `python -m preprocess_torch inspect` can draw the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from relam_jax.keypoints.keyframes import KeyframeConfig, Keyframes, fill_hidden
from relam_jax.keypoints.schema import KeypointRecord
from relam_jax.keypoints.selection import (
    EpisodeTracks,
    SelectionConfig,
    group_by_entity,
    motion_range,
    select,
    well_seen,
)
from relam_jax.report.pictures import selection_picture
from relam_jax.report.quality import keypoint_quality
from relam_jax.report.svg import INK, entity_colour, panel, run_colour, to_svg


def keypoint_section(
    records: Sequence[KeypointRecord],
    shown: int,
    selection: SelectionConfig,
    keyframes: KeyframeConfig,
    found: Keyframes,
    judged: Sequence[KeypointRecord],
    videos: Path | None = None,
) -> dict[str, Any]:
    """Pictures of the selection in record `shown`, a timeline of its keyframes, distributions over
    all records, and the quality of the keypoints of those that are `judged`, against true tracks if
    those lie beside `videos`."""
    record = records[shown]
    chosen = select(record, selection)
    values, clips = np.unique(found.counts_alone, return_counts=True)
    return {
        "episode": record.video_id,
        "pictures": [
            (name, selection_picture(record, chosen, v)) for v, name in enumerate(record.view_names)
        ],
        "candidates": [
            int(group_by_entity(record).visibility[0, v].sum()) for v in range(record.num_views)
        ],
        "entities": record.entity_names,
        "selection": selection,
        "keyframes": keyframes,
        "num_keyframes": found.frames.shape[1],
        "clips": len(records),
        "timeline": timeline(chosen, found.frames[shown]),
        "motion": motion_histogram(records, selection),
        "spread": ", ".join(
            f"{v} in {c} clip{'s' if c > 1 else ''}" for v, c in zip(values, clips, strict=True)
        ),
        "counts": keyframe_counts(found),
        "judged": len(judged),
        "quality": {
            name: quality._asdict()
            for name, quality in keypoint_quality(judged, selection, videos).items()
        },
        "height": record.image_size[0],
    }


def timeline(chosen: EpisodeTracks, keyframes: Int[np.ndarray, " S"]) -> Markup:
    """How far each entity has gone from where it began, with the keyframes as vertical lines."""
    figure, axes = panel("frame", "image sides")
    frames = len(chosen.points)
    flat = chosen.points.reshape(frames, -1, 2)
    filled = fill_hidden(flat, chosen.visibility.reshape(frames, -1)).reshape(chosen.points.shape)
    moved = np.linalg.norm(filled - filled[0], axis=-1)
    real, styles = np.any(chosen.visibility, axis=0), ("-", "--", ":", "-.")
    for v, e in np.argwhere(real.any(-1)):
        y = moved[:, v, e][:, real[v, e]].mean(1)
        axes.plot(y, styles[v % 4], color=entity_colour(int(e)), linewidth=1.6)
    for number, frame in enumerate(keyframes, start=1):
        axes.axvline(frame, color=INK, linewidth=0.8)
        axes.annotate(
            str(number), (frame, 1), xycoords=("data", "axes fraction"), xytext=(-3, -2),
            textcoords="offset points", ha="right", va="top", fontsize=9, color=INK,
        )  # fmt: skip
    axes.set_xlim(0, frames - 1)
    axes.set_ylim(bottom=0)
    return to_svg(figure, "displacement of the entities over the clip, with keyframes")


def motion_histogram(records: Sequence[KeypointRecord], selection: SelectionConfig) -> Markup:
    """Motion range of all well-seen candidates of all clips, an entity a colour, with Θ."""
    names = records[0].entity_names
    ranges: list[list[np.ndarray]] = [[] for _ in names]
    for record in records:
        tracks = group_by_entity(record)
        motion = motion_range(tracks.points, tracks.visibility)
        seen = well_seen(tracks, selection)
        for e in range(len(names)):
            ranges[e].append(motion[:, e][seen[:, e]])
    values = [np.concatenate(r) for r in ranges]
    top = max([selection.min_motion * 2, *(float(v.max()) for v in values if len(v))])
    bins = np.linspace(0, top, 41)
    figure, axes = panel("motion range, image sides", "candidates")
    for e in range(len(names)):
        axes.hist(values[e], bins=bins.tolist(), color=entity_colour(e), alpha=0.6)
    axes.axvline(selection.min_motion, color=INK, linewidth=1)
    axes.annotate(
        f"Θ = {selection.min_motion:g}", (selection.min_motion, 1),
        xycoords=("data", "axes fraction"), xytext=(4, -4), textcoords="offset points",
        va="top", fontsize=9, color=INK,
    )  # fmt: skip
    axes.set_xlim(0, top)
    return to_svg(figure, "histogram of the candidates' motion range")


def keyframe_counts(found: Keyframes) -> Markup:
    """How many keyframes the clips would have had each by itself, and how many they share."""
    counts, joint = found.counts_alone, found.frames.shape[1]
    figure, axes = panel("keyframes of a clip by itself", "clips")
    values = np.arange(1, max(int(counts.max()), joint) + 2)
    heights = [(counts == v).sum() for v in values]
    axes.bar(
        values, heights, width=0.7, color=[run_colour(0) if v == joint else INK for v in values]
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return to_svg(figure, "keyframes each clip would have had by itself")


def keyframe_rows(found: Keyframes, lengths: Sequence[int], shown: int) -> Markup:
    """A row a clip, a mark a keyframe; the clip `shown` in colour."""
    figure, axes = panel("frame", "clip")
    for row, (frames, length) in enumerate(zip(found.frames, lengths, strict=True)):
        colour = run_colour(0) if row == shown else INK
        axes.plot([0, length - 1], [row, row], color=colour, linewidth=0.5)
        axes.plot(frames, np.full(len(frames), row), "|", color=colour, markersize=5)
    axes.set_ylim(len(lengths) - 0.5, -0.5)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return to_svg(figure, "keyframes of all clips")
