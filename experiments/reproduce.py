"""Everything behind the tables of success: demonstrations → keypoints → anticipation → policies.

    python experiments/reproduce.py --suite main

A suite is a list of cells (task, reward, tracker, views, observation, seeds). Their jobs run as
processes, one a core; each has its log beside its product. Kill it at any moment: the same command
goes on where it was. Finished cells are written to --results as they come.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Literal

import tyro
from harness import HarnessArgs, carry_out, joined

from relam_jax import cli
from relam_jax.report.cells import SUITES, Cell
from relam_jax.report.reproduction import write_summary


@dataclass(frozen=True)
class Args(HarnessArgs):
    """Arguments of the command line."""

    suite: Literal["main", "one_view", "baselines", "ten", "tracked", "maniskill", "all"] = "main"
    """Which cells; all: those of Meta-World."""
    tasks: str = ""
    """Only these tasks of the suite, comma separated."""
    cells: str = ""
    """Only these cells of all suites, by the names of their files, comma separated."""


def chosen_cells(args: Args) -> list[Cell]:
    """The cells of the suite that `tasks` and `cells` leave. ValueError if one of them is none."""
    metaworld = [name for name in SUITES if name != "maniskill"]
    names = SUITES if args.cells else metaworld if args.suite == "all" else [args.suite]
    cells = [cell for name in names for cell in SUITES[name]]
    for words, key in ((args.tasks, "task"), (args.cells, "name")):
        wanted = [w.strip() for w in words.split(",") if w.strip()]
        unknown = sorted(set(wanted) - {getattr(cell, key) for cell in cells})
        if unknown:
            known = ", ".join(dict.fromkeys(getattr(cell, key) for cell in cells))
            raise ValueError(f"no cell has the {key} {unknown[0]}: there are {known}")
        cells = [cell for cell in cells if not wanted or getattr(cell, key) in wanted]
    return [
        replace(
            cell,
            num_seeds=args.seeds or cell.num_seeds,
            env_steps=args.total_env_steps or cell.env_steps,
        )
        for cell in cells
    ]


def main() -> None:
    """Command line."""
    args = tyro.cli(Args, args=joined(sys.argv[1:]), description=__doc__)
    raise SystemExit(carry_out(chosen_cells(args), args, write_summary))


if __name__ == "__main__":
    cli.run(main)
