"""Rewards against each other: same tasks, budgets, agents, evaluations.

Interquartile mean and stratified bootstrap as Agarwal et al. (2021, rliable) define them: a score a
task and seed; seeds are drawn anew within each task. With three to five seeds the interval is wide,
as it should be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import trim_mean

from relam_jax.report.cells import BUDGETS, default_keypoints, reward_name
from relam_jax.report.statistics import LEVEL, RESAMPLES, Interval
from relam_jax.report.tables import markdown, percent

NOTE = """\
The rows of [table.md](table.md) whose policies saw projected keypoints of two views and
proprioception, and whose demonstrations had true tracks. A task's column: success, %, mean over
seeds at the end of the budget. IQM: interquartile mean over tasks × seeds, %, with 95 % stratified
bootstrap interval over seeds (Agarwal et al. 2021), only where a reward has all tasks. Area: mean
success, %, over the evaluations of training, by the trapezoid rule, the mean over tasks. Minutes:
of training and evaluating a seed, mean over tasks. "diffusion, flag": with the weights of the
published reward, in which the simulator's success flag is paid too.
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
    return (
        default_keypoints(result)
        and result["observation"] == "keypoints+proprio"
        and result["tracker"] == "truth"
        and result["env_steps"] == BUDGETS.get(result["task"])
        and bool(result["finished_seeds"])
    )


def compared_tasks(results: Iterable[dict[str, Any]]) -> list[str]:
    """Those that more than one reward was tried on."""
    count = Counter(result["task"] for result in filter(comparable, results))
    return [task for task in BUDGETS if count[task] > 1]


def comparison_rows(results: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row a reward, best mean over the tasks first; "–" for what was not measured."""
    tasks = compared_tasks(results)
    seeds: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for result in (r for r in filter(comparable, results) if r["task"] in tasks):
        found = [seed for seed in result["seeds"] if seed["finished"]]
        seeds.setdefault(reward_name(result), {})[result["task"]] = found
    scores = {
        reward: {task: _of_seeds(found, _score) for task, found in of.items()}
        for reward, of in seeds.items()
    }
    means = {r: float(np.mean([s.mean() for s in of.values()])) for r, of in scores.items()}
    return [
        (
            reward,
            *(_success(scores[reward].get(task)) for task in tasks),
            *_summary(seeds[reward], scores[reward], len(tasks)),
        )
        for reward in sorted(seeds, key=lambda r: (-means[r], r))
    ]


def _of_seeds(
    seeds: Sequence[dict[str, Any]], measure: Callable[[dict[str, Any]], float]
) -> Float[np.ndarray, " S"]:
    return np.array([measure(seed) for seed in seeds])


def _score(seed: dict[str, Any]) -> float:
    return seed["evaluation"]["success_any"]


def _success(scores: Float[np.ndarray, " S"] | None) -> str:
    """Mean over the seeds of a task, and how many they are."""
    return "–" if scores is None else f"{100 * scores.mean():.0f} ({len(scores)})"


def _summary(
    seeds: Mapping[str, Sequence[dict[str, Any]]],
    scores: Mapping[str, Float[np.ndarray, " S"]],
    num_tasks: int,
) -> tuple[str, str, str]:
    """What is said only of a reward that has all tasks: IQM, area, minutes."""
    if len(seeds) < num_tasks:
        return ("–", "–", "–")

    def mean(measure: Callable[[dict[str, Any]], float]) -> float:
        return float(np.mean([_of_seeds(found, measure).mean() for found in seeds.values()]))

    middle = iqm_interval(list(scores.values()))
    area = mean(lambda seed: area_under_curve(seed["curve"]))
    minutes = mean(lambda seed: seed["curve"]["minutes"][-1])
    return percent(middle._asdict()), f"{100 * area:.0f}", f"{minutes:.1f}"


def comparison_table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    tasks = (f"{task} % (seeds)" for task in compared_tasks(results))
    columns = ("reward", *tasks, "IQM % [95 % CI]", "area %", "minutes")
    return markdown(columns, comparison_rows(results))


def comparison(results: Sequence[dict[str, Any]]) -> str:
    """The table and what it says, as a page."""
    return comparison_table(results) + "\n" + NOTE
