"""What the method sees in the demonstrations: keypoints, keyframes, anticipated subgoals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relam_jax.anticipation.dataset import PlanExamples, build_examples
from relam_jax.anticipation.model import AnticipationModel, roll_out
from relam_jax.anticipation.plan import Anticipation
from relam_jax.anticipation.train import plan_error, split_clips
from relam_jax.keypoints.keyframes import Keyframes
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
from relam_jax.report.keypoints import keypoint_section
from relam_jax.report.pictures import interesting, subgoal_picture
from relam_jax.report.run_folder import RunFolder, demonstrations, run_anticipation

POINTS_SHOWN = 5
"""Points an entity and view in the pictures of subgoals."""


class Demonstrations(NamedTuple):
    """The records of a run, seen with its anticipation model."""

    records: list[KeypointRecord]
    anticipation: Anticipation
    examples: PlanExamples
    held_out: np.ndarray
    """indices of the clips that the model was never trained on; of fewer than 5, of all."""
    kind: str
    """what those are: held-out or training."""

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
    split = split_clips(len(records), run.config.fit)
    return Demonstrations(records, anticipation, examples, split.test, split.kind)


def demonstrated_keypoints(demos: Demonstrations, videos: Path) -> dict[str, Any]:
    """What the rules of the run made of its records, which are of `videos`, one held-out clip in
    detail."""
    examples, anticipation = demos.examples, demos.anticipation
    found = Keyframes(examples.frames[:, 1:], examples.counts_alone)
    shown = int(demos.held_out[0])
    rules = anticipation.selection, anticipation.keyframes
    judged = [demos.records[i] for i in demos.held_out]
    return keypoint_section(demos.records, shown, *rules, found, judged, videos) | {
        "which": f"{demos.kind.capitalize()} demonstration",
        "kind": demos.kind,
    }


# ---------------------------------------------------------------- anticipation


def anticipation_section(
    demos: Demonstrations, runs: Sequence[RunFolder], names: Sequence[str]
) -> dict[str, Any]:
    """Anticipated and true keyframes of a held-out clip, the errors of all held-out ones, and of
    several runs those of each; `demos` are of the first."""
    fit = runs[0].config.fit
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
        "kind": demos.kind,
        "trained": trained,
        "stop_accuracy": error.stop_accuracy,
        "verified": bool(same),
        "models": model_rows(runs, names) if len(runs) > 1 else [],
    }


def model_rows(runs: Sequence[RunFolder], names: Sequence[str]) -> list[dict[str, Any]]:
    """What each run's model says of itself: clips it was trained on (None where the records are not
    here) and free-running error by subgoal, image sides; runs without a model are left out."""
    rows = []
    for run, name in zip(runs, names, strict=True):
        try:
            error = run_anticipation(run.path, run.config).test_error
        except ValueError:
            continue
        number = demonstrations(run.config)["number"]
        trained = len(split_clips(number, run.config.fit).train) if number else None
        rows.append({"name": name, "trained": trained, "error": error, "median": np.median(error)})
    return rows


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
