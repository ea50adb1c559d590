"""Does the reward follow the truth? Episodes that succeed and that fail, beside the simulator's own
dense reward, which reads its state.

No policy is needed: the plan is the anticipation model's, the episodes are the scripted expert's,
the same given up half-way to success, random ones, and the expert's backwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from markupsafe import Markup

from relam_jax.anticipation.plan import Anticipation, Plan, make_planner
from relam_jax.envs.protocol import BatchedEnv, Candidates
from relam_jax.report.along import reward_along
from relam_jax.report.run_folder import RunFolder, run_anticipation
from relam_jax.report.statistics import spearman
from relam_jax.report.svg import panel, run_colour, to_svg
from relam_jax.reward.stage_machine import RewardConfig
from relam_jax.training.config import TrainConfig
from relam_jax.training.goal_env import goal_of
from relam_jax.training.task_env import make_task_env

EPISODES = 8
"""Of each kind, from the same initial states, which were never trained on."""

Act = Callable[[int], Float[np.ndarray, "N A"]]
"""The action at an env_step."""


class Episodes(NamedTuple):
    """N episodes of T env_steps; row 0 of the keypoints is before the first."""

    keypoints: Float[np.ndarray, "T1 N V E K 2"]
    visibility: Bool[np.ndarray, "T1 N V E K"]
    progress: Float[np.ndarray, "T N"]
    """the simulator's dense reward."""
    success: Bool[np.ndarray, "T N"]


class Compared(NamedTuple):
    """What the keypoint reward says of N episodes, and the simulator's; F agent steps."""

    reward: Float[np.ndarray, "F N"]
    stages: Int[np.ndarray, "F N"]
    """subgoals met."""
    progress: Float[np.ndarray, "F N"]

    @property
    def correlation(self) -> Float[np.ndarray, " N"]:
        """Spearman's, of each episode; NaN where either is constant."""
        pairs = zip(self.reward.T.round(4), self.progress.T.round(4), strict=True)
        return np.array([spearman(r, p) for r, p in pairs])


def begin(env: BatchedEnv) -> Candidates:
    """Initial states 0, 1, …"""
    return env.reset(init_states=np.arange(env.num_envs) % env.num_init_states)


def play(env: BatchedEnv, plan: Plan, act: Act) -> Episodes:
    """An episode in each environment, an action at each env_step."""
    begin(env)
    states = [env.follow(np.asarray(plan.indices))]
    states += [env.step(act(t)) for t in range(env.episode_length)]
    return Episodes(
        np.stack([np.asarray(s.keypoints) for s in states]),
        np.stack([np.asarray(s.visibility) for s in states]),
        np.stack([s.env_reward for s in states[1:]]),
        np.stack([s.success for s in states[1:]]),
    )


def play_kinds(env: BatchedEnv, plan: Plan, hold: int, seed: int = 0) -> dict[str, Episodes]:
    """Episodes by kind; random actions are held for `hold` env_steps.

    Raises ValueError or RuntimeError where there is no expert.
    """
    random = np.random.default_rng(seed).uniform(
        -1, 1, (-(-env.episode_length // hold), env.num_envs, env.action_dim)
    )
    expert = play(env, plan, lambda t: env.scripted_actions())
    succeeded = expert.success.any(0)
    half = np.where(succeeded, expert.success.argmax(0), env.episode_length) // 2

    def give_up(t: int) -> Float[np.ndarray, "N A"]:
        return np.where((t < half)[:, None], env.scripted_actions(), random[t // hold])

    return {
        "expert": expert,
        "given up": play(env, plan, give_up),
        "random": play(env, plan, lambda t: random[t // hold]),
        "reversed": Episodes(
            expert.keypoints[::-1],
            expert.visibility[::-1],
            np.concatenate([expert.progress[-2::-1], expert.progress[:1]]),
            expert.success[::-1],
        ),
    }


def compare(
    episodes: Episodes, plan: Plan, names: tuple[str, ...], config: RewardConfig, every: int
) -> Compared:
    """The keypoint reward along episodes, an agent step being `every` env_steps, under one plan."""
    goal = goal_of(plan, names, config)
    along = jax.vmap(partial(reward_along, config=config), in_axes=(1, 1, 0), out_axes=1)(
        jnp.asarray(episodes.keypoints[::every]), jnp.asarray(episodes.visibility[::every]), goal
    )
    progress = episodes.progress[every - 1 :: every].astype(float)
    return Compared(np.asarray(along.reward, float), np.asarray(along.stage), progress)


def true_progress(
    anticipation: Anticipation, config: TrainConfig, episodes: int = EPISODES
) -> dict[str, Any]:
    """A row a kind of episode, means over episodes, and a figure.

    Raises as `make_task_env` does, and ValueError where there is no scripted expert.
    """
    every = config.action_repeat
    length = config.episode_length // every * every
    settings = replace(
        config, action_repeat=1, episode_length=length, reward="dense", keypoints="projected"
    )
    env = make_task_env(settings, anticipation, episodes, "eval")
    try:
        plan = make_planner(anticipation)(*begin(env))
        kinds = play_kinds(env, plan, every)
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    finally:
        env.close()
    compared = {
        name: compare(played, plan, env.entity_names, config.shaping, every)
        for name, played in kinds.items()
    }
    return {
        "table": [_row(name, compared[name], played) for name, played in kinds.items()],
        "plot": _plot(compared),
        "episodes": episodes,
        "env_steps": length,
        "num_stages": int(plan.num_stages.max()),
    }


def _row(name: str, compared: Compared, played: Episodes) -> dict[str, Any]:
    known = compared.correlation[np.isfinite(compared.correlation)]
    return {
        "name": name,
        "correlation": float(known.mean()) if len(known) else None,
        "last": float(compared.reward[-1].mean()),
        "stages": float(compared.stages[-1].mean()),
        "progress": float(compared.progress[-1].mean()),
        "success": float(played.success.any(0).mean()),
    }


def _plot(compared: dict[str, Compared]) -> Markup:
    """Means over episodes, a colour a kind: the reward, and dashed the simulator's as a share of
    the most it pays here."""
    figure, axes = panel("agent step", "reward")
    most = max(float(f.progress.mean(1).max()) for f in compared.values())
    for number, seen in enumerate(compared.values()):
        x, colour = np.arange(1, len(seen.reward) + 1), run_colour(number)
        axes.plot(x, seen.reward.mean(1), color=colour, linewidth=1.8)
        axes.plot(x, seen.progress.mean(1) / most, color=colour, linewidth=0.9, linestyle="--")
    axes.set(xlim=(1, len(x)), ylim=(-0.03, None))
    return to_svg(figure, "reward and the simulator's dense reward along episodes")


def true_progress_section(run: RunFolder) -> dict[str, Any]:
    """Measured for the page, in the run's task with its plan and reward."""
    return true_progress(run_anticipation(run.path, run.config), run.config)
