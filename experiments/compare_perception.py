"""From pixel error to anticipation error: the same videos, seen in three ways, in one table.

    python experiments/compare_perception.py --tasks drawer_open button_press

`motion` finds the entities by what moves and follows them by Lucas-Kanade, `masks` takes them from
the simulator's label images, `truth` also takes the simulator's own tracks. A row says where the
points lie, how far off they are tracked, and what that does to the anticipation model: its error on
clips never trained on, against its own tracks (all that one can know without a simulator) and
against the true ones of the same points. Kill it at any moment: the same command goes on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tyro
from bench_tracking import average
from fit_anticipation import fitted
from PIL import Image
from train import parse

from preprocess_torch.errors import UsageError
from preprocess_torch.scoring import score_tracks
from preprocess_torch.segmenters.masks import label_image
from preprocess_torch.trackers.truth import truth_file
from relam_jax.anticipation.dataset import PlanExamples, at_moments, build_examples, moments
from relam_jax.anticipation.model import AnticipationModel
from relam_jax.anticipation.plan import load_anticipation
from relam_jax.anticipation.train import FitConfig, plan_error, split_clips
from relam_jax.envs import truth
from relam_jax.keypoints.records import read_records
from relam_jax.keypoints.schema import KeypointRecord
from relam_jax.keypoints.selection import group_by_entity, well_seen
from relam_jax.training.provenance import provenance

HERE = Path(__file__).parent
SOURCES = {
    "motion": ("--segmenter", "motion", "--entities", "gripper,object"),
    "masks": (),
    "truth": ("--tracker", "truth"),
}
COLUMNS = (
    *("clips", "gripper_on", "object_on", "gripper_px", "object_px", "own", "true", "true_last"),
)


@dataclass(frozen=True)
class Args:
    """Arguments of the command line."""

    tasks: tuple[str, ...] = ("drawer_open", "button_press")
    """Meta-World tasks."""
    num: int = 30
    """episodes a task, two views each."""
    videos: Path | None = None
    """folder of folders of videos with truth, a folder a task, instead of recording them."""
    fit: bool = True
    """fit the models that are missing; else say of those rows where the points are alone."""
    fit_args: str = ""
    """more arguments of the fits, in one word: `--fit_args="--fit.num_steps 500"`."""
    cache: Path = Path(".cache/perception")
    """videos, records and models."""
    out: Path = Path("results/perception")
    """folder of the JSON files, one a task."""


def call(log: Path, *words: object) -> None:
    """Run a Python program, its words into `log`. Raises `UsageError` with its last line."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        command = [sys.executable, *map(str, words)]
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode
    if code:
        last = (log.read_text(errors="replace").strip() or "no message").splitlines()[-1]
        raise UsageError(f"{log.stem} failed: {last} (see {log})")


def make(args: Args, task: str, source: str) -> tuple[Path, Path, Path]:
    """The folders of videos, records and model, made where they are not there yet."""
    videos = args.videos / task if args.videos else args.cache / "videos" / task
    if not (videos / "demos.json").exists():
        words = ("--task", task, "--num", args.num, "--out", videos, "--truth", "--overwrite")
        call(args.cache / f"record-{task}.log", HERE / "record_demos.py", *words)
    data = args.cache / "data" / source / task
    words = ("-m", "preprocess_torch", "--data", videos, "--out", data, *SOURCES[source])
    call(args.cache / f"track-{task}-{source}.log", *words)  # what is finished is skipped
    model = args.cache / "models" / source / task
    more = args.fit_args.split()
    if not fitted(model, parse(["--task", task, *more])[0]) and args.fit:
        words = ("--task", task, "--data", data, "--out", model, *more)
        call(args.cache / f"fit-{task}-{source}.log", HERE / "fit_anticipation.py", *words)
    return videos, data, model


def true_record(record: KeypointRecord, videos: Path) -> KeypointRecord:
    """The record with the true tracks of its points."""
    tracks, visibility = record.tracks.copy(), record.visibility.copy()
    for view, name in enumerate(record.view_names):
        real = record.visibility[view, 0]
        true = truth.load(truth_file(video_file(record, videos, name)))
        tracks[view][:, real], visibility[view][:, real] = true.tracks(record.tracks[view, 0, real])
    return replace(record, tracks=np.nan_to_num(tracks), visibility=visibility)


def video_file(record: KeypointRecord, videos: Path, view: str) -> Path:
    """The clip of a view of a record."""
    return videos / f"{record.episode_id}.{view}.mp4"


