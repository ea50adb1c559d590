"""Does the reward follow the task? The stage machine along demonstrations, also backwards."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from relam_jax.anticipation.plan import Anticipation, make_planner
from relam_jax.keypoints.schema import KeypointRecord
from relam_jax.keypoints.selection import group_by_entity
from relam_jax.report.along import reward_along
from relam_jax.report.demonstration import Demonstrations
from relam_jax.report.run_folder import RunFolder
from relam_jax.report.statistics import spearman
from relam_jax.report.svg import GRID, panel, run_colour, to_svg
from relam_jax.reward.stage_machine import RewardConfig
from relam_jax.training.goal_env import goal_of

VARIANTS = ("forward", "reversed", "static")
MAX_CLIPS = 8
"""Held-out demonstrations whose reward is drawn."""


class Progress(NamedTuple):
    """Rewards along one demonstration."""

    reward: dict[str, Float[np.ndarray, " F"]]
    """by variant: forward, reversed (the same plan, frames backwards), static (the first frame)."""
    stages_met: dict[str, int]
    """subgoals met at the end, by variant."""
    correlation: dict[str, float]
    """Spearman's, of the reward with time; NaN where the reward is constant."""
    num_stages: int


def progress(
    records: list[KeypointRecord], anticipation: Anticipation, config: RewardConfig
) -> list[Progress]:
    """Anticipate from each record's first frame, as training does from the simulator's: from all
    candidates, of which those are followed that are to move. The reward is that of their tracks.

    All variants follow the plan of the true first frame. Constant rewards are found up to 1e-6.
    """
    planner, results = make_planner(anticipation), []
    longest = max(r.num_frames for r in records)
    for record in records:
        tracks = group_by_entity(record)
        plan = planner(tracks.points[:1], tracks.visibility[:1])
        indices, valid = np.asarray(plan.indices), np.asarray(plan.valid)[0]
        points = np.take_along_axis(tracks.points, indices[..., None], axis=3)
        seen = np.take_along_axis(tracks.visibility, indices, axis=3) & valid
        goals = goal_of(plan, record.entity_names, config)
        goal = jax.tree.map(lambda x: x[0], goals)
        order = np.arange(record.num_frames)
        rewards, stages = {}, {}
        for name, at in zip(VARIANTS, (order, order[::-1], 0 * order), strict=True):
            padded = np.pad(at, (0, longest - len(at)), mode="edge")  # one shape, one compilation
            along = reward_along(
                jnp.asarray(points[padded]), jnp.asarray(seen[padded]), goal, config
            )
            rewards[name] = np.asarray(along.reward)[: len(at) - 1]
            stages[name] = int(along.stage[len(at) - 2])
        correlation = {
            name: spearman(order[1:].astype(float), reward.astype(float).round(4))
            for name, reward in rewards.items()
        }
        results.append(Progress(rewards, stages, correlation, int(plan.num_stages[0])))
    return results


def reward_section(demos: Demonstrations, run: RunFolder) -> dict[str, Any]:
    """Reward along held-out demonstrations, forwards, backwards and standing still."""
    records = [demos.records[i] for i in demos.held_out[:MAX_CLIPS]]
    results = progress(records, demos.anticipation, run.config.shaping)
    figure, axes = panel("task progress (share of the frames)", "reward")
    for number, result in enumerate(results):
        for v, name in enumerate(VARIANTS):
            y = result.reward[name]
            x = np.arange(1, len(y) + 1) / len(y)
            width, alpha = (1.8, 1.0) if number == 0 else (0.8, 0.35)
            axes.plot(x, y, color=run_colour(v), linewidth=width, alpha=alpha)
    for k in range(1, results[0].num_stages):
        axes.axhline(k / results[0].num_stages, color=GRID, linewidth=0.6, linestyle=":")
    axes.set_xlim(0, 1)
    axes.set_ylim(-0.03, 1.05 * max(1.0, *(float(r.reward["forward"].max()) for r in results)))
    table = []
    for name in VARIANTS:
        values = [r.correlation[name] for r in results]
        known = [v for v in values if np.isfinite(v)]
        table.append(
            {
                "name": name,
                "correlation": float(np.mean(known)) if known else None,
                "last": float(np.mean([r.reward[name][-1] for r in results])),
                "stages": float(np.mean([r.stages_met[name] for r in results])),
            }
        )
    svg = to_svg(figure, "reward along held-out demonstrations")
    return {
        "plot": svg,
        "table": table,
        "clips": len(records),
        "kind": demos.kind,
        "episode": records[0].video_id,
        "num_stages": results[0].num_stages,
        "form": run.config.shaping.form,
    }
