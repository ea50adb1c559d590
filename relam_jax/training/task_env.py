"""What a run's config makes of a task: simulator, planner, reward and observation in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from relam_jax.anticipation.plan import Anticipation, make_planner, remember
from relam_jax.diffusion.fit import NATS
from relam_jax.diffusion.pay import VideoPay
from relam_jax.diffusion.store import load_video_model
from relam_jax.envs import make_env
from relam_jax.envs.measured import MeasuredEnv
from relam_jax.envs.protocol import BatchedEnv
from relam_jax.envs.shifts import NO_SHIFT, Shift
from relam_jax.envs.tracked import TrackedEnv
from relam_jax.training.config import TrainConfig
from relam_jax.training.goal_env import GoalEnv
from relam_jax.training.oracle import make_oracle


def make_task_env(
    config: TrainConfig,
    anticipation: Anticipation,
    num_envs: int,
    split: str,
    shift: Shift = NO_SHIFT,
) -> BatchedEnv:
    """The task's simulator, seen in the model's views.

    Raises:
        ValueError: the model was trained for another task, other views or other entities.
    """
    env = make_env(
        config.task,
        num_envs,
        keypoints=config.keypoints,
        tracking=config.tracking,
        measured=config.keypoints == "tracked" and split == "eval",
        action_repeat=config.action_repeat,
        episode_length=config.episode_length,
        occlusion=config.occlusion,
        env_reward=config.reward == "dense",
        shift=shift,
        **_pool(config, anticipation, split),
    )
    if anticipation.entity_names != env.entity_names:
        env.close()
        raise ValueError(
            f"the anticipation model knows the entities {anticipation.entity_names}, but "
            f"{config.task} has {env.entity_names}: record and preprocess its own videos"
        )
    return env


def _pool(config: TrainConfig, anticipation: Anticipation, split: str) -> dict[str, Any]:
    """What the initial states, and what is seen of them, depend on."""
    views = anticipation.view_names
    return {"seed": config.seed, "views": views, "split": split, "sim": config.sim}


def with_goals(
    config: TrainConfig, anticipation: Anticipation, env: BatchedEnv, split: str
) -> GoalEnv:
    """A simulator with the plans, the reward and the observation of a run."""
    planner = remember(make_planner(anticipation))
    if config.reward == "oracle":
        planner = make_oracle(planner, env, config.task, _pool(config, anticipation, split))
    paid = config.reward in NATS and split != "eval"  # in evaluations nobody is paid
    return GoalEnv(
        env,
        planner,
        config.shaping,
        reward=config.reward,
        observation=config.observation,
        gamma=config.sac.gamma,
        arm_scale=config.arm_scale,
        frame_size=config.frame_size if paid or config.observation == "rgb" else 0,
        video_pay=_video_pay(config) if paid else None,
        reseed=env.reseed
        if config.tracking.reseed and isinstance(env, TrackedEnv | MeasuredEnv)
        else None,
    )


def _video_pay(config: TrainConfig) -> Callable[[Any], VideoPay]:
    """What pays for the first camera's images, or for places, of the first ones."""
    folder, settings, kind = config.video_model_folder, config.diffusion, config.reward
    model = load_video_model(folder, settings, config.action_repeat, kind)
    return lambda shown: VideoPay(model, settings, shown, config.num_seeds, config.seed, kind)


def make_goal_env(
    config: TrainConfig, anticipation: Anticipation, num_envs: int, split: str
) -> GoalEnv:
    """The task's simulator with plans and keypoint reward; raises as `make_task_env` does."""
    env = make_task_env(config, anticipation, num_envs, split)
    return with_goals(config, anticipation, env, split)
