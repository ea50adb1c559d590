"""Rewards against each other: same tasks, budgets, agents, evaluations.

Interquartile mean and stratified bootstrap as Agarwal et al. (2021, rliable) define them: a score a
task and seed; seeds are drawn anew within each task. With three to five seeds the interval is wide,
as it should be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import trim_mean

from relam_jax.report.cells import BUDGETS
from relam_jax.report.statistics import LEVEL, RESAMPLES, Interval
from relam_jax.report.tables import markdown

NOTE = """\
The rows of [table.md](table.md) whose policies saw projected keypoints of two views and
proprioception, and whose demonstrations had true tracks. A task's column: success, %, mean over
seeds at the end of the budget. IQM: interquartile mean over tasks × seeds, %, with 95 % stratified
bootstrap interval over seeds (Agarwal et al. 2021), only where a reward has all tasks. Area: mean
success, %, over the evaluations of training, by the trapezoid rule, the mean over tasks. Minutes:
of training and evaluating a seed, mean over tasks.
"""


def iqm(scores: Sequence[Float[np.ndarray, " S"]]) -> float:
    """Mean of the middle half of all scores."""
    return float(trim_mean(np.concatenate(scores), 0.25))


def iqm_interval(scores: Sequence[Float[np.ndarray, " S"]], seed: int = 0) -> Interval:
    """`iqm` of one array of seeds a task, and its percentile interval under the stratified
    bootstrap."""
    rng = np.random.default_rng(seed)
    drawn = [iqm([rng.choice(task, len(task)) for task in scores]) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(iqm(scores), float(low), float(high))


def area_under_curve(curve: Mapping[str, Sequence[float]]) -> float:
    """Mean success of a seed over its training, by the trapezoid rule over env_steps."""
    steps, success = np.asarray(curve["env_steps"]), np.asarray(curve["success"])
    return float(np.trapezoid(success, steps) / (steps[-1] - steps[0]))


def comparable(result: dict[str, Any]) -> bool:
    """Whether a cell's result is of the setting in which all rewards are compared."""
    setting = ("tracker", "views", "observation", "variant")
    return (
        result["task"] in BUDGETS
        and result["env_steps"] == BUDGETS[result["task"]]
        and result.get("keypoints", "projected") == "projected"
        and tuple(result.get(k, "") for k in setting) == ("truth", 2, "keypoints+proprio", "")
        and bool(result["finished_seeds"])
    )


def comparison_rows(results: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row a reward, best mean over the tasks first; "–" for what was not measured."""
    cells: dict[str, dict[str, dict[str, Any]]] = {}
    for result in filter(comparable, results):
        cells.setdefault(result["reward"], {})[result["task"]] = result
    rows = []
    for reward, of_task in cells.items():
        seeds = {t: [s for s in r["seeds"] if s["finished"]] for t, r in of_task.items()}
        scores = {
            task: np.array([np.mean([d == "1" for d in _outcomes(s)]) for s in found])
            for task, found in seeds.items()
        }
        curves = [[s["curve"] for s in found] for found in seeds.values()]
        area = np.mean([np.mean([area_under_curve(c) for c in task]) for task in curves])
        minutes = np.mean([np.mean([c["minutes"][-1] for c in task]) for task in curves])
        whole = len(scores) == len(BUDGETS)
        shown = iqm_interval(list(scores.values())) if whole else None
        row = (
            reward,
            *(
                f"{100 * scores[t].mean():.0f} ({len(scores[t])})" if t in scores else "–"
                for t in BUDGETS
            ),
            "{:.0f} [{:.0f}, {:.0f}]".format(*(100 * x for x in shown)) if shown else "–",
            f"{100 * area:.0f}" if whole else "–",
            f"{minutes:.1f}" if whole else "–",
        )
        rows.append((-float(np.mean([s.mean() for s in scores.values()])), row))
    return [row for _, row in sorted(rows)]


def _outcomes(seed: dict[str, Any]) -> str:
    return seed["evaluation"]["outcomes"]["success_any"]


def comparison_table(results: Iterable[dict[str, Any]]) -> str:
    """Markdown."""
    tasks = tuple(f"{task} % (seeds)" for task in BUDGETS)
    columns = ("reward", *tasks, "IQM % [95 % CI]", "area %", "minutes")
    return markdown(columns, comparison_rows(results))


def comparison(results: Iterable[dict[str, Any]]) -> str:
    """The table and what it says, as a page."""
    return comparison_table(results) + "\n" + NOTE
