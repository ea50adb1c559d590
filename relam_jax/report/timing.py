"""How long everything takes, from preprocessing to one call of the reward."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relam_jax.anticipation.plan import Anticipation, make_planner
from relam_jax.diffusion.fit import NATS
from relam_jax.report.run_folder import RunFolder, run_anticipation
from relam_jax.reward.stage_machine import Goal, RewardConfig, keypoint_reward, start_stage

MAX_PLANS = 4
"""Plans anticipated at once when the planner is timed, which takes a while."""


class Row(NamedTuple):
    """One line of the timing table."""

    stage: str
    total: float | None
    """seconds of wall time; None: not recorded, or not to be summed."""
    each: str
    """what one unit takes."""


def timing_section(run: RunFolder) -> dict[str, Any]:
    """Times of every stage that was recorded, and inference measured now."""
    rows = [
        preprocessing_row(run.data_folder),
        model_row("Training the anticipation model", run.anticipation_folder, "once a task"),
    ]
    if run.config.reward in NATS:
        each = "once a run, unless --diffusion.model"
        rows.append(model_row("Training the video model", run.video_model_folder, each))
    rows += loop_rows(run)
    trained_on = run.starts[0]["hardware"] if run.starts else None
    try:
        anticipation = run_anticipation(run.path, run.config)
        num_envs = run.config.num_envs * run.config.num_seeds
        measured = inference_rows(anticipation, run.config.shaping, num_envs)
    except ValueError:
        measured = []
    if run.evaluation:
        e = run.evaluation
        each = f"{e['num_seeds']} × {e['episodes']} episodes, compilation and videos included"
        rows.append(Row("Final evaluation", float(e["seconds"]), each))
    return {"rows": rows, "measured": measured, "trained_on": trained_on}


def preprocessing_row(data: Path) -> Row:
    """From the manifest of preprocess_torch: sum and mean over its clips."""
    path, name = data / "manifest.jsonl", "Preprocessing (masks, tracks)"
    if not path.exists():
        return Row(name, None, "not recorded")
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    seconds = [x["seconds"] for x in lines if x.get("status") == "ok" and "seconds" in x]
    if not seconds:
        return Row(name, None, "not recorded")
    return Row(name, sum(seconds), f"{np.mean(seconds):.1f} s an episode, {len(seconds)} episodes")


def model_row(name: str, folder: Path, each: str) -> Row:
    """From timing.json in a model's folder."""
    path = folder / "timing.json"
    if not path.exists():
        return Row(name, None, "not recorded")
    return Row(name, float(json.loads(path.read_text())["seconds"]), each)


def loop_rows(run: RunFolder) -> list[Row]:
    """Where the time of the training loop went, up to the last row of train.csv.

    Learning overlaps with stepping on the host; its row is what the loop still had to wait for.
    """
    needed = ("env_steps_per_second", "stepping_share", "learning_wait_share")
    if any(name not in run.train for name in needed):
        return []
    rate, step_share, learn_share = (float(run.train[name][-1]) for name in needed)
    env_steps = float(run.train["env_steps"][-1]) * run.config.num_seeds
    training = env_steps / rate
    rows = [
        Row("Simulation steps", step_share * training, _rate(env_steps, step_share * training)),
        Row(
            "Learning, beside the simulation",
            learn_share * training,
            f"waited for {100 * learn_share:.0f} % of the time; "
            f"{run.config.utd:g} grad_steps an env_step",
        ),
        Row("Acting, observation, reward, replay", (1 - step_share - learn_share) * training, ""),
        Row("Training, all of it", training, f"{rate:,.0f} env_steps/s".replace(",", " ")),
    ]
    if "minutes" in run.evals:
        spent = np.interp(
            run.evals["env_steps"][-1],
            np.concatenate([[0.0], run.train["env_steps"]]),
            np.concatenate([[0.0], _seconds(run)]),
        )
        evaluating = max(0.0, 60 * float(run.evals["minutes"][-1]) - float(spent))
        number = len(run.evals["minutes"])
        each = f"{evaluating / number:.1f} s an evaluation, {number} evaluations"
        rows.append(Row("Evaluating while training", evaluating, each))
    return rows


def _seconds(run: RunFolder) -> np.ndarray:
    return run.config.num_seeds * run.train["env_steps"] / run.train["env_steps_per_second"]


def _rate(env_steps: float, seconds: float) -> str:
    return f"{env_steps / max(seconds, 1e-9):,.0f} env_steps/s".replace(",", " ")


def inference_rows(anticipation: Anticipation, config: RewardConfig, num_envs: int) -> list[Row]:
    """Measure, here and now, the jitted reward and the planner on a run's shapes."""
    reward = reward_seconds(anticipation, config, num_envs) / num_envs * 1e6
    few = min(num_envs, MAX_PLANS)
    plan = plan_seconds(anticipation, few) / few * 1e3
    return [
        Row(
            "Reward inference",
            None,
            f"{reward:.2f} µs an environment and agent step ({num_envs} at once)",
        ),
        Row("Anticipating a plan", None, f"{plan:.1f} ms an episode ({few} at once)"),
    ]


def _shapes(anticipation: Anticipation, num_envs: int, points: int) -> tuple[int, ...]:
    return (num_envs, len(anticipation.view_names), len(anticipation.entity_names), points)


def reward_seconds(anticipation: Anticipation, config: RewardConfig, num_envs: int) -> float:
    """Median wall time of one call of the vmapped reward and stage machine, seconds."""
    shape = _shapes(anticipation, num_envs, anticipation.selection.num_keypoints)
    rng = np.random.default_rng(0)
    points = jnp.asarray(rng.uniform(size=(*shape, 2)), jnp.float32)
    seen, stages = jnp.ones(shape, bool), anticipation.num_stages
    subgoals = rng.uniform(size=(num_envs, stages, *shape[1:], 2))
    threshold = jnp.full((num_envs, stages, *shape[1:3]), config.success_cap)
    goal = Goal(
        jnp.asarray(subgoals, jnp.float32),
        seen,
        jnp.full(num_envs, stages),
        threshold,
        threshold,
        threshold,
        jnp.ones_like(threshold),
    )
    start = jax.jit(jax.vmap(partial(start_stage, config=config)))(points, seen, goal)
    step = jax.jit(jax.vmap(partial(keypoint_reward, config=config)))
    return median_seconds(lambda: step(start, points, seen, goal))


def plan_seconds(anticipation: Anticipation, num_envs: int, candidates: int = 32) -> float:
    """Median wall time of one call of the planner, seconds."""
    shape = _shapes(anticipation, num_envs, candidates)
    points = np.random.default_rng(0).uniform(size=(*shape, 2)).astype(np.float32)
    planner, seen = make_planner(anticipation), np.ones(shape, bool)
    return median_seconds(lambda: planner(points, seen))


def median_seconds(call: Callable[[], object], budget: float = 0.5) -> float:
    """Median over as many calls as fit in `budget` seconds (3 to 200), after one to compile."""
    jax.block_until_ready(call())
    times: list[float] = []
    while len(times) < 3 or (sum(times) < budget and len(times) < 200):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return float(np.median(times))
