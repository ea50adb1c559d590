"""Tuned settings a task: the defaults of TrainConfig hold for all, an entry here only overrides
them."""

from __future__ import annotations

from typing import Any

from relam_jax.envs.tasks import resolve_task
from relam_jax.training.config import TrainConfig

OVERRIDES: dict[str, dict[str, Any]] = {}


def preset(task: str) -> TrainConfig:
    """The config of a task by any spelling of its name; ValueError with one sentence if there is
    none."""
    name = resolve_task(task).name
    return TrainConfig(task=name, **OVERRIDES.get(name, {}))
