"""Score point trackers against the simulator's truth: TAP-Vid's numbers, a row a task and entity.

    python experiments/bench_tracking.py --tasks drawer_open door_open --num 3

Records the clips once, with truth, into `.cache/tracking/<task>` (experiments/record_demos.py),
tracks the points that preprocess_torch would choose in the label images, prints the table and
writes `results/tracking/<tracker>.json`. The masks are perfect here; real ones are not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import tyro
from tqdm import tqdm

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.discover import Clip, find_clips
from preprocess_torch.errors import ClipError, UsageError
from preprocess_torch.pipeline import Engine, build_engine, process_clip
from preprocess_torch.scoring import TrackScore, score_tracks
from preprocess_torch.trackers.truth import truth_file
from relam_jax.envs import truth
from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.training.provenance import provenance

TUNED = ("drawer_open", "door_open", "window_open", "button_press", "push", "faucet_close")
"""Tasks by which trackers of this repository were chosen."""
OTHERS = (
    *("door_close", "drawer_close", "window_close", "handle_press", "lever_pull"),
    *("coffee_button", "button_press_wall"),
)
COLUMNS = {
    "delta_avg": "δ_avg",
    "delta_moving": "δ_moving",
    "jaccard": "AJ",
    "occlusion": "OA",
    "mean_error": "mean px",
    "median_error": "median px",
    "seen_error": "seen px",
    "final_error": "final px",
}


@dataclass(frozen=True)
class Args:
    """Arguments of the command line."""

    tasks: tuple[str, ...] = TUNED + OTHERS
    """tasks of Meta-World to record and score."""
    num: int = 3
    """episodes a task, two views each."""
    tracker: str = "lucas_kanade"
    """tracker to score."""
    points: int = 64
    """points an entity and view."""
    videos: Path | None = None
    """folder of folders of videos with truth, a folder a task, instead of recording them."""
    cache: Path = Path(".cache/tracking")
    """where the clips and their truth are kept."""
    out: Path = Path("results/tracking")
    """folder of the JSON file."""


def record(args: Args, task: str) -> Path:
    """The folder of clips with truth of a task, recorded if neither given nor there yet."""
    if args.videos:
        return args.videos / task
    folder = args.cache / f"{task}-{args.num}"
    if not (folder / "demos.json").exists():
        script = Path(__file__).with_name("record_demos.py")
        command = [sys.executable, str(script), "--task", task, "--num", str(args.num)]
        command += ["--out", str(folder), "--truth", "--overwrite"]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise UsageError(f"{task} could not be recorded: {last}")
    return folder


def score_clip(clip: Clip, engine: Engine) -> dict[str, list[TrackScore]]:
    """Scores of each entity, one a view in which it is seen."""
    record = process_clip(clip, engine, key="bench").record
    scores: dict[str, list[TrackScore]] = defaultdict(list)
    for view, source in enumerate(clip.views):
        true = truth.load(truth_file(source.path))
        for entity, name in enumerate(record.entity_names):
            slots = (record.entity_id == entity) & record.visibility[view, 0]
            if slots.any():
                tracks = record.tracks[view][:, slots]
                visible = record.visibility[view][:, slots]
                scores[name].append(score_tracks(tracks, visible, *true.tracks(tracks[0])))
    return scores


def average(scores: list[TrackScore]) -> dict[str, float]:
    """Mean over clips and views, of those where a number exists."""
    columns = {f.name: np.array([getattr(s, f.name) for s in scores]) for f in fields(TrackScore)}
    return {
        name: round(float(values[np.isfinite(values)].mean()), 3)
        for name, values in columns.items()
        if np.isfinite(values).any()
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """A row a task and entity."""
    print(f"{'task':16}{'entity':10}" + "".join(f"{title:>10}" for title in COLUMNS.values()))
    for row in rows:
        cells = "".join(f"{row.get(name, float('nan')):10.2f}" for name in COLUMNS)
        print(f"{row['task']:16}{row['entity']:10}{cells}")


def main(args: Args) -> int:
    """Record, track, score; exit code 1 if no task could be scored."""
    rows, seconds, frames, path = [], 0.0, 0, args.out / f"{args.tracker}.json"
    args.out.mkdir(parents=True, exist_ok=True)
    for task in tqdm(args.tasks, unit="task", disable=None):
        by_entity: dict[str, list[TrackScore]] = defaultdict(list)
        try:
            folder = record(args, task)
            config = PreprocessConfig(data=folder, tracker=args.tracker, points=args.points)
            engine = build_engine(config, folder)
            for clip in find_clips(folder)[: args.num]:
                started = time.process_time()
                for entity, scores in score_clip(clip, engine).items():
                    by_entity[entity] += scores
                seconds += time.process_time() - started
                frames += len(clip.views)
        except (UsageError, ClipError, FileNotFoundError) as error:
            tqdm.write(f"{task}: {error}", file=sys.stderr)
            continue
        rows += [{"task": task, "entity": e, **average(s)} for e, s in by_entity.items()]
        result = {
            "what": "TAP-Vid scores against simulator truth, 256 px, perfect masks",
            "args": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(args).items()},
            "engine": engine.describe(),
            "threads": 1,
            **provenance(),
            "cpu_seconds_per_clip_and_view": round(seconds / frames, 3),
            "rows": rows,
        }
        write_atomic(path, (json.dumps(result, indent=1) + "\n").encode())
    if not rows:
        print("no task could be scored", file=sys.stderr)
        return 1
    print_table(rows)
    print(f"{args.tracker}: {seconds / frames:.2f} CPU-seconds a clip and view, all included")
    print(f"written to {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Args, description=__doc__)))
