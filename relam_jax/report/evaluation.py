"""How well a trained run does, as evaluation.json, and what it looks like, as videos."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from jaxtyping import Bool
from PIL import Image

from relam_jax.agents.sac import make_sac
from relam_jax.envs.measured import MeasuredEnv
from relam_jax.envs.protocol import BatchedEnv
from relam_jax.envs.tasks import resolve_task
from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.report.overlay import Watch, overlay_frames, stage_pictures, watched_episode
from relam_jax.report.run_folder import demonstrations, read_config, run_anticipation
from relam_jax.report.statistics import bootstrap_interval, success_interval
from relam_jax.reward.stage_machine import Goal
from relam_jax.training.checkpoint import load_actor
from relam_jax.training.config import TrainConfig
from relam_jax.training.evaluate import Evaluation, evaluate
from relam_jax.training.provenance import provenance
from relam_jax.training.task_env import make_goal_env
from relam_jax.video import write_video

SLOWER = 2.0
"""Videos run so many times slower than the simulation."""
MAX_VIDEOS = 3
"""Videos are made of the first seeds only."""
INTERVAL = "95 %, bootstrap over episodes, stratified by seed; exact binomial where all ended alike"
NO_RENDERER = (
    "no video: no off-screen renderer works here "
    "(Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri)"
)


class Outcome(NamedTuple):
    """An evaluation and what was watched during it."""

    evaluation: Evaluation
    env_steps: int
    """of the checkpoint that was evaluated."""
    watch: Watch | None
    goals: Goal | None
    """plans of all environments' first episode (leading axis N)."""
    tracker_error: float | None = None
    """of tracked keypoints: median distance to the truth where seen, image sides."""


def play(
    run: Path, config: TrainConfig, episodes: int, watched: Sequence[tuple[int, int]] = ()
) -> Outcome:
    """Evaluate the newest checkpoint up to the time limit of `config`, watching some (seed,
    episode).

    Raises:
        ValueError: there is no checkpoint or no anticipation model, or they are of another version.
    """
    actor, env_steps = load_actor(run)
    env = make_goal_env(config, run_anticipation(run, config), config.num_seeds * episodes, "eval")
    agent = make_sac(config.sac, env.obs_dim, env.action_dim, env.frame_shape)
    mode = jax.jit(jax.vmap(agent.mode))
    watch, goals, measured = None, [], env.env
    if watched:
        watch = Watch(env.env, [seed * episodes + episode for seed, episode in watched])
        env.env = cast(BatchedEnv, watch)

    def act(obs: jax.Array) -> jax.Array:
        if not goals:
            goals.append(env.goal)
        return mode(actor, obs)

    agent_steps = config.episode_agent_steps
    try:
        result = evaluate(env, act, config.num_seeds, agent_steps)
        error = measured.take_error() if isinstance(measured, MeasuredEnv) else None
        return Outcome(result, env_steps, watch, goals[0], error)
    finally:
        env.env.close()


def evaluate_run(run: Path, episodes: int, video: bool, out: Path | None) -> dict[str, Any]:
    """Evaluate a run up to the benchmark's own time limit; write `out` (default: evaluation.json in
    its folder) and videos beside it.

    Raises:
        ValueError: there is nothing to evaluate, or `episodes` is not positive.
    """
    if episodes < 1:
        raise ValueError(f"--episodes must be at least 1, not {episodes}")
    out = out or run / "evaluation.json"
    config = read_config(run)
    played = replace(config, episode_length=resolve_task(config.task).horizon)
    first = [(seed, 0) for seed in range(min(config.num_seeds, MAX_VIDEOS)) if video]
    began = time.monotonic()
    outcome = play(run, played, episodes, first)
    seconds = time.monotonic() - began
    out.parent.mkdir(parents=True, exist_ok=True)
    videos = write_videos(out, config, outcome, [f"seed{seed}" for seed, _ in first])
    failed = first_failures(outcome.evaluation.success_any[: len(first)])
    if videos and failed:
        again = play(run, played, episodes, failed)
        names = [f"seed{seed}_failed{episode}" for seed, episode in failed]
        videos += write_videos(out, config, again, names)
    result = _result(run, config, played.episode_length, episodes, outcome.evaluation)
    result |= {"env_steps": outcome.env_steps, "seconds": round(seconds, 1), "videos": videos}
    if outcome.tracker_error is not None:
        result["tracker_error"] = outcome.tracker_error
    result |= provenance()
    write_atomic(out, (json.dumps(result, indent=2) + "\n").encode())
    return result


