"""Tuned settings a task: the defaults of TrainConfig hold for all, an entry here only overrides
them."""

from __future__ import annotations

from typing import Any

from relam_jax.agents.sac import SACConfig
from relam_jax.envs.tasks import MARKED, resolve_task
from relam_jax.keypoints.selection import SelectionConfig
from relam_jax.training.config import TrainConfig

SHOWN_GOAL: dict[str, Any] = {"selection": SelectionConfig(goal_entities=("goal",))}
MANISKILL: dict[str, Any] = SHOWN_GOAL | {
    "action_repeat": 1,  # 20 env_steps a second, where Meta-World has 80
    "arm_scale": 0.3,  # 3 cm an agent step, as in Meta-World: by 10 cm no cube is held still
    # its flags want the robot still, and hands swing without smoothness; by Meta-World's faster
    # rates pick_cube is at 87 % after 40 k env_steps, and at 80 % after 200 k
    "sac": SACConfig(smoothness=0.03, learning_rate=3e-4, tau=0.005),
}

OVERRIDES: dict[str, dict[str, Any]] = {}


def preset(task: str) -> TrainConfig:
    """The config of a task by any spelling of its name; ValueError with one sentence if there is
    none."""
    spec = resolve_task(task)
    whole: dict[str, Any] = {"episode_length": spec.horizon}
    common = MANISKILL | whole if spec.simulator == "maniskill" else {}
    common |= SHOWN_GOAL if spec.env_id in MARKED else {}
    return TrainConfig(task=spec.name, **(common | OVERRIDES.get(spec.name, {})))
