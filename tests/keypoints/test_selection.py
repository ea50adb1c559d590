import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relam_jax.geometry import farthest_point_sampling
from relam_jax.keypoints.selection import SelectionConfig, group_by_entity, motion_range, select
from tests.keypoints.synthetic import record


def test_selected_points_move_and_belong_to_their_entity():
    r = record(0)
    still = r.tracks.copy()
    still[:, :, 12:18] = still[:, :1, 12:18]  # half of the object's points do not move
    r = dataclasses.replace(r, tracks=still)
    chosen = select(r, SelectionConfig(num_keypoints=4))
    assert chosen.points.shape == (40, 2, 2, 4, 2)
    assert (motion_range(chosen.points, chosen.visibility) >= 0.05).all()


def test_entity_that_never_reaches_theta_is_kept_whole():
    r = record(0)
    still = r.tracks.copy()
    still[:, :, 12:] = still[:, :1, 12:]
    chosen = select(dataclasses.replace(r, tracks=still), SelectionConfig(num_keypoints=4))
    assert chosen.visibility[0, :, 1].all()


def test_goal_entities_are_exempt_from_theta_while_moving_points_exist():
    r = record(0)
    half = r.tracks.copy()
    half[:, :, 12:18] = half[:, :1, 12:18]
    r = dataclasses.replace(r, tracks=half)
    config = SelectionConfig(num_keypoints=12, goal_entities=("object",))
    assert select(r, config).visibility[0, :, 1].sum() == 2 * 12
    assert select(r, SelectionConfig(num_keypoints=12)).visibility[0, :, 1].sum() == 2 * 6


@pytest.mark.parametrize("share,kept", [(0.8, True), (0.6, False)])
def test_points_seen_too_rarely_are_dropped(share, kept):
    r = record(0)
    seen = r.visibility.copy()
    seen[0, round(share * 40) :, 0] = False
    grouped = select(dataclasses.replace(r, visibility=seen), SelectionConfig(num_keypoints=12))
    assert (grouped.visibility[0, 0, 0].sum() == 12) == kept


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8))
def test_selection_is_a_set_whatever_the_order_of_the_candidates(seed, count):
    r = record(3)
    order = np.random.default_rng(seed).permutation(24)
    shuffled = dataclasses.replace(
        r,
        tracks=r.tracks[:, :, order],
        visibility=r.visibility[:, :, order],
        confidence=r.confidence[:, :, order],
        entity_id=r.entity_id[order],
    )
    config = SelectionConfig(num_keypoints=count)
    a, b = select(r, config).points[0], select(shuffled, config).points[0]
    for v in range(2):
        for e in range(2):
            assert {tuple(p) for p in a[v, e]} == {tuple(p) for p in b[v, e]}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(0, 20))
def test_farthest_point_sampling(seed, count, eligible):
    rng = np.random.default_rng(seed)
    points, mask = rng.uniform(size=(20, 2)), np.zeros(20, bool)
    mask[rng.permutation(20)[:eligible]] = True
    index, valid = farthest_point_sampling(points, mask, count)
    assert valid.sum() == min(count, eligible)
    assert len(set(index[valid])) == valid.sum() and mask[index[valid]].all()
    if (
        eligible > count > 2
    ):  # no left-out point is farther from the chosen than they are from each other
        chosen = points[index]
        gaps = np.linalg.norm(chosen[:, None] - chosen[None], axis=-1) + 9 * np.eye(count)
        left = points[mask & ~np.isin(np.arange(20), index)]
        assert (
            np.linalg.norm(left[:, None] - chosen[None], axis=-1).min(1).max() <= gaps.min() + 1e-9
        )


def test_numpy_and_jax_choose_alike():
    import jax
    import jax.numpy as jnp

    points = np.random.default_rng(0).uniform(size=(40, 2)).astype(np.float32)
    mask = points[:, 0] > 0.3
    expected = farthest_point_sampling(points, mask, 8)
    got = jax.jit(lambda p, m: farthest_point_sampling(p, m, 8))(
        jnp.asarray(points), jnp.asarray(mask)
    )
    np.testing.assert_array_equal(expected[0], got[0])


def test_groups_of_unequal_size_are_padded_with_invisible_slots():
    r = record(0)
    keep = np.r_[0:12, 12:15]
    r = dataclasses.replace(
        r,
        tracks=r.tracks[:, :, keep],
        visibility=r.visibility[:, :, keep],
        confidence=r.confidence[:, :, keep],
        entity_id=r.entity_id[keep],
    )
    grouped = group_by_entity(r)
    assert grouped.points.shape[3] == 12
    assert grouped.visibility[0, 0].sum(-1).tolist() == [12, 3]
