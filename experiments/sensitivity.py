"""How much each knob of the method matters: one setting at a time, from cached tracks to success.

    python experiments/sensitivity.py --task drawer_open --factors form,success_floor

Demonstrations are recorded and tracked once; settings and seeds run side by side, one process a
core. Kill it at any moment: the same command goes on where it was. Tables and figures are written
to results/sensitivity/<task>-<tracker> as settings finish.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro
from harness import HarnessArgs, carry_out, joined
from train import parse

from relam_jax import cli
from relam_jax.keypoints.records import read_records
from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.report.cells import BUDGETS, Cell
from relam_jax.report.quality import keypoint_quality, overall
from relam_jax.report.sensitivity import FACTORS, Value, write_sensitivity

Settings = dict[str, list[tuple[Value, Cell]]]


@dataclass(frozen=True)
class Args(HarnessArgs):
    """Arguments of the command line."""

    task: str = "drawer_open"
    """A Meta-World task."""
    tracker: Literal["truth", "lucas_kanade"] = "truth"
    """Of the demonstrations; truth: the simulator's own, in which Θ finds no false tracks."""
    factors: str = ",".join(factor.name for factor in FACTORS)
    """Which, comma separated."""
    seeds: int = 2
    """Seeds a setting."""
    results: Path = Path("results/sensitivity")
    """Folder of the tables, figures and raw logs of each task and tracker."""


def chosen_settings(args: Args) -> Settings:
    """The values of the chosen factors; what makes the same run is one cell, whatever the factor.

    Raises:
        ValueError: there is no such factor.
    """
    known = [factor.name for factor in FACTORS]
    names = [name.strip() for name in args.factors.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no factor is called {unknown[0]}: there are {', '.join(known)}")
    if not names:
        raise ValueError(f"--factors names none: there are {', '.join(known)}")
    budget = args.total_env_steps or BUDGETS.get(args.task, 48_000)
    base = Cell(args.task, budget, tracker=args.tracker, num_seeds=args.seeds)
    task = ["--task", args.task]
    cells, settings = {parse(task)[0]: base}, {}
    for factor in FACTORS:  # the chosen or not, so that a cell's name does not depend on the choice
        settings[factor.name] = []
        for value in factor.values:
            words = factor.train_args(value)
            cell = replace(base, train_args=words, variant=f"{factor.name}_{value}")
            cell = cells.setdefault(parse([*task, *words])[0], cell)
            settings[factor.name].append((value, cell))
    return {name: settings[name] for name in names}


def summarise(settings: Settings, args: Args, results: Path) -> None:
    """Rewrite the tables and figures of what there is."""
    results.mkdir(parents=True, exist_ok=True)
    file = results / "keypoints.json"
    quality = json.loads(file.read_text()) if file.exists() else {}
    cells = {cell.name: cell for rows in settings.values() for _, cell in rows}
    data = args.out / "data" / next(iter(cells.values())).records
    if not cells.keys() <= quality.keys() and (data / "dataset_info.json").exists():
        records = read_records(data)
        chosen = {
            name: parse(["--task", cell.task, *cell.train_args])[0].selection
            for name, cell in cells.items()
        }
        videos = args.out / "videos" / args.task
        of = {s: overall(keypoint_quality(records, s, videos)) for s in set(chosen.values())}
        quality |= {name: of[selection] for name, selection in chosen.items()}
        write_atomic(file, (json.dumps(quality, indent=1) + "\n").encode())
    write_sensitivity(results, settings, quality)


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, args=joined(sys.argv[1:]), description=__doc__)
    args = replace(args, results=args.results / f"{args.task}-{args.tracker}")
    settings = chosen_settings(args)
    cells = list(dict.fromkeys(cell for rows in settings.values() for _, cell in rows))
    raise SystemExit(carry_out(cells, args, lambda results: summarise(settings, args, results)))


if __name__ == "__main__":
    cli.run(main)
