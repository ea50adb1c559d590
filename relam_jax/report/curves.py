"""Learning curves of one or more runs, each a small plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from relam_jax.report.run_folder import RunFolder
from relam_jax.report.statistics import outcomes, success_interval
from relam_jax.report.svg import panel, run_colour, to_svg


class Plot(NamedTuple):
    """A plot with its heading."""

    title: str
    svg: Markup


TRAIN_PLOTS = (
    ("reward", "Reward per agent step", ""),
    ("q", "Q of the first critic", ""),
    ("alpha", "Temperature", "log"),
    ("entropy", "Entropy of the policy, nats", ""),
    ("critic_loss", "Critic loss", "log"),
    ("actor_loss", "Actor loss", ""),
)
"""Column of train.csv, heading, scale."""


def curve_section(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """Learning curves of all runs."""
    if not any(run.evals for run in runs):
        raise ValueError(f"no evaluation was logged yet in {runs[0].path} (no rows in eval.csv)")
    return {
        "evaluation": evaluation_plots(runs),
        "training": training_plots(runs),
        "without": [str(run.path) for run in runs if not run.evals],
    }


def success_shares(run: RunFolder) -> Float[np.ndarray, "R S"]:
    """Success at any step, a row an evaluation and a column a seed."""
    seeds = [f"success_seed{s}" for s in range(run.config.num_seeds)]
    if not run.evals or any(name not in run.evals for name in seeds):
        return np.zeros((0, run.config.num_seeds))
    return np.stack([run.evals[name] for name in seeds], axis=1)


def _x_axis(axes: Axes, unit: str) -> None:
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if unit == "env_steps":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _percent(axes: Axes) -> None:
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def evaluation_plots(runs: Sequence[RunFolder]) -> list[Plot]:
    """Success with its band, and subgoals met, against env_steps and against minutes."""
    plots = []
    for unit, words in (("env_steps", "env_steps a seed"), ("minutes", "minutes of training")):
        figure, axes = panel(words)
        for index, run in enumerate(runs):
            if unit not in run.evals or not len(success_shares(run)):
                continue
            shares = success_shares(run)
            bands = [success_interval(outcomes(s, run.config.eval_episodes)) for s in shares]
            x, colour = run.evals[unit], run_colour(index)
            low, high = np.array([b.low for b in bands]), np.array([b.high for b in bands])
            axes.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
            axes.plot(x, shares.mean(1), color=colour, linewidth=1.8, marker="o", markersize=3)
        _x_axis(axes, unit)
        _percent(axes)
        plots.append(Plot("Success at any step", to_svg(figure, f"success against {words}")))
    for unit, words in (("env_steps", "env_steps a seed"), ("minutes", "minutes of training")):
        figure, axes = panel(words)
        for index, run in enumerate(runs):
            if unit in run.evals and "stage" in run.evals:
                colour = run_colour(index)
                x, y = run.evals[unit], run.evals["stage"]
                axes.plot(x, y, color=colour, linewidth=1.8, marker="o", markersize=3)
        _x_axis(axes, unit)
        _percent(axes)
        plots.append(Plot("Subgoals met", to_svg(figure, f"subgoals met against {words}")))
    return plots + tracker_plots([(run_colour(i), run.evals) for i, run in enumerate(runs)])


def tracker_plots(logs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Plot]:
    """Error of the tracked keypoints as training goes on, and success against it, a line a log
    (colour and columns); none if no log has such a column."""
    logs = [(colour, log) for colour, log in logs if "tracker_error" in log]
    if not logs:
        return []
    words = "median error of the keypoints, image sides"
    over_time, time = panel("env_steps a seed", words)
    against, error = panel(words, "success")
    for colour, log in logs:
        time.plot(log["env_steps"], log["tracker_error"], color=colour, linewidth=1.8)
        error.plot(log["tracker_error"], log["success"], color=colour, lw=0.6, marker="o", ms=3)
        last = log["tracker_error"][-1:], log["success"][-1:]
        error.plot(*last, color=colour, marker="o", markersize=7)
    time.set_ylim(bottom=0)
    _x_axis(time, "env_steps")
    error.set_xlim(left=0)
    _percent(error)
    return [
        Plot("Tracker error", to_svg(over_time, "tracker error against env_steps")),
        Plot("Success against tracker error", to_svg(against, "success against tracker error")),
    ]


def training_plots(runs: Sequence[RunFolder]) -> list[Plot]:
    """What the training loop logs, against env_steps; plots without any data are left out."""
    plots = []
    for column, title, scale in TRAIN_PLOTS:
        figure, axes = panel("env_steps a seed")
        drawn = False
        for index, run in enumerate(runs):
            if column not in run.train:
                continue
            x, y = run.train["env_steps"], run.train[column]
            if column != "reward":  # before learning starts the loop logs zeros
                begun = run.train.get("alpha", np.ones_like(x)) > 0
                x, y = x[begun], y[begun]
            axes.plot(x, y, color=run_colour(index), linewidth=1.4)
            drawn |= bool(len(x)) and (scale != "log" or bool((y > 0).any()))
        if drawn:
            axes.set_yscale(scale or "linear")
            _x_axis(axes, "env_steps")
            plots.append(Plot(title, to_svg(figure, f"{title} against env_steps")))
    return plots + _distance_plots(runs)


def _distance_plots(runs: Sequence[RunFolder]) -> list[Plot]:
    names = [n for n in runs[0].train if n.startswith("distance_")]
    plots = []
    for name in names:
        figure, axes = panel("env_steps a seed", "image sides")
        for index, run in enumerate(runs):
            if name in run.train:
                x, y = run.train["env_steps"], run.train[name]
                axes.plot(x, y, color=run_colour(index), linewidth=1.4)
        axes.set_ylim(bottom=0)
        _x_axis(axes, "env_steps")
        view, entity = name.removeprefix("distance_").split("_", 1)
        title = f"Distance to the subgoal: {entity}, {view}"
        plots.append(Plot(title, to_svg(figure, f"{title} against env_steps")))
    return plots
