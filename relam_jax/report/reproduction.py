"""Tables and plots of `make reproduce-metaworld` and `make reproduce-maniskill`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from relam_jax.diffusion.fit import NATS
from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.report.cells import INTERVAL, LEVELS, SUITES, read_results, reward_name
from relam_jax.report.comparison import comparable, comparison
from relam_jax.report.curves import tracker_plots
from relam_jax.report.svg import INK, SIZE, panel, run_colour, to_svg
from relam_jax.report.tables import markdown, percent

TRUE = tuple(cell for cell in SUITES["main"] if cell.tracker == "truth")
CUBE, *_ = SUITES["maniskill"]
LEARNED = tuple(
    cell for cell in SUITES["baselines"] + SUITES["maniskill"] if cell.reward in ("dacfo", *NATS)
)
"""Baselines whose reward is learned from demonstrations."""
FIGURES = {
    "main": SUITES["main"] + tuple(cell for cell in SUITES["baselines"] if cell not in LEARNED),
    "learned": (*TRUE, CUBE, *LEARNED),
    "observation": TRUE + SUITES["one_view"],
    "ten": SUITES["ten"],
    "tracked": SUITES["tracked"],
    "maniskill": tuple(cell for cell in SUITES["maniskill"] if cell not in LEARNED),
}
"""Cells that are plotted together."""
GAP = 14
"""Between panels, points."""


# ---- table ----

COLUMNS = (
    *("task", "reward", "keypoints", "views", "observation", "demonstrations", "seeds × episodes"),
    "budget",
    *("success % [95 % CI]", "in training's time %", "env_steps to 50 %", "env_steps to 95 %"),
    *("minutes to 50 %", "minutes to 95 %", "plan error", "commit"),
)
NOTE = f"""\
Success: the simulator's flag at any step of an episode of the benchmark's length (500 env_steps in
Meta-World, 50 in ManiSkill), on initial states never trained on, at the end of the budget;
interval: {INTERVAL}.
Budget: env_steps a seed. In training's time: the same within the episodes of training (Meta-World:
150 env_steps).
Time to x %: the first evaluation during training, within its time, with so many successes; median
over seeds (never counts as later than any time; –: most never did) and how many seeds got there.
Minutes: wall time of training and evaluating; the JSON of a cell names the machine. Demonstrations:
what tracked them.
Plan error: median over the subgoals, thousandths of an image side, on clips never trained on.
Commit: of the code that evaluated, oldest seed first. Rows of other commits have the defaults of
their day (CHANGELOG.md).
`partial`: seeds are missing, and the numbers are of the finished ones alone.
"""


def table(results: Iterable[dict[str, Any]]) -> str:
    """Markdown, a row a cell."""
    return markdown(COLUMNS, map(_row, results)) + "\n" + NOTE


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    remark = "" if result["complete"] else " (partial)"
    remark += "" if result["one_config"] else " (settings differ between seeds)"
    times = [
        reached_at(result, level, unit) for unit in ("env_steps", "minutes") for level in LEVELS
    ]
    return (
        *(
            result["task"],
            reward_name(result),
            result.get("keypoints", "projected"),
            str(result["views"]),
        ),
        *(result["observation"], result["tracker"]),
        evaluated(result),
        thousands(result["env_steps"]),
        percent(result["success_any"]) + remark,
        percent(result.get("success_in_time")),
        *times,
        plan_error(result),
        ", ".join(dict.fromkeys(commit[:7] for commit in _commits(result))) or "–",
    )


def _commits(result: dict[str, Any]) -> list[str]:
    """Of the finished seeds, by the date of their evaluation."""
    found = [s["evaluation"] for s in result["seeds"] if s["finished"]]
    return [e["commit"] for e in sorted(found, key=lambda e: e["date"])]


def evaluated(result: dict[str, Any]) -> str:
    """Seeds × episodes of a cell."""
    done = len(result["finished_seeds"])
    seeds = str(done) if result["complete"] else f"{done} of {result['num_seeds']}"
    return f"{seeds} × {result['episodes'] or '–'}"


def thousands(env_steps: int | float) -> str:
    """12k."""
    return f"{env_steps / 1000:.0f}k"


def plan_error(result: dict[str, Any]) -> str:
    """Median over the subgoals of a cell, thousandths of an image side."""
    error = result["anticipation"]["median"]
    return "–" if error is None else f"{1000 * error:.1f}"


def reached_at(result: dict[str, Any], level: int, unit: str) -> str:
    """Median time of reaching a level of success, and how many of the finished seeds did."""
    reached, seeds = result["reached"][str(level)], len(result["finished_seeds"])
    if not seeds:
        return "–"
    median = reached[f"median_{unit}"]
    if median is None:
        shown = "–"
    elif unit == "env_steps":
        shown = thousands(median)
    else:
        shown = f"{median:.1f}"
    return f"{shown} ({reached['seeds']} of {seeds})"


# ---- plots ----


def write_summary(results: Path) -> None:
    """Rewrite the tables and the plots from the cells that lie in `results`."""
    found = read_results(results)
    results.mkdir(parents=True, exist_ok=True)
    write_atomic(results / "table.md", table(found).encode())
    if len({r["reward"] for r in filter(comparable, found)}) > 1:
        write_atomic(results / "comparison.md", comparison(found).encode())
    for figure, cells in FIGURES.items():
        names = {cell.name for cell in cells}
        shown = [r for r in found if r["cell"] in names]
        for unit in ("env_steps", "minutes"):
            if shown:
                write_atomic(results / f"{figure}-{unit}.svg", plot(shown, unit).encode())
    logs = [
        (run_colour(number), seed["curve"])
        for number, result in enumerate(r for r in found if r.get("keypoints") == "tracked")
        for seed in result["seeds"]
    ]
    errors = tracker_plots(logs)
    if errors:
        write_atomic(results / "tracked-error.svg", grid([p.svg for p in errors]).encode())


def curves(result: dict[str, Any], unit: str) -> tuple[np.ndarray, np.ndarray]:
    """Time (R,), mean over seeds, and success (S, R): of the finished seeds, or of all if none is.

    Seeds are cut to as many evaluations as all of them have.
    """
    seeds = [s for s in result["seeds"] if s["finished"]] or result["seeds"]
    logs = [s["curve"] for s in seeds if s["curve"]]
    rows = min((len(log["success"]) for log in logs), default=0)
    x = np.array([log[unit][:rows] for log in logs]).reshape(-1, rows)
    return x.mean(0), np.array([log["success"][:rows] for log in logs]).reshape(-1, rows)


def plot(results: Sequence[dict[str, Any]], unit: str) -> str:
    """A standalone SVG: success against env_steps or minutes, a panel a task, a line a cell.

    Lines are means over seeds, bands go from the worst seed to the best.
    """
    labels = list(dict.fromkeys(r["label"] for r in results))
    words = {"env_steps": "env_steps a seed", "minutes": "minutes of training"}[unit]
    panels = []
    for task in dict.fromkeys(r["task"] for r in results):
        figure, axes = panel(words)
        axes.set_title(task, loc="left", fontsize=9, color=INK)
        ends: list[tuple[float, float, str, str]] = []
        for result in (r for r in results if r["task"] == task):
            colour = run_colour(labels.index(result["label"]))
            x, success = curves(result, unit)
            if not len(x):
                continue
            axes.fill_between(x, success.min(0), success.max(0), color=colour, alpha=0.16, lw=0)
            axes.plot(x, success.mean(0), color=colour, linewidth=1.8)
            ends.append((float(x[-1]), float(success[:, -1].mean()), end_label(result), colour))
        axes.set(xlim=(0, None), ylim=(-0.03, 1.03))
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if unit == "env_steps":
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        for (x_end, _, text, colour), y in zip(ends, spread([e[1] for e in ends]), strict=True):
            axes.annotate(
                text,
                (x_end, y),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color=colour,
                annotation_clip=False,
            )
        panels.append(to_svg(figure, f"{task}: success against {words}"))
    return grid(panels)


def end_label(result: dict[str, Any]) -> str:
    """What a line is, and how much of it is missing."""
    if result["complete"]:
        return result["label"]
    return f"{result['label']} ({len(result['finished_seeds'])}/{result['num_seeds']} seeds)"


def spread(ys: Sequence[float], gap: float = 0.09) -> list[float]:
    """Heights of labels between 0 and 1: near to `ys`, with `gap` between them."""
    placed, order = list(ys), sorted(range(len(ys)), key=lambda i: (-ys[i], i))
    limit = 1.0
    for i in order:  # down from the top, then up from the bottom
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    limit = 0.0
    for i in reversed(order):
        placed[i] = max(placed[i], limit)
        limit = placed[i] + gap
    return placed


def grid(panels: Sequence[Markup], columns: int = 3) -> str:
    """Panels of the page's look side by side, with the page's colours, as a file of its own."""
    width, height = (72 * side for side in SIZE)
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    placed = [
        svg.replace(
            "<svg",
            f'<svg x="{i % columns * (width + GAP)}" y="{i // columns * (height + GAP)}" '
            f'width="{width}" height="{height}"',
            1,
        )
        for i, svg in enumerate(map(str, panels))
    ]
    box = f'viewBox="0 0 {columns * (width + GAP) - GAP} {rows * (height + GAP) - GAP}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" '
        f'aria-label="success of the trained policies"><style>{_colours()}</style>'
        + "\n".join(placed)
        + "</svg>\n"
    )


def _colours() -> str:
    """The page's colours of lines and text, light and dark."""
    page = Path(__file__).with_name("style.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", page, re.S)[:2]
    chosen = [
        "".join(re.findall(r"--(?:muted|line|s\d): [^;]+;", block)).replace(": ", ":")
        for block in (light, dark)
    ]
    return f"svg{{{chosen[0]}}}@media (prefers-color-scheme:dark){{svg{{{chosen[1]}}}}}"
