"""What the method sees in the demonstrations: keypoints, keyframes, anticipated subgoals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from relam_jax.anticipation.dataset import PlanExamples, build_examples
from relam_jax.anticipation.model import AnticipationModel, roll_out
from relam_jax.anticipation.plan import Anticipation
from relam_jax.anticipation.train import FitConfig, plan_error, split_clips
from relam_jax.keypoints.keyframes import fill_hidden
from relam_jax.keypoints.records import read_records
from relam_jax.keypoints.schema import KeypointRecord
from relam_jax.keypoints.selection import (
    EpisodeTracks,
    choose,
    group_by_entity,
    motion_range,
    select,
    well_seen,
)
from relam_jax.report.pictures import interesting, selection_picture, subgoal_picture
from relam_jax.report.run_folder import RunFolder, run_anticipation
from relam_jax.report.svg import INK, entity_colour, panel, run_colour, to_svg

POINTS_SHOWN = 5
"""Points an entity and view in the pictures of subgoals."""


class Demonstrations(NamedTuple):
    """The records of a run, seen with its anticipation model."""

    records: list[KeypointRecord]
    anticipation: Anticipation
    examples: PlanExamples
    held_out: np.ndarray
    """indices of the clips that the model was never trained on."""

    @property
    def shown(self) -> KeypointRecord:
        """The held-out record that the report draws."""
        return self.records[self.held_out[0]]

    @property
    def chosen(self) -> EpisodeTracks:
        """Its keypoints."""
        return select(self.shown, self.anticipation.selection)


def read_demonstrations(run: RunFolder) -> Demonstrations:
    """Read a run's records and model, and find the keyframes again.

    Raises:
        ValueError, FileNotFoundError: one of them is not there or does not fit the other.
    """
    anticipation = run_anticipation(run.path, run.config)
    records = read_records(run.data_folder)
    examples = build_examples(records, anticipation.selection, anticipation.keyframes)
    known = (anticipation.view_names, anticipation.entity_names)
    if known != (examples.view_names, examples.entity_names):
        raise ValueError(
            f"the records at {run.data_folder} have the views {examples.view_names} and entities "
            f"{examples.entity_names}, the anticipation model {known[0]} and {known[1]}"
        )
    if examples.points.shape[1] - 1 > anticipation.model.max_stages:
        raise ValueError(f"the records at {run.data_folder} have more keyframes than the model")
    held_out = split_clips(len(records), run.config.fit).test
    return Demonstrations(records, anticipation, examples, held_out)


# ---------------------------------------------------------------- keypoints and keyframes


def keypoint_section(demos: Demonstrations) -> dict[str, Any]:
    """Pictures of the selection, a timeline of keyframes, and distributions over all clips."""
    record, chosen = demos.shown, demos.chosen
    counts = demos.examples.counts_alone
    values, clips = np.unique(counts, return_counts=True)
    candidates = [
        int(group_by_entity(record).visibility[0, v].sum()) for v in range(record.num_views)
    ]
    return {
        "episode": record.video_id,
        "pictures": [
            (name, selection_picture(record, chosen, v)) for v, name in enumerate(record.view_names)
        ],
        "candidates": candidates,
        "entities": record.entity_names,
        "selection": demos.anticipation.selection,
        "keyframes": demos.anticipation.keyframes,
        "num_keyframes": int(demos.examples.num_stages[demos.held_out[0]]),
        "clips": len(demos.records),
        "timeline": timeline(demos),
        "motion": motion_histogram(demos),
        "spread": ", ".join(
            f"{v} in {c} clip{'s' if c > 1 else ''}" for v, c in zip(values, clips, strict=True)
        ),
        "counts": keyframe_counts(demos),
    }


def timeline(demos: Demonstrations) -> Markup:
    """How far each entity has gone from where it began, with the keyframes as vertical lines."""
    chosen = demos.chosen
    figure, axes = panel("frame", "image sides")
    frames = len(chosen.points)
    flat = chosen.points.reshape(frames, -1, 2)
    filled = fill_hidden(flat, chosen.visibility.reshape(frames, -1)).reshape(chosen.points.shape)
    moved = np.linalg.norm(filled - filled[0], axis=-1)
    real, styles = np.any(chosen.visibility, axis=0), ("-", "--", ":", "-.")
    for v, e in np.argwhere(real.any(-1)):
        y = moved[:, v, e][:, real[v, e]].mean(1)
        axes.plot(y, styles[v % 4], color=entity_colour(int(e)), linewidth=1.6)
    for number, frame in enumerate(demos.examples.frames[demos.held_out[0]][1:], start=1):
        axes.axvline(frame, color=INK, linewidth=0.8)
        axes.annotate(
            str(number), (frame, 1), xycoords=("data", "axes fraction"), xytext=(-3, -2),
            textcoords="offset points", ha="right", va="top", fontsize=9, color=INK,
        )  # fmt: skip
    axes.set_xlim(0, frames - 1)
    axes.set_ylim(bottom=0)
    return to_svg(figure, "displacement of the entities over the clip, with keyframes")


def motion_histogram(demos: Demonstrations) -> Markup:
    """Motion range of all well-seen candidates of all clips, an entity a colour, with Θ."""
    selection, names = demos.anticipation.selection, demos.anticipation.entity_names
    ranges: list[list[np.ndarray]] = [[] for _ in names]
    for record in demos.records:
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


def keyframe_counts(demos: Demonstrations) -> Markup:
    """How many keyframes the clips would have had each by itself, and how many they share."""
    counts, joint = demos.examples.counts_alone, int(demos.examples.num_stages.max())
    figure, axes = panel("keyframes of a clip by itself", "clips")
    values = np.arange(1, max(int(counts.max()), joint) + 2)
    heights = [(counts == v).sum() for v in values]
    axes.bar(
        values, heights, width=0.7, color=[run_colour(0) if v == joint else INK for v in values]
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    return to_svg(figure, "keyframes each clip would have had by itself")


# ---------------------------------------------------------------- anticipation


def anticipation_section(demos: Demonstrations, fit: FitConfig) -> dict[str, Any]:
    """Anticipated and true keyframes of a held-out clip, and the errors of all held-out ones."""
    model, held_out = AnticipationModel(demos.anticipation.model), demos.held_out
    examples, record, params = demos.examples, demos.shown, demos.anticipation.params
    error = plan_error(model, params, examples, held_out)
    clip, stages = held_out[0], int(examples.num_stages[held_out[0]])
    points, seen = examples.points[clip], examples.visibility[clip]
    plan = jax.jit(roll_out, static_argnums=(0, 4))(
        model, params, jnp.asarray(points[None, 0]), examples.first_seen[None, clip], stages
    ).subgoals
    few = _few(demos, int(clip))
    pictures = []
    for v, view in enumerate(record.view_names):
        crop = interesting(record, demos.chosen, v)
        row = [
            subgoal_picture(
                record, v, crop, s, points[s], points[s + 1], np.asarray(plan)[0, s],
                few & seen[0] & seen[s + 1],
            )
            for s in range(stages)
        ]  # fmt: skip
        pictures.append((view, row))
    height = record.image_size[0]
    trained = len(split_clips(len(demos.records), fit).train)
    own, free = np.asarray(demos.anticipation.test_error), np.asarray(error.free_running)
    known = np.isfinite(error.by_group)
    same = len(own) == len(free) and np.allclose(free, own, rtol=0.05, atol=2e-4)
    return {
        "episode": record.video_id,
        "pictures": pictures,
        "stages": [
            {
                "number": s + 1,
                "forced": float(error.teacher_forced[s]),
                "free": float(free[s]),
                "forced_px": float(error.teacher_forced[s] * height),
                "free_px": float(free[s] * height),
                "worst": float(np.max(error.by_group[s], initial=0, where=known[s])),
            }
            for s in range(len(free))
        ],
        "height": height,
        "held_out": len(held_out),
        "trained": trained,
        "stop_accuracy": error.stop_accuracy,
        "verified": bool(same),
    }


def _few(demos: Demonstrations, clip: int) -> np.ndarray:
    """(V, E, C) mask of a few candidates that lie far apart and move."""
    selection = demos.anticipation.selection
    tracks = group_by_entity(demos.records[clip])
    exempt = np.isin(demos.anticipation.entity_names, selection.goal_entities)
    indices, valid = choose(
        tracks.points[0],
        well_seen(tracks, selection),
        motion_range(tracks.points, tracks.visibility),
        exempt,
        replace(selection, num_keypoints=POINTS_SHOWN),
    )
    few = np.zeros(tracks.visibility.shape[1:], bool)
    np.put_along_axis(few, np.asarray(indices), np.asarray(valid), axis=-1)
    return few