def pixel_scores(
    records: list[KeypointRecord], true: list[KeypointRecord], videos: Path
) -> dict[str, dict[str, float]]:
    """Of each entity: TAP-Vid's scores, and the share of its points that lie on it, in %."""
    names = {name: int(i) for i, name in json.loads((videos / "masks.json").read_text()).items()}
    found: dict[str, dict[str, float]] = {}
    for entity, name in enumerate(records[0].entity_names):
        scores, on = [], []
        for own, real in zip(records, true, strict=True):
            height, width = own.image_size
            for view, view_name in enumerate(own.view_names):
                slots = (own.entity_id == entity) & own.visibility[view, 0]
                if not slots.any():
                    continue
                own_tracks, real_tracks = own.tracks[view][:, slots], real.tracks[view][:, slots]
                seen, truly = own.visibility[view][:, slots], real.visibility[view][:, slots]
                scores.append(score_tracks(own_tracks, seen, real_tracks, truly))
                labels = np.asarray(Image.open(label_image(video_file(own, videos, view_name))))
                column, row = (own_tracks[0] * (width, height)).astype(int).T
                on.append(float((labels[row, column] == names[name]).mean()))
        found[name] = average(scores) | {"on": round(100 * float(np.mean(on)), 1)}
    return found


def against_truth(
    examples: PlanExamples, true: list[KeypointRecord], selection: Any, leeway: float
) -> PlanExamples:
    """The same clips and keyframes, with the points where they truly are."""
    points, around, visibility = [], [], []
    for record, at in zip(true, examples.frames, strict=True):
        tracks = group_by_entity(record)
        points.append(tracks.points[at])
        around.append(at_moments(tracks, moments(at, leeway)))
        visibility.append(tracks.visibility[at] & well_seen(tracks, selection))
    return examples._replace(
        points=np.stack(points).astype(np.float32),
        around=np.stack(around).astype(np.float32),
        visibility=np.stack(visibility),
    )


def anticipation_errors(
    records: list[KeypointRecord], true: list[KeypointRecord], model: Path
) -> dict[str, list[float]]:
    """Free-running error a subgoal on the clips never trained on, image sides."""
    anticipation = load_anticipation(model)
    settings = json.loads((model / "settings.json").read_text())
    test = split_clips(len(records), FitConfig(**settings["fit"])).test
    examples = build_examples(records, anticipation.selection, anticipation.keyframes)
    leeway = anticipation.keyframes.leeway
    truly = against_truth(examples, true, anticipation.selection, leeway)
    network = AnticipationModel(anticipation.model)
    return {
        name: plan_error(network, anticipation.params, some, test).free_running.round(5).tolist()
        for name, some in (("own", examples), ("true", truly))
    }


def row_of(task: str, source: str, videos: Path, data: Path, model: Path) -> dict[str, Any]:
    """What there is to say of one way of seeing a task's videos."""
    records = read_records(data)
    true = [true_record(record, videos) for record in records]
    pixels = pixel_scores(records, true, videos)
    row: dict[str, Any] = {"task": task, "source": source, "clips": len(records)}
    row |= {f"{name}_on": scores["on"] for name, scores in pixels.items()}
    row |= {f"{name}_px": scores.get("median_error", 0.0) for name, scores in pixels.items()}
    row["pixels"] = pixels
    if (model / "config.json").exists():
        errors = anticipation_errors(records, true, model)
        row |= {name: round(float(np.mean(errors[name])), 5) for name in errors}
        row |= {"true_last": errors["true"][-1], "errors": errors}
    return row


def print_table(rows: list[dict[str, Any]]) -> None:
    """A row a task and source."""
    print(f"{'task':14}{'source':8}" + "".join(f"{title:>12}" for title in COLUMNS))
    for row in rows:
        cells = (row.get(name, float("nan")) for name in COLUMNS)
        print(f"{row['task']:14}{row['source']:8}" + "".join(f"{cell:12.4g}" for cell in cells))


def main(args: Args) -> int:
    """Make what is missing, one after the other; exit code 1 if a cell could not be made."""
    rows, failed = [], False
    for task in args.tasks:
        mine = []
        for source in SOURCES:
            try:
                mine.append(row_of(task, source, *make(args, task, source)))
            except (UsageError, ValueError, FileNotFoundError) as error:
                print(f"{task}, {source}: {error}", file=sys.stderr)
                failed = True
                continue
            print_table(mine[-1:])
        result = {
            "what": "one set of videos, three ways of seeing it; errors in image sides of 256 px",
            "args": {k: str(v) for k, v in asdict(args).items()},
            **provenance(),
            "rows": mine,
        }
        if mine:
            args.out.mkdir(parents=True, exist_ok=True)
            (args.out / f"{task}.json").write_text(json.dumps(result, indent=1) + "\n")
        rows += mine
    print_table(rows)
    return int(failed or not rows)


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Args, description=__doc__)))
