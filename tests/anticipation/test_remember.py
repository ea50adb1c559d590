"""Frames are planned once, one by one."""

import jax.numpy as jnp
import numpy as np

from relam_jax.anticipation.plan import Plan, remember


def test_a_plan_depends_on_its_frame_alone_and_is_made_once():
    calls = []

    def planner(points, visibility):
        calls.append(points.shape)
        n, v, e = visibility.shape[:3]
        goal = jnp.asarray(points)[:, None, :, :, :1] + 0.1
        return Plan(
            jnp.zeros((n, v, e, 1), int),
            jnp.ones((n, v, e, 1), bool),
            jnp.asarray(points[..., :1, :]),
            goal,
            jnp.ones(n, int),
            jnp.zeros((n, 1, v, e)),
        )

    plan = remember(planner)
    points = np.random.default_rng(0).random((4, 2, 1, 5, 2)).astype(np.float32)
    seen = np.ones(points.shape[:-1], bool)
    first = plan(points, seen)
    assert calls == [(1, 2, 1, 5, 2)] * 4
    order = [3, 0, 3, 2]
    again = plan(points[order], seen[order])
    assert len(calls) == 4
    np.testing.assert_array_equal(again.subgoals, np.asarray(first.subgoals)[order])
    hidden = seen.copy()
    hidden[0, 0, 0, 0] = False
    plan(points, hidden)
    assert len(calls) == 5, "what is seen belongs to the frame"
