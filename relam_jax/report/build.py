"""Puts the sections together into one HTML file; what is missing becomes a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from markupsafe import Markup

from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.report.curves import curve_section, success_shares
from relam_jax.report.demonstration import (
    Demonstrations,
    anticipation_section,
    demonstrated_keypoints,
    read_demonstrations,
)
from relam_jax.report.evaluation import in_words
from relam_jax.report.page import environment, section
from relam_jax.report.pictures import frame_symbols
from relam_jax.report.progress import reward_section
from relam_jax.report.robustness import FILE as ROBUSTNESS
from relam_jax.report.run_folder import (
    RunFolder,
    command_line,
    demonstrations,
    read_run,
    run_anticipation,
)
from relam_jax.report.shift_map import robustness_section
from relam_jax.report.statistics import Interval, outcomes, success_interval
from relam_jax.report.svg import data_uri
from relam_jax.report.timing import timing_section
from relam_jax.report.true_progress import true_progress_section
from relam_jax.training.provenance import provenance

MAX_VIDEO_BYTES = 3 << 20
"""Videos are put in until their sum would pass this."""

NUMBERS = {
    "keypoints": ("judged", "quality"),
    "anticipation": ("held_out", "trained", "stages", "stop_accuracy", "models"),
    "reward": ("clips", "num_stages", "table"),
    "true_progress": ("episodes", "env_steps", "num_stages", "table"),
}
"""Of the sections, what is written as JSON too."""


def write_report(paths: Sequence[Path], out: Path) -> list[str]:
    """Write the report on one or more runs; all but the curves and the table is about the first.

    The numbers of its tables go into a JSON file beside it. Returns what is missing, a sentence
    each.

    Raises:
        ValueError: one of `paths` is no run.
    """
    runs = [read_run(path) for path in paths]
    context = build_context(runs)
    templates = environment()
    templates.filters |= {"interval": interval, "duration": duration}
    templates.globals["hardware"] = hardware_words
    page = templates.get_template("report.html").render(context)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, page.encode())
    write_atomic(out.with_suffix(".json"), (json.dumps(numbers(context), indent=1) + "\n").encode())
    return [s["missing"] for s in context["sections"].values() if s.get("missing")]


def numbers(context: dict[str, Any]) -> dict[str, Any]:
    """What the tables about demonstrations, model and reward say, with date, commit and machine."""
    found = {
        name: {k: context["sections"][name][k] for k in keys}
        for name, keys in NUMBERS.items()
        if not context["sections"][name]["missing"]
    }
    return {"runs": [str(run.path) for run in context["runs"]], **found, "made": context["made"]}


def build_context(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """All that the template shows."""
    names = run_names(runs)
    rows = [summary_row(run, name) for run, name in zip(runs, names, strict=True)]
    first, demos = runs[0], _Once(lambda: read_demonstrations(runs[0]))
    sections = {
        "curves": section(lambda: curve_section(runs)),
        "keypoints": section(
            lambda: demonstrated_keypoints(demos.get(), first.config.videos_folder)
        ),
        "anticipation": section(lambda: anticipation_section(demos.get(), runs, names)),
        "reward": section(lambda: reward_section(demos.get(), first)),
        "true_progress": section(lambda: true_progress_section(first)),
        "timing": section(lambda: timing_section(first)),
        "videos": section(lambda: video_section(runs, names)),
    }
    if (first.path / ROBUSTNESS).exists():
        sections["robustness"] = section(lambda: robustness_section(first.path / ROBUSTNESS))
    try:
        frames = frame_symbols(demos.get().shown)
    except (ValueError, OSError):
        frames = Markup("")
    return {
        "title": first.config.task,
        "rows": rows,
        "runs": runs,
        "names": names,
        "sections": sections,
        "frames": frames,
        "made": provenance(),
        "setup": [setup(run, name) for run, name in zip(runs, names, strict=True)],
    }


class _Once:
    """A value that several sections need, or the error that all of them show."""

    def __init__(self, make: Callable[[], Demonstrations]) -> None:
        self.make, self.value, self.error = make, None, None

    def get(self) -> Demonstrations:
        if self.value is None and self.error is None:
            try:
                self.value = self.make()
            except (ValueError, OSError) as error:
                self.error = error
        if self.value is None:
            raise ValueError(str(self.error))
        return self.value


# ---------------------------------------------------------------- words and numbers


def interval(value: Interval | dict[str, float]) -> str:
    """`85 – 98 %`."""
    low, high = (value["low"], value["high"]) if isinstance(value, dict) else value[1:]
    return f"{100 * low:.0f} – {100 * high:.0f}\u202f%"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def hardware_words(hardware: dict[str, Any]) -> str:
    """`AMD EPYC, 2 cores, 25 GB`, and the accelerator if there is one."""
    cores, memory = hardware["cores"], hardware["memory_gb"]
    words = [hardware["cpu"], f"{cores} core{'s' if cores != 1 else ''}"]
    words += [f"{memory} GB"] if memory else []
    words += [hardware["jax_device"]] if hardware["jax_device"] != "cpu" else []
    return ", ".join(words)


def run_names(runs: Sequence[RunFolder]) -> list[str]:
    """Folder names, or whole paths where two folders are called alike."""
    short = [run.path.resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run.path) for run in runs]


# ---------------------------------------------------------------- sections


def summary_row(run: RunFolder, name: str) -> dict[str, Any]:
    """Success with its interval, of evaluation.json or else the last row of eval.csv, or None."""
    config, shares = run.config, success_shares(run)
    row: dict[str, Any] = {
        "name": name,
        "reward": config.reward,
        "observation": config.observation,
        "source": config.keypoints + (", occlusion" if config.occlusion else ""),
        "demos": demonstrations(config),
        "seeds": config.num_seeds,
        "episodes": config.eval_episodes,
        "views": "",
        "any": None,
        "in_time": None,
        "limit": config.episode_length,
        "training_limit": config.episode_length,
        "end": None,
        "stages": None,
        "env_steps": 0,
        "minutes": float(run.evals["minutes"][-1]) if "minutes" in run.evals else None,
    }
    try:
        row["views"] = len(run_anticipation(run.path, config).view_names)
    except ValueError:
        row["views"] = "?"
    if run.evaluation:
        e = run.evaluation
        row |= {"any": e["success_any"], "end": e["success_end"]["mean"]}
        row |= {"in_time": e["success_in_time"]["mean"]}
        row |= {"limit": e["episode_length"], "training_limit": e["training_episode_length"]}
        row |= {"stages": e["stages_met"]["mean"], "env_steps": e["env_steps"]}
        row |= {"episodes": e["episodes"], "of": "final evaluation"}
    elif len(shares):
        last = success_interval(outcomes(shares[-1], config.eval_episodes))
        row |= {"any": last._asdict(), "end": float(run.evals["success_end"][-1])}
        row |= {"in_time": last.mean}
        row |= {"stages": float(run.evals["stage"][-1]), "of": "last evaluation while training"}
        row |= {"env_steps": int(run.evals["env_steps"][-1])}
    return row


def video_section(runs: Sequence[RunFolder], names: Sequence[str]) -> dict[str, Any]:
    """Videos as data URIs: all of the first run, then the first of each other, while they fit."""
    wanted = [(names[0], path) for path in runs[0].videos]
    wanted += [(n, r.videos[0]) for n, r in zip(names[1:], runs[1:], strict=True) if r.videos]
    videos, size = [], 0
    for name, path in wanted:
        size += path.stat().st_size
        if size <= MAX_VIDEO_BYTES:
            words = f"{name}, {in_words(path.stem.split('.')[-1])}"
            videos.append((words, data_uri("video/mp4", path.read_bytes())))
    if not videos:
        raise ValueError(
            f"no videos of the policy: python experiments/evaluate.py --run {runs[0].path} makes "
            "them where a renderer works"
        )
    return {"videos": videos, "left_out": len(wanted) - len(videos)}


def setup(run: RunFolder, name: str) -> dict[str, Any]:
    """What it takes to make a run again."""
    return {
        "name": name,
        "path": str(run.path),
        "command": command_line(run.config),
        "config": json.dumps(asdict(run.config), indent=2),
        "starts": run.starts,
        "evaluation": run.evaluation,
    }
