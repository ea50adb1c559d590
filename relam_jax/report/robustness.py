"""How a trained policy does where cameras, light, looks, physics or sensing differ from training.

One shift at a time (`relam_jax/envs/shifts.py`), the same initial states for each; robustness.json
grows by a row a shift, so that killed measurements go on.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from relam_jax.agents.sac import make_sac
from relam_jax.envs.shifts import FACTORS, NO_SHIFT, Shift, choose_factors, why_not
from relam_jax.envs.tasks import resolve_task
from relam_jax.keypoints.tfrecord import write_atomic
from relam_jax.report.evaluation import INTERVAL, digits
from relam_jax.report.expert import lead_expert
from relam_jax.report.run_folder import read_config, run_anticipation
from relam_jax.report.statistics import bootstrap_interval, success_interval
from relam_jax.training.checkpoint import load_actor
from relam_jax.training.config import TrainConfig
from relam_jax.training.evaluate import Evaluation, evaluate
from relam_jax.training.goal_env import GoalEnv
from relam_jax.training.provenance import commit, provenance
from relam_jax.training.task_env import make_task_env, with_goals

FILE = "robustness.json"


def measure_robustness(
    run: Path,
    factors: tuple[str, ...],
    keypoints: str | None,
    episodes: int,
    env_steps: int | None,
    out: Path | None,
) -> dict[str, Any]:
    """Measure what is not in `out` (default: robustness.json in the run's folder) yet, and return
    all that is there then. Arguments are those of experiments/robustness.py.

    Raises:
        ValueError: there is nothing to measure, a number is out of range, a factor does not exist,
        or `out` is of another checkpoint or another kind of evaluation.
    """
    chosen, config = choose_factors(factors), read_config(run)
    task = resolve_task(config.task)
    length = env_steps or task.horizon
    if episodes < 1 or not 1 <= length <= task.horizon:
        raise ValueError(
            f"--episodes must be at least 1 and --env_steps 1 to {task.horizon}, "
            f"not {episodes} and {length}"
        )
    source: Any = keypoints or config.keypoints
    played = replace(config, episode_length=length, keypoints=source)
    subject = Subject(run, config, episodes)
    out = out or run / FILE
    table = _table(out, run, config, subject)
    rows = table["rows"]
    for row in rows:
        if row["keypoints"] == source and (row["episodes"], row["env_steps"]) != (episodes, length):
            raise ValueError(
                f"{out} has {source} keypoints with {row['episodes']} episodes of "
                f"{row['env_steps']} env_steps: ask for the same, or choose another --out"
            )
    done = {(row["keypoints"], row["factor"], row["level"]) for row in rows}
    left = [
        shift
        for shift in planned(chosen, source, task.simulator, config.occlusion)
        if (source, shift.factor, shift.level) not in done
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tqdm(left, unit="shift", disable=None) as bar:
        for shift in bar:
            bar.set_description(f"{shift.factor} {shift.label}")
            rows.append(_row(subject, played, shift))
            write_atomic(out, (json.dumps(table, indent=2) + "\n").encode())
    return table


def planned(factors: Sequence[str], keypoints: str, simulator: str, occlusion: bool) -> list[Shift]:
    """The shifts to measure, first none at all. Factors that do not apply are left out.

    Projected points are hidden by an occluder if rays look for what is before them; where the run
    has none of these, the rays alone (level 0) are measured first.
    """
    shifts = [NO_SHIFT]
    for name in factors:
        if why_not(name, keypoints, simulator):
            continue
        alone = name == "occluder" and keypoints == "projected" and not occlusion
        shifts += [Shift(name, level) for level in ((0.0,) if alone else ()) + FACTORS[name].levels]
    return shifts


class Subject:
    """A policy and its anticipation model, put into one shifted simulator after the other."""

    def __init__(self, run: Path, config: TrainConfig, episodes: int) -> None:
        """Raises ValueError if there is no checkpoint, or no anticipated subgoals."""
        if config.reward == "oracle":
            raise ValueError(f"{run} has true subgoals: only anticipated ones can be off")
        self.config, self.episodes = config, episodes
        self.actor, self.env_steps = load_actor(run)
        self.anticipation = run_anticipation(run, config)
        self._envs: dict[int, GoalEnv] = {}  # by number of environments
        self._mode: Any = None

    def digest(self) -> str:
        """Of all the weights."""
        leaves = jax.tree.leaves((self.actor, self.anticipation.params))
        return hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in leaves)).hexdigest()[:16]

    def _enter(self, config: TrainConfig, shift: Shift, num_envs: int) -> GoalEnv:
        """The shifted simulator; what was compiled for the one before it is used again."""
        simulator = make_task_env(config, self.anticipation, num_envs, "eval", shift)
        try:
            if num_envs not in self._envs:
                self._envs[num_envs] = with_goals(config, self.anticipation, simulator, "eval")
        except RuntimeError as error:
            simulator.close()
            raise ValueError(f"{config.keypoints} keypoints do not work here: {error}") from error
        self._envs[num_envs].env = simulator
        return self._envs[num_envs]

    def play(self, config: TrainConfig, shift: Shift) -> Evaluation:
        """The policy in initial states 0, 1, … of those never trained on."""
        env = self._enter(config, shift, config.num_seeds * self.episodes)
        if self._mode is None:
            agent = make_sac(config.sac, env.obs_dim, env.action_dim, env.frame_shape)
            self._mode = jax.jit(jax.vmap(agent.mode))
        try:
            steps = config.episode_agent_steps
            return evaluate(env, lambda obs: self._mode(self.actor, obs), config.num_seeds, steps)
        finally:
            env.env.close()

    def plan_error(self, config: TrainConfig, shift: Shift) -> tuple[float | None, float | None]:
        """Of the same initial states: (how near the scripted expert comes to the anticipated
        subgoals, image sides; the expert's success). None where it cannot be known."""
        length = self.config.episode_length
        config = replace(config, action_repeat=1, episode_length=length)
        env = self._enter(config, shift, self.episodes)
        try:
            led = lead_expert(env, length)
        except (RuntimeError, ValueError):  # this task has no expert
            return None, None
        finally:
            env.env.close()
        error = float(np.median(led.nearest.mean((1, 2, 3))))
        return (error if np.isfinite(error) else None), float(led.success.mean())


def _table(out: Path, run: Path, config: TrainConfig, subject: Subject) -> dict[str, Any]:
    """What is in the file, or a new table without rows."""
    checkpoint = {"env_steps": subject.env_steps, "sha256": subject.digest()}
    if not out.exists():
        return {
            "run": str(run),
            "task": config.task,
            "simulator": resolve_task(config.task).simulator,
            "checkpoint": checkpoint,
            "num_seeds": config.num_seeds,
            "training_keypoints": config.keypoints,
            "training_episode_length": config.episode_length,
            "interval": INTERVAL,
            **provenance(),
            "rows": [],
        }
    table = read_table(out)
    if table["checkpoint"] != checkpoint:
        raise ValueError(
            f"{out} is of another checkpoint or anticipation model "
            f"({table['checkpoint']['env_steps']} env_steps): move it away, or choose another --out"
        )
    return table


def read_table(path: Path) -> dict[str, Any]:
    """Read robustness.json. ValueError where it is damaged."""
    try:
        table = json.loads(path.read_text())
        assert {"checkpoint", "rows"} <= set(table)
        return table
    except (json.JSONDecodeError, AssertionError, TypeError) as error:
        raise ValueError(f"{path} is damaged: move it away and measure again") from error


def _row(subject: Subject, config: TrainConfig, shift: Shift) -> dict[str, Any]:
    began = time.monotonic()
    if shift.factor == "occluder":
        config = replace(config, occlusion=config.keypoints == "projected")
    result = subject.play(config, shift)
    in_time = result.first_success * config.action_repeat <= subject.config.episode_length
    # the planner looks at the first frame's points, which only these factors change
    led = shift.neutral or FACTORS[shift.factor].group in ("camera", "physics")
    led = led and config.keypoints == "projected" and not config.occlusion
    plan_error, expert = subject.plan_error(config, shift) if led else (None, None)
    return {
        "keypoints": config.keypoints,
        "factor": shift.factor,
        "level": shift.level,
        "success": success_interval(result.success_any)._asdict(),
        "success_in_time": success_interval(in_time)._asdict(),
        "stages_met": bootstrap_interval(np.asarray(result.stage, float))._asdict(),
        "plan_error": plan_error,
        "expert_success": expert,
        "episodes": subject.episodes,
        "env_steps": config.episode_length,
        "outcomes": digits(result.success_any),
        "seconds": round(time.monotonic() - began, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
    }
