"""What lies in a run folder, read without assuming that the run is finished."""

from __future__ import annotations

import csv
import json
import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from relam_jax.anticipation.plan import Anticipation, load_anticipation
from relam_jax.keypoints.records import read_records
from relam_jax.presets import preset
from relam_jax.training.config import TrainConfig, from_json
from relam_jax.training.provenance import read_provenance

Columns = dict[str, Float[np.ndarray, " R"]]
"""A CSV file by column, R whole rows."""


@dataclass(frozen=True)
class RunFolder:
    """One run; what is missing is None or empty."""

    path: Path
    config: TrainConfig
    evaluation: dict[str, Any] | None
    """evaluation.json of experiments/evaluate.py."""
    evals: Columns
    """eval.csv of the training loop."""
    train: Columns
    """train.csv of the training loop."""
    starts: list[dict[str, Any]]
    """provenance of each start."""

    @property
    def anticipation_folder(self) -> Path:
        """Where its anticipation model lies: the one it was given, else its own."""
        return anticipation_folder(self.path, self.config)

    @property
    def video_model_folder(self) -> Path:
        """Where the video model of its reward lies, by the same rule."""
        return replace(self.config, out=str(self.path)).video_model_folder

    @property
    def data_folder(self) -> Path:
        """Where its keypoint records lie."""
        return self.config.records_folder

    @property
    def videos(self) -> list[Path]:
        """Videos of the last evaluation that are there."""
        names = self.evaluation["videos"] if self.evaluation else []
        return [self.path / name for name in names if (self.path / name).exists()]


def read_run(path: Path) -> RunFolder:
    """Read a run folder, whatever of it is there.

    Raises:
        ValueError: there is no run, or a file of it is damaged or of another version.
    """
    config = read_config(path)
    evaluation = None
    if (path / "evaluation.json").exists():
        try:
            evaluation = json.loads((path / "evaluation.json").read_text())
        except json.JSONDecodeError as error:
            message = f"{path / 'evaluation.json'} is damaged ({error}): evaluate again"
            raise ValueError(message) from error
    return RunFolder(
        path,
        config,
        evaluation,
        read_csv(path / "eval.csv"),
        read_csv(path / "train.csv"),
        read_provenance(path),
    )


def read_config(path: Path) -> TrainConfig:
    """The config of a run. ValueError where there is none, or it is of another version."""
    if not (path / "config.json").exists():
        raise ValueError(
            f"no run at {path} (no config.json): train one with experiments/train.py --out {path}"
        )
    return from_json((path / "config.json").read_text())


def read_csv(path: Path) -> Columns:
    """Columns of a log, without rows that are being written or hold no numbers; no file is {}."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    names, values = (rows[0] if rows else []), []
    for row in rows[1:]:
        try:
            numbers = [float(x) for x in row]
        except ValueError:
            continue
        if len(numbers) == len(names):
            values.append(numbers)
    if not values:
        return {}
    table = np.array(values)
    return {name: table[:, i] for i, name in enumerate(names)}


def anticipation_folder(run: Path, config: TrainConfig) -> Path:
    """Where a run's anticipation model lies: the one it was given, else its own."""
    return Path(config.anticipation) if config.anticipation else run / "anticipation"


def run_anticipation(run: Path, config: TrainConfig) -> Anticipation:
    """The anticipation model that a run was trained with. ValueError where there is none."""
    return load_anticipation(anticipation_folder(run, config))


def demonstrations(config: TrainConfig) -> dict[str, Any]:
    """How many demonstrations, and what made their tracks; None where the data is not here."""
    try:
        records = read_records(config.records_folder)
        parameters = json.loads(records[0].provenance).get("parameters", {})
    except (OSError, ValueError):
        return {"number": None, "tracker": None, "segmenter": None}
    names = {k: parameters.get(k, {}).get("name") for k in ("tracker", "segmenter")}
    return {"number": len(records)} | names


def command_line(config: TrainConfig) -> str:
    """The experiments/train.py command of a config: what differs from the task's preset."""
    words = ["python", "experiments/train.py", "--task", config.task]

    def add(prefix: str, values: dict[str, Any], defaults: dict[str, Any]) -> None:
        for name, value in values.items():
            flag = f"--{prefix}{name}"
            if isinstance(value, dict):
                add(f"{prefix}{name}.", value, defaults[name])
            elif value == defaults[name] or flag == "--task":
                continue
            elif isinstance(value, bool):
                words.append(flag if value else f"--{prefix}no-{name}")
            elif isinstance(value, (tuple, list)):
                words.extend([flag, *map(str, value)])
            else:
                words.extend([flag, str(value)])

    add("", asdict(config), asdict(preset(config.task)))
    return shlex.join(words)
