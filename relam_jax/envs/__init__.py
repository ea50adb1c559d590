"""Simulators behind one batched protocol. Importing this package imports no simulator."""

from __future__ import annotations

from typing import Any

from relam_jax.envs.protocol import BatchedEnv
from relam_jax.envs.tasks import resolve_task


def make_env(task: str, num_envs: int, *, seed: int, **options: Any) -> BatchedEnv:
    """Make `num_envs` environments of a task, by any spelling of its name (`drawer-open-v3`).

    `options` are those of the back end (see `MetaWorldEnv`). Raises ValueError, in one sentence, if
    there is no such task.
    """
    spec = resolve_task(task)
    from relam_jax.envs.metaworld import MetaWorldEnv

    return MetaWorldEnv(spec, num_envs, seed=seed, **options)
