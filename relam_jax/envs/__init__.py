"""Simulators behind one batched protocol. Importing this package imports no simulator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from relam_jax.envs.protocol import BatchedEnv
from relam_jax.envs.tasks import resolve_task

# before jax first looks at a GPU: ManiSkill's simulation wants the rest of its memory
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")

if TYPE_CHECKING:
    from relam_jax.envs.tracking import TrackingConfig


def make_env(
    task: str,
    num_envs: int,
    *,
    seed: int,
    views: Sequence[str] | None = None,
    keypoints: Literal["projected", "tracked"] = "projected",
    tracking: TrackingConfig | None = None,
    measured: bool = False,
    **options: Any,
) -> BatchedEnv:
    """Make `num_envs` environments of a task, by any spelling of its name (`drawer-open-v3`).

    `views` names those of the task's views that it is seen in (default: all). Keypoints are
    projected from simulator state, or tracked in the cameras' images as `tracking` says, and
    `measured` then has their errors kept; `sim` (`auto`, `gpu`, `cpu`) says where ManiSkill
    simulates. `options` are those of the back end (see `MetaWorldEnv`, `ManiSkillEnv`).
    Raises ValueError, in one sentence, if there is no such task or view, or a tracker's code or
    weights are missing.
    """
    spec = resolve_task(task)
    if views is not None:
        spec = spec.seen_in(views)
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
    from relam_jax.envs.tracking import TrackingConfig, make_find, make_follow

    tracking = tracking or TrackingConfig()
    tracked = TrackedEnv(
        SimulatedCameras(env),
        num_candidates=env.num_candidates,
        follow=make_follow(tracking),
        find=make_find(tracking, spec.name, env.entity_names),
    )
    if not measured:
        return tracked
    from relam_jax.envs.measured import MeasuredEnv

    return cast(BatchedEnv, MeasuredEnv(tracked, env))
