"""How much each knob of the method matters: its factors, and a table and a figure of each.

A factor is one setting that takes several values while all others keep their defaults. What a value
does is looked at on the way from the demonstrations to the policy: at the keypoints, the
anticipation model's held-out error, and success.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import PercentFormatter

from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.report.cells import INTERVAL, Cell, read_results
from relam_jax.report.quality import shown
from relam_jax.report.reproduction import (
    evaluated,
    grid,
    plan_error,
    reached_at,
    thousands,
)
from relam_jax.report.svg import INK, panel, run_colour, to_svg
from relam_jax.report.tables import markdown, percent

Value = int | float | str


@dataclass(frozen=True)
class Factor:
    """One setting and the values it takes."""

    name: str
    symbol: str
    """What the method calls it, and its unit."""
    option: str
    """Argument of experiments/train.py."""
    values: tuple[Value, ...]
    others: tuple[str, ...] = ()
    """Further arguments without which it has no effect."""

    def train_args(self, value: Value) -> tuple[str, ...]:
        """The arguments of experiments/train.py that give it this value."""
        return (*self.others, self.option, str(value))


ANGLE = ("--keyframes.selector", "angle")
FACTORS = (
    Factor("min_motion", "Θ, image sides", "--selection.min_motion", (0.0, 0.02, 0.05, 0.1, 0.2)),
    Factor("num_keypoints", "K", "--selection.num_keypoints", (1, 2, 4, 8)),
    Factor(
        "tolerance",
        "waypoint tolerance, image sides",
        "--keyframes.tolerance",
        (0.005, 0.01, 0.02, 0.04),
    ),
    Factor("min_gap", "m, share of a clip", "--keyframes.min_gap", (0.05, 0.1, 0.2), ANGLE),
    Factor("max_gap", "M, share of a clip", "--keyframes.max_gap", (0.2, 0.4, 0.6), ANGLE),
    Factor(
        "num_clips",
        "demonstrations trained on (0: all that are not held out)",
        "--fit.num_clips",
        (1, 5, 10, 20, 0),
    ),
    Factor(
        "success_floor",
        "least θ_s, image sides",
        "--shaping.success_floor",
        (0.005, 0.01, 0.02, 0.04),
    ),
    Factor("form", "φ", "--shaping.form", ("linear", "gaussian", "tanh", "exp")),
    Factor("stage_bonus", "bonus a stage", "--shaping.stage_bonus", (0.0, 0.3, 1.0)),
    Factor("final_bonus", "bonus at the goal", "--shaping.final_bonus", (0.0, 0.3, 1.0)),
)

COLUMNS = (
    *("value", "keypoints an entity", "in sight %", "apart %", "off the truth"),
    *("subgoals", "plan error"),
    *("seeds × episodes", "budget", "success % [95 % CI]", "in training's time %"),
    "env_steps to 95 %",
)
NOTE = f"""\
One setting at a time, all others at their defaults (bold: the default). Keypoints an entity: mean
over views and demonstrations. In sight: share of the frames in which they are seen. Apart: from one
to the nearest of another demonstration, each placed in the box of its entity, share of the box's
diagonal. Off the truth: median distance to the simulator's tracks. Plan error: median over the
subgoals, on clips never trained on. Both in thousandths of an image side. Budget, success and time:
as in the Meta-World table; interval: {INTERVAL}.
"""


def write_sensitivity(
    results: Path,
    cells: Mapping[str, Sequence[tuple[Value, Cell]]],
    quality: Mapping[str, dict[str, float]],
) -> None:
    """Write table.md and a figure a factor from the cells that lie in the folder `results`.

    `cells` are the values of each factor by its name, `quality` what `overall` says of the cells by
    theirs.
    """
    found = {result["cell"]: result for result in read_results(results)}
    parts = []
    for factor in FACTORS:
        rows = [
            (value, cell, found[cell.name])
            for value, cell in cells.get(factor.name, ())
            if cell.name in found
        ]
        if rows:
            figure = f"{factor.name}.svg"
            write_atomic(results / figure, _figure(factor, rows).encode())
            parts += [
                f"## {factor.name}: {factor.symbol}\n",
                markdown(COLUMNS, (_row(*row, quality) for row in rows)),
                f"![success and plan error against {factor.symbol}]({figure})\n",
            ]
    write_atomic(results / "table.md", "\n".join([*parts, NOTE]).encode())


def _row(
    value: Value, cell: Cell, result: dict[str, Any], quality: Mapping[str, dict[str, float]]
) -> tuple[str, ...]:
    subgoals = result["anticipation"]["held_out_error"]
    return (
        str(value) if cell.variant else f"**{value}**",
        *shown(quality.get(cell.name, {})),
        str(len(subgoals)) if subgoals else "–",
        plan_error(result),
        evaluated(result),
        thousands(result["env_steps"]),
        percent(result["success_any"]),
        percent(result["success_in_time"]),
        reached_at(result, 95, "env_steps"),
    )


def _figure(factor: Factor, rows: Sequence[tuple[Value, Cell, dict[str, Any]]]) -> str:
    """Success with its interval, and the plan's error of each subgoal, a place a value."""
    places = np.arange(len(rows))
    success, axes = panel(factor.symbol)
    axes.set_title("success within training's time", loc="left", fontsize=9, color=INK)
    for x, (_, _, result) in zip(places, rows, strict=True):
        if (interval := result["success_in_time"]) is not None:
            axes.plot([x, x], [interval["low"], interval["high"]], color=run_colour(0), lw=1.6)
            axes.plot(x, interval["mean"], "o", color=run_colour(0))
    axes.set(ylim=(-0.03, 1.03))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    plan, errors = panel(factor.symbol)
    errors.set_title("plan error, ‰ of an image side", loc="left", fontsize=9, color=INK)
    for x, (_, _, result) in zip(places, rows, strict=True):
        error = 1000 * np.array(result["anticipation"]["held_out_error"] or [])
        errors.plot(np.full(len(error), x), error, "o", color=run_colour(1), alpha=0.4, mew=0)
        if len(error):
            errors.plot([x - 0.2, x + 0.2], [np.median(error)] * 2, color=run_colour(1), lw=2)
    errors.set(ylim=(0, None))
    for panel_axes in (axes, errors):
        panel_axes.set(xlim=(-0.5, len(rows) - 0.5))
        panel_axes.set_xticks(places, [str(value) for value, _, _ in rows])
    return grid(
        [
            to_svg(success, f"success against {factor.symbol}"),
            to_svg(plan, f"plan error against {factor.symbol}"),
        ]
    )
