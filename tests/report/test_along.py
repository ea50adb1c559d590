"""The reward along given keypoints: equal to the loop's, high forwards, low otherwise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from relam_jax.anticipation.plan import load_anticipation, make_planner
from relam_jax.keypoints.keyframes import KeyframeConfig, find_keyframes
from relam_jax.keypoints.selection import SelectionConfig, select
from relam_jax.report.along import reward_along
from relam_jax.report.progress import VARIANTS, progress
from relam_jax.reward.stage_machine import Goal, RewardConfig, keypoint_reward, start_stage
from tests.keypoints.synthetic import record


def demonstration():
    """Tracks, and the true keyframes as the goal."""
    tracks = select(record(0), SelectionConfig(num_keypoints=4))
    frames = find_keyframes([tracks], KeyframeConfig()).frames[0]
    points, valid = jnp.asarray(tracks.points), jnp.asarray(tracks.visibility[0])
    threshold = jnp.full((len(frames), *valid.shape[:2]), 0.02)
    count, ones = jnp.asarray(len(frames)), jnp.ones_like(threshold)
    goal = Goal(points[frames], valid, count, threshold, threshold, 0 * ones, ones)
    return points, jnp.asarray(tracks.visibility), goal


def test_equals_one_step_at_a_time():
    points, seen, goal = demonstration()
    config = RewardConfig(stage_bonus=0.5)
    along = reward_along(points, seen, goal, config)
    state = start_stage(points[0], seen[0], goal, config)
    advance = jax.jit(partial(keypoint_reward, config=config))
    for t in range(1, len(points)):
        reward, state = advance(state, points[t], seen[t], goal)
        np.testing.assert_allclose(along.reward[t - 1], reward, rtol=1e-5)
        assert int(along.stage[t - 1]) == int(state.stage)
    assert int(along.stage[-1]) == int(goal.num_stages)


def test_the_true_plan_pays_forwards_only():
    points, seen, goal = demonstration()
    forward = np.asarray(reward_along(points, seen, goal, RewardConfig()).reward)
    backward = np.asarray(reward_along(points[::-1], seen[::-1], goal, RewardConfig()).reward)
    still = np.asarray(reward_along(points[:1].repeat(40, 0), seen, goal, RewardConfig()).reward)
    assert forward[-1] == 1.0
    assert backward[-1] < 0.7
    assert np.ptp(still) == 0
    assert still[-1] < 0.2


def test_progress_of_clips_of_different_length(model):
    anticipation = load_anticipation(model)
    # the untrained model stays where it is: with a floor above nothing, no subgoal is met at once
    config = RewardConfig(success_floor=1e-12)
    results = progress([record(0, frames=20), record(1)], anticipation, config)
    assert [len(r.reward["forward"]) for r in results] == [19, 39]
    for result in results:
        assert set(result.reward) == set(VARIANTS)
        assert np.isnan(result.correlation["static"])


def test_plans_are_made_of_all_candidates(model, monkeypatch):
    """As in training: of the few points that selection leaves a plan is worse."""
    seen = []

    def planner(anticipation):
        plan = make_planner(anticipation)
        return lambda points, visibility: seen.append(visibility.shape) or plan(points, visibility)

    monkeypatch.setattr("relam_jax.report.progress.make_planner", planner)
    progress([record(0)], load_anticipation(model), RewardConfig())
    assert seen == [(1, 2, 2, 12)], "twelve slots an entity and view"
