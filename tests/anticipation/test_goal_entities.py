"""A goal is looked at, not brought anywhere."""

import jax
import jax.numpy as jnp
import numpy as np

from relam_jax.anticipation.model import AnticipationModel, ModelConfig, pose_summary
from relam_jax.anticipation.plan import Anticipation, make_planner
from relam_jax.keypoints.keyframes import KeyframeConfig
from relam_jax.keypoints.selection import SelectionConfig
from relam_jax.presets import preset


def planned(goals: tuple[str, ...], goal_at: float):
    model = ModelConfig(num_views=1, num_entities=2, max_stages=2)
    points = np.random.default_rng(0).uniform(0.2, 0.8, (1, 1, 2, 6, 2)).astype(np.float32)
    points[:, :, 1] += goal_at
    seen = np.ones(points.shape[:-1], bool)
    start, known = jnp.asarray(points), jnp.asarray(seen)
    pose = pose_summary(start, known)
    params = AnticipationModel(model).init(jax.random.key(0), start[:, None], known[:, None], pose)
    params = jax.tree.map(lambda x: x + 0.05, params)  # the last layer begins with zeros
    anticipation = Anticipation(
        model=model,
        selection=SelectionConfig(goal_entities=goals),
        keyframes=KeyframeConfig(),
        task="pick_cube",
        view_names=("cam0",),
        entity_names=("gripper", "goal"),
        num_stages=2,
        test_error=(0.01, 0.01),
        group_error=(((0.01, 0.01),),) * 2,
        params=params,
    )
    return make_planner(anticipation)(points, seen)


def test_a_goal_is_not_followed_but_the_plan_depends_on_it():
    plan = planned(("goal",), 0.0)
    assert plan.valid[0, 0, 0].all() and not plan.valid[0, 0, 1].any()
    assert planned((), 0.0).valid.all()
    moved = planned(("goal",), 0.15)
    assert np.abs(moved.subgoals[..., 0, :, :] - plan.subgoals[..., 0, :, :]).max() > 1e-6


def test_the_presets_of_maniskill_know_their_goals():
    assert preset("pick_cube").selection.goal_entities == ("goal",)
    assert preset("PickCube-v1").task == "pick_cube"
    assert preset("drawer_open").selection.goal_entities == ()
    assert (preset("PullCube-v1").arm_scale, preset("drawer_open").arm_scale) == (0.3, 1.0)