def first_failures(success: Bool[np.ndarray, "S P"]) -> list[tuple[int, int]]:
    """(seed, episode) of each seed's first failure, unless that is the first episode, which is
    watched anyway."""
    failed = [(seed, int(row.argmin())) for seed, row in enumerate(success) if not row.all()]
    return [(seed, episode) for seed, episode in failed if episode]


def write_videos(
    out: Path, config: TrainConfig, outcome: Outcome, names: Sequence[str]
) -> list[str]:
    """One a watched episode, or one notice where nothing could be rendered; returns file names."""
    files = []
    if outcome.watch is None or outcome.goals is None:
        return files
    for row, (index, name) in enumerate(zip(outcome.watch.watched, names, strict=True)):
        goal = jax.tree.map(lambda x, i=index: x[i], outcome.goals)
        episode = watched_episode(outcome.watch, row, goal, config.shaping)
        if episode is None:
            print(NO_RENDERER)
            break
        files.append(f"{out.stem}.{name}.mp4")
        frames = overlay_frames(episode, f"{config.task}, {in_words(name)}")
        fps = resolve_task(config.task).env_steps_per_second / config.action_repeat / SLOWER
        write_video(out.with_name(files[-1]), frames, fps, crf=20)
        Image.fromarray(stage_pictures(episode)).save(out.with_name(f"{out.stem}.{name}.jpg"))
    return files


def in_words(name: str) -> str:
    """seed0_failed7 → seed 0, failed episode 7."""
    return name.replace("seed", "seed ").replace("_failed", ", failed episode ")


def digits(outcomes: np.ndarray) -> list[str]:
    """A string a seed, a digit an episode."""
    return ["".join(str(int(x)) for x in row) for row in outcomes]


def _result(
    run: Path, config: TrainConfig, episode_length: int, episodes: int, evaluation: Evaluation
) -> dict[str, Any]:
    demos = demonstrations(config)
    anticipation = run_anticipation(run, config)
    # within the time limit of training, which is shorter than the benchmark's
    in_time = evaluation.first_success * config.action_repeat <= config.episode_length
    to_success = float(np.median(evaluation.first_success)) * config.action_repeat
    success = {
        "success_any": success_interval(evaluation.success_any)._asdict(),
        "success_in_time": success_interval(in_time)._asdict(),
        "success_end": success_interval(evaluation.success_end)._asdict(),
        "stages_met": bootstrap_interval(np.asarray(evaluation.stage, float))._asdict(),
        "return": bootstrap_interval(np.asarray(evaluation.keypoint_return, float))._asdict(),
    }
    rows = zip(
        *(evaluation.success_any, in_time, evaluation.success_end, evaluation.stage), strict=True
    )
    per_seed = [
        {
            "success_any": float(a.mean()),
            "success_in_time": float(b.mean()),
            "success_end": float(c.mean()),
            "stages_met": float(d.mean()),
        }
        for a, b, c, d in rows
    ]
    return {
        "run": str(run),
        "task": config.task,
        **success,
        "interval": INTERVAL,
        "num_seeds": config.num_seeds,
        "episodes": episodes,
        "episode_length": episode_length,
        "training_episode_length": config.episode_length,
        "env_steps_to_success": to_success if np.isfinite(to_success) else None,
        "per_seed": per_seed,
        "outcomes": {
            "success_any": digits(evaluation.success_any),
            "success_in_time": digits(in_time),
            "success_end": digits(evaluation.success_end),
        },
        "reward": config.reward,
        "observation": config.observation,
        "keypoint_source": config.keypoints,
        "occlusion": config.occlusion,
        "views": list(anticipation.view_names),
        "entities": list(anticipation.entity_names),
        "demonstrations": demos,
    }
