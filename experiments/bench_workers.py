"""What tracking videos costs: frames/s and memory with 1 and 2 workers, and 10,000 hours on paper.

    python experiments/bench_workers.py
    RELAM_COTRACKER=~/co-tracker python experiments/bench_workers.py --tracker cotracker3 \
        --num 2 --trim 0:0.3

Runs `python -m preprocess_torch` on the first clips of a folder, with each number of workers, and
writes results/scale/<tracker>.json. CoTracker3 runs upstream's code with random weights: its time
does not depend on their values. CPU time is what counts on a machine that does other work too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tyro

from preprocess_torch.config import NETWORKS
from preprocess_torch.discover import find_clips
from preprocess_torch.errors import UsageError
from relam_jax.keypoints.records import read_records
from relam_jax.training.provenance import provenance

PER_POINT = {"cotracker3": 209e-6, "cotracker3_online": 405e-6}
"""GPU-seconds a frame and point: Table 2 of the CoTracker3 paper (arXiv 2410.11831), a mean over 1
to 10,000 points."""
SUPPORT, OVERLAP = 36, 60 / 48
"""Points that are tracked besides, and how often a frame is seen (chunks of 60, 12 of overlap)."""
PROMPT_SECONDS = 3.0
"""A picture and prompt of EVF-SAM on a T4: "few seconds per image" (its README)."""


@dataclass(frozen=True)
class Args:
    """Arguments of the command line."""

    data: Path = Path("videos/drawer_open")
    """clips of which the first are taken."""
    num: int = 8
    """episodes."""
    trim: str = ""
    """part of each clip, as preprocess_torch has it."""
    tracker: str = "lucas_kanade"
    """what follows the points."""
    workers: tuple[int, ...] = (1, 2)
    """numbers of workers to try."""
    fps: float = 10.0
    """of the videos on paper."""
    points: int = 128
    """a view, of the videos on paper: two entities."""
    clip_seconds: float = 10.0
    """length of a clip on paper."""
    hours: float = 10_000.0
    """of video on paper, one view."""
    gpus: int = 64
    """on paper."""
    cache: Path = Path(".cache/scale")
    """clips, weights and records, made anew each time."""
    out: Path = Path("results/scale")
    """folder of the JSON file."""


def random_weights(tracker: str, file: Path) -> Path:
    """Weights of CoTracker3 as upstream initialises them. Raises `UsageError` without its code."""
    from preprocess_torch.models import import_torch, import_upstream

    torch = import_torch()
    upstream: Any = import_upstream(
        "cotracker.predictor", None, "set RELAM_COTRACKER", "RELAM_COTRACKER", "CoTracker3"
    )
    torch.manual_seed(0)
    online = tracker == "cotracker3_online"
    make = upstream.CoTrackerOnlinePredictor if online else upstream.CoTrackerPredictor
    torch.save(make(checkpoint=None).model.state_dict(), file)
    return file


def few_clips(args: Args) -> Path:
    """A folder with the first clips alone."""
    folder = args.cache / "videos" / args.data.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for clip in find_clips(args.data)[: args.num]:
        for view in clip.views:
            for file in args.data.glob(f"{view.path.stem}.*"):
                shutil.copy(file, folder)
    shutil.copy(args.data / "masks.json", folder)
    return folder


def measure(command: list[str], out: Path) -> dict[str, float]:
    """Run it; CPU and memory of it and all that it starts. Raises `UsageError` if it fails."""
    shutil.rmtree(out, ignore_errors=True)
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - begun
    if status:
        raise UsageError(f"{' '.join(command)} failed")
    records = read_records(out)
    frames = sum(record.num_frames * record.num_views for record in records)
    cpu = used.ru_utime + used.ru_stime
    return {
        "clips": len(records),
        "frames": frames,
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "frames_per_cpu_second": round(frames / cpu, 2),
        "frames_per_second": round(frames / wall, 2),
        "largest_process_mib": round(used.ru_maxrss / 1024),
    }


def on_paper(args: Args, frames_per_cpu_second: float) -> dict[str, float]:
    """What the hours of video take: core hours here, GPU hours from what is published."""
    frames = args.hours * 3600 * args.fps
    estimate = {"hours": args.hours, "fps": args.fps, "points": args.points, "gpus": args.gpus}
    estimate["core_seconds_per_hour_of_video"] = 3600 * args.fps / frames_per_cpu_second
    estimate["core_hours"] = frames / frames_per_cpu_second / 3600
    if args.tracker in PER_POINT:
        point_frames = frames * (args.points + SUPPORT)
        point_frames *= OVERLAP if args.tracker == "cotracker3" else 2  # windows of 16, step 8
        estimate["tracking_gpu_hours"] = point_frames * PER_POINT[args.tracker] / 3600
        clips = args.hours * 3600 / args.clip_seconds
        estimate["segmenting_t4_hours"] = 2 * clips * PROMPT_SECONDS / 3600
        estimate["tracking_days"] = estimate["tracking_gpu_hours"] / args.gpus / 24
        estimate["segmenting_days"] = estimate["segmenting_t4_hours"] / args.gpus / 24
    return {name: round(value, 2) for name, value in estimate.items()}


def main(args: Args) -> int:
    """Measure, print, write."""
    try:
        folder = few_clips(args)
        command = [sys.executable, "-m", "preprocess_torch", "--data", str(folder)]
        command += ["--tracker", args.tracker, *(("--trim", args.trim) if args.trim else ())]
        if args.tracker in NETWORKS:
            file = random_weights(args.tracker, args.cache / f"{args.tracker}.pth")
            command += ["--tracker_checkpoint", str(file), "--device", "cpu"]
        runs = []
        for workers in args.workers:
            out = args.cache / "data" / f"{args.tracker}-{workers}" / args.data.name
            run = measure([*command, "--out", str(out), "--workers", str(workers)], out)
            runs.append({"workers": workers, **run})
            print(", ".join(f"{name} {value}" for name, value in runs[-1].items()))
    except (UsageError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    paper = on_paper(args, runs[0]["frames_per_cpu_second"])
    print(json.dumps(paper, indent=1))
    result = {
        "what": "cost of tracking videos; CPU seconds include starting up and loading models",
        "args": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(args).items()},
        "load": round(os.getloadavg()[0], 1),
        **provenance(),
        "runs": runs,
        "on_paper": paper,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{args.tracker}.json").write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(tyro.cli(Args, description=__doc__)))
