"""Simulators behind one batched protocol. Importing this package imports no simulator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, cast

from relam_jax.envs.protocol import BatchedEnv
from relam_jax.envs.tasks import resolve_task


def make_env(
    task: str,
    num_envs: int,
    *,
    seed: int,
    num_views: int | None = None,
    keypoints: Literal["projected", "tracked"] = "projected",
    measured: bool = False,
    **options: Any,
) -> BatchedEnv:
    """Make `num_envs` environments of a task, by any spelling of its name (`drawer-open-v3`).

    `num_views` keeps only the task's first cameras. Keypoints are projected from simulator state,
    or tracked in the cameras' images, where `measured` has their errors kept (`MeasuredEnv`);
    `sim` (`auto`, `gpu`, `cpu`) says where ManiSkill simulates. `options` are those of the back end
    (see `MetaWorldEnv`, `ManiSkillEnv`).
    Raises ValueError, in one sentence, if there is no such task.
    """
    spec = resolve_task(task)
    if num_views is not None:
        if not 1 <= num_views <= len(spec.cameras):
            raise ValueError(f"{spec.name} has {len(spec.cameras)} cameras, not {num_views}")
        spec = replace(spec, cameras=spec.cameras[:num_views])
    if spec.simulator == "maniskill":
        from relam_jax.envs.maniskill.env import ManiSkillEnv

        env = ManiSkillEnv(spec, num_envs, seed=seed, **options)
    else:
        from relam_jax.envs.metaworld import MetaWorldEnv

        options.pop("sim", None)
        env = MetaWorldEnv(spec, num_envs, seed=seed, **options)
    if keypoints == "projected":
        return env
    from relam_jax.envs.pixels import SimulatedCameras
    from relam_jax.envs.tracked import TrackedEnv

    tracked = TrackedEnv(SimulatedCameras(env), num_candidates=env.num_candidates)
    if not measured:
        return tracked
    from relam_jax.envs.measured import MeasuredEnv

    return cast(BatchedEnv, MeasuredEnv(tracked, env))
