"""The planner of `--reward oracle`: true subgoals in the place of anticipated ones.

From every initial state of the pool the scripted expert is rolled out in the simulator, without
rendering, until it has succeeded for as long as in the demonstrations. The plan keeps its keypoints
and its number of subgoals; each subgoal becomes where those points truly were at the moment of the
roll-out nearest to it, the moments being in order and the last one the roll-out's end. The plan's
error is kept too, as θ_s follows from it. So nothing but how exact the subgoals are tells `oracle`
from `relam`. (Keyframes found anew among the roll-outs would be others than the demonstrations',
perhaps fewer, and the comparison one of keyframes too.)
"""

from __future__ import annotations

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from relam_jax.anticipation.plan import Plan, Planner
from relam_jax.envs import make_env
from relam_jax.envs.episodes import ProjectedEnv
from relam_jax.envs.protocol import BatchedEnv
from relam_jax.envs.tasks import resolve_task

MAX_ENV_STEPS = 300
"""of a roll-out, as of a recorded demonstration."""


def nearest_in_order(distance: Float[np.ndarray, "M T"]) -> Int[np.ndarray, " M"]:
    """Increasing moments, the last one T − 1, whose distances have the smallest sum."""
    total = [distance[0]]
    for row in distance[1:]:
        before = np.minimum.accumulate(total[-1])
        total.append(row + np.concatenate([[np.inf], before[:-1]]))
    moments = [distance.shape[1] - 1]
    for costs in total[-2::-1]:
        moments.append(int(np.argmin(costs[: moments[-1]])))
    return np.array(moments[::-1])


def true_plans(planner: Planner, expert: BatchedEnv, tail: int) -> Plan:
    """The plan of each initial state of the pool, with true subgoals.

    `expert` has an environment an initial state and takes an action each env_step; it is left at
    the end of the episodes. An episode counts once it has succeeded `tail` env_steps on end; where
    it never does, the anticipated plan stays, and stderr says how many there are.
    """
    count = expert.num_init_states
    plan = planner(*expert.reset(init_states=np.arange(count)))
    seen = expert.follow(np.asarray(plan.indices))
    track, held, ends = [], np.zeros(count, int), np.full(count, -1)
    for t in range(expert.episode_length):
        seen = expert.step(expert.scripted_actions())
        track.append(seen.keypoints)
        held = np.where(seen.success, held + 1, 0)
        ends = np.where((ends < 0) & (held > tail), t, ends)
        if (ends >= 0).all():
            break
    points, valid = np.stack(track, axis=1), np.asarray(plan.valid)  # (N, T, V, E, K, 2)
    subgoals = np.array(plan.subgoals)
    for n in np.flatnonzero(ends >= 0):
        wanted = subgoals[n, : int(plan.num_stages[n]), None]
        gap = np.linalg.norm(wanted - points[n, : ends[n] + 1], axis=-1)
        distance = (gap * valid[n]).sum((2, 3, 4)) / max(valid[n].sum(), 1)
        moments = nearest_in_order(distance)
        rows = np.resize(moments[-1], len(subgoals[n]))
        rows[: len(moments)] = moments
        subgoals[n] = points[n, rows]
    failed = int((ends < 0).sum())
    if failed:
        print(
            f"oracle: the scripted expert fails in {failed} of {count} initial states; "
            "their subgoals stay the anticipated ones",
            file=sys.stderr,
        )
    return plan._replace(subgoals=jnp.asarray(subgoals))


def make_oracle(planner: Planner, env: BatchedEnv, task: str, options: dict[str, Any]) -> Planner:
    """A planner for the running episodes of `env`, with the keypoints of `planner`.

    `options` are those of `make_env` on which the pool of initial states and what is seen of it
    depend. The points that it is called with are not looked at: an initial state's candidates are
    always the same.
    """
    assert isinstance(env, ProjectedEnv), "TrainConfig.check refuses other keypoints"
    spec = resolve_task(task)
    expert = make_env(
        task,
        env.num_init_states,
        action_repeat=1,
        episode_length=min(MAX_ENV_STEPS, spec.horizon),
        env_reward=True,  # with it comes the whole observation, which some experts read
        **options,
    )
    plans = true_plans(planner, expert, spec.tail)
    expert.close()
    return lambda points, visibility: jax.tree.map(lambda x: x[env.init_state], plans)
