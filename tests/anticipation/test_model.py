import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relam_jax.anticipation.model import AnticipationModel, ModelConfig, roll_out

CONFIG = ModelConfig(width=16, num_heads=2, num_layers=2, max_stages=4)
MODEL = AnticipationModel(CONFIG)


@pytest.fixture(scope="module")
def setup():
    key = jax.random.key(0)
    points = jax.random.uniform(key, (2, 3, 2, 2, 5, 2))
    seen = jnp.ones(points.shape[:-1], bool).at[:, :, 1, 1, 3:].set(False)
    params = MODEL.init(key, points, seen)
    # the output layer starts at zero; give it weights so that the tests see what is inside
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    noisy = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, noisy), points, seen


def test_the_order_of_the_points_does_not_matter(setup):
    params, points, seen = setup
    order = jnp.array([3, 1, 4, 0, 2])
    a, stop_a = MODEL.apply(params, points, seen)
    b, stop_b = MODEL.apply(params, points[:, :, :, :, order], seen[:, :, :, :, order])
    np.testing.assert_allclose(a[:, :, :, :, order], b, atol=1e-5)
    np.testing.assert_allclose(stop_a, stop_b, atol=1e-5)


def test_later_stages_are_never_looked_at(setup):
    params, points, seen = setup
    a, stop_a = MODEL.apply(params, points, seen)
    b, stop_b = MODEL.apply(params, points.at[:, 2].set(0.1), seen)
    np.testing.assert_allclose(a[:, :2], b[:, :2], atol=1e-6)
    np.testing.assert_allclose(stop_a[:, :2], stop_b[:, :2], atol=1e-6)
    assert not np.allclose(a[:, 2], b[:, 2])


def test_hidden_points_are_no_context(setup):
    params, points, seen = setup
    moved = jnp.where(seen[..., None], points, 0.9)
    a, stop_a = MODEL.apply(params, points, seen)
    b, stop_b = MODEL.apply(params, moved, seen)
    np.testing.assert_allclose(jnp.where(seen[..., None], a - b, 0), 0, atol=1e-5)
    np.testing.assert_allclose(stop_a, stop_b, atol=1e-5)


def test_any_number_of_points_views_and_stages_fits_up_to_the_config(setup):
    params, points, seen = setup
    assert MODEL.apply(params, points[:, :1, :1, :, :2], seen[:, :1, :1, :, :2])[0].shape == (
        *(2, 1, 1, 2, 2),
        2,
    )
    with pytest.raises(ValueError, match="knows 2 views, 2 entities and 4 stages"):
        MODEL.apply(params, jnp.zeros((1, 5, 2, 2, 1, 2)), jnp.ones((1, 5, 2, 2, 1), bool))


def test_roll_out_feeds_each_stage_its_own_prediction(setup):
    params, points, seen = setup
    subgoals, stop = roll_out(MODEL, params, points[:, 0], seen[:, 0], 3)
    track = jnp.concatenate([points[:, :1], subgoals[:, :-1]], axis=1)
    displacement, logits = MODEL.apply(params, track, jnp.repeat(seen[:, :1], 3, axis=1))
    np.testing.assert_allclose(subgoals, track + displacement, atol=1e-5)
    np.testing.assert_allclose(stop, logits, atol=1e-5)
