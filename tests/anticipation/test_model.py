from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.anticipation.model import AnticipationModel, ModelConfig, pose_summary, roll_out

CONFIG = ModelConfig(width=16, num_heads=2, num_layers=2, max_stages=4)
MODEL = AnticipationModel(CONFIG)


@pytest.fixture(scope="module")
def setup():
    key = jax.random.key(0)
    points = jax.random.uniform(key, (2, 3, 2, 2, 5, 2))
    seen = jnp.ones(points.shape[:-1], bool).at[:, :, 1, 1, 3:].set(False)
    pose = pose_summary(points[:, 0], seen[:, 0])
    params = MODEL.init(key, points, seen, pose)
    # the output layer starts at zero; give it weights so that the tests see what is inside
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    noisy = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, noisy), points, seen, pose


def test_the_order_of_the_points_does_not_matter(setup):
    params, points, seen, pose = setup
    order = jnp.array([3, 1, 4, 0, 2])
    a = MODEL.apply(params, points, seen, pose)
    shuffled = points[:, :, :, :, order], seen[:, :, :, :, order]
    b = MODEL.apply(params, *shuffled, pose_summary(shuffled[0][:, 0], shuffled[1][:, 0]))
    np.testing.assert_allclose(a.displacement[:, :, :, :, order], b.displacement, atol=1e-5)
    np.testing.assert_allclose(a.in_sight[:, :, :, :, order], b.in_sight, atol=1e-5)
    np.testing.assert_allclose(a.stop, b.stop, atol=1e-5)


def test_later_stages_are_never_looked_at(setup):
    params, points, seen, pose = setup
    a, _, stop_a, _ = MODEL.apply(params, points, seen, pose)
    b, _, stop_b, _ = MODEL.apply(params, points.at[:, 2].set(0.1), seen, pose)
    np.testing.assert_allclose(a[:, :2], b[:, :2], atol=1e-6)
    np.testing.assert_allclose(stop_a[:, :2], stop_b[:, :2], atol=1e-6)
    assert not np.allclose(a[:, 2], b[:, 2])


def test_hidden_points_are_no_context(setup):
    params, points, seen, pose = setup
    moved = jnp.where(seen[..., None], points, 0.9)
    a, _, stop_a, _ = MODEL.apply(params, points, seen, pose)
    b, _, stop_b, _ = MODEL.apply(params, moved, seen, pose_summary(moved[:, 0], seen[:, 0]))
    np.testing.assert_allclose(jnp.where(seen[..., None], a - b, 0), 0, atol=1e-5)
    np.testing.assert_allclose(stop_a, stop_b, atol=1e-5)


def test_any_number_of_points_views_and_stages_fits_up_to_the_config(setup):
    params, points, seen, pose = setup
    few = points[:, :1, :, :, :2], seen[:, :1, :, :, :2]
    assert MODEL.apply(params, *few, pose).displacement.shape == (2, 1, 2, 2, 2, 2)
    with pytest.raises(ValueError, match="knows 2 views, 2 entities and 4 stages"):
        MODEL.apply(
            params, jnp.zeros((1, 5, 2, 2, 1, 2)), jnp.ones((1, 5, 2, 2, 1), bool), pose[:1]
        )


def test_where_a_goal_is_shown_the_way_to_it_is_a_constant(setup):
    """As long as the last layer says +1 for the second entity and −1 for the first, whatever its
    tokens, points go the way from the one to the other as it is in each view."""
    _, points, seen, pose = setup
    model = AnticipationModel(replace(CONFIG, shows_goal=True))
    params = model.init(jax.random.key(0), points, seen, pose)["params"]
    constant = params["Dense_3"] | {"bias": jnp.array([0.0, 0.0, 0.0, -1.0, 1.0])}
    out = model.apply({"params": params | {"Dense_3": constant}}, points, seen, pose)
    place = pose.reshape(2, 2, 2, 3, 2)[:, :, :, 0]  # clip, view, entity
    way = jnp.broadcast_to((place[:, :, 1] - place[:, :, 0])[:, None, :, None, None], points.shape)
    np.testing.assert_allclose(out.displacement, way, atol=1e-6)


def test_roll_out_feeds_each_stage_its_own_prediction(setup):
    params, points, seen, pose = setup
    out = roll_out(MODEL, params, points[:, 0], seen[:, 0], 3)
    in_sight = seen[:, 0] & (out.in_sight > 0)
    track = jnp.concatenate([points[:, :1], out.subgoals[:, :-1]], axis=1)
    context = jnp.repeat(in_sight[:, None], 3, axis=1).at[:, 0].set(seen[:, 0])
    at_once = MODEL.apply(params, track, context, pose)
    np.testing.assert_allclose(out.subgoals, track + at_once.displacement, atol=1e-5)
    np.testing.assert_allclose(out.stop, at_once.stop, atol=1e-5)


def test_pose_summary_reads_visible_points_only(setup):
    _, points, seen, pose = setup
    moved = jnp.where(seen[..., None], points, 0.9)
    np.testing.assert_array_equal(pose, pose_summary(moved[:, 0], seen[:, 0]))
    box = pose.reshape(2, 2, 2, 3, 2)[:, 1, 1]  # mean, least, greatest
    some = points[:, 0, 1, 1, :3] - 0.5
    np.testing.assert_allclose(box[:, 0], some.mean(1), atol=1e-6)
    np.testing.assert_allclose(box[:, 1], some.min(1), atol=1e-6)
    np.testing.assert_allclose(box[:, 2], some.max(1), atol=1e-6)
