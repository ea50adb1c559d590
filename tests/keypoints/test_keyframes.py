import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relam_jax.keypoints.keyframes import (
    KeyframeConfig,
    angle_keyframes,
    dynamic_time_warping,
    fill_hidden,
    find_keyframes,
    straightness_error,
    waypoints,
)
from relam_jax.keypoints.selection import EpisodeTracks, SelectionConfig, select
from tests.keypoints.synthetic import CORNERS, record


def clips(count, **kwargs):
    return [select(record(s, 40 + s, **kwargs), SelectionConfig()) for s in range(count)]


@pytest.mark.parametrize("noise", [0.0, 0.002])
def test_waypoints_find_the_bends_of_every_clip(noise):
    set_of_clips = clips(6, noise=noise)
    found = find_keyframes(set_of_clips, KeyframeConfig(tolerance=0.015))
    assert found.frames.shape == (6, 3)
    for clip, frames in zip(set_of_clips, found.frames, strict=True):
        centre = clip.points[:, 0, 0].mean(1)
        moved = centre[frames] - centre[0]
        np.testing.assert_allclose(moved, CORNERS[1:] - CORNERS[0], atol=0.04)


def test_angle_puts_a_keyframe_at_the_sharpest_bends():
    clip = clips(1)[0]
    flat = clip.points.reshape(40, -1, 2)
    found = angle_keyframes(flat, 0.1, 0.4)
    centre = clip.points[:, 0, 0].mean(1)
    for corner in CORNERS[1:3] - CORNERS[0]:
        assert np.linalg.norm(centre[found] - centre[0] - corner, axis=-1).min() < 0.05


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(6, 40), st.floats(0.05, 0.3), st.floats(0.3, 0.6))
def test_angle_respects_the_bounds_and_ends_on_the_last_frame(seed, frames, least, most):
    points = np.random.default_rng(seed).uniform(size=(frames, 5, 2))
    found = angle_keyframes(points, least, most)
    gaps = np.diff([0, *found])
    m, big = max(1, round(least * (frames - 1))), max(1, round(most * (frames - 1)))
    assert found[-1] == frames - 1
    assert (gaps >= m).all()
    assert (gaps[:-1] <= big).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.2))
def test_waypoints_stay_within_tolerance_and_are_fewest(seed, tolerance):
    rng = np.random.default_rng(seed)
    points = np.cumsum(rng.normal(0, 0.03, (12, 1, 1, 2, 2)), axis=0) + 0.5
    clip = EpisodeTracks(points.astype(np.float32), np.ones((12, 1, 1, 2), bool))
    error = straightness_error(clip.points, clip)
    found = waypoints(error, tolerance)
    ends = [0, *found]
    assert found[-1] == 11 and all(error[a, b] <= tolerance for a, b in itertools.pairwise(ends))
    # brute force over all chains of fewer segments
    from itertools import combinations

    for fewer in range(len(found) - 1):
        for chain in combinations(range(1, 11), fewer):
            knots = [0, *chain, 11]
            assert any(error[a, b] > tolerance for a, b in itertools.pairwise(knots))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.3, 3.0), st.floats(-0.2, 0.2))
def test_keyframes_do_not_change_with_scale_and_shift(scale, shift):
    points = clips(1)[0].points.reshape(40, -1, 2).astype(np.float64)
    assert angle_keyframes(points, 0.1, 0.4) == angle_keyframes(scale * points + shift, 0.1, 0.4)


def test_joint_keyframes_give_every_clip_the_same_count():
    found = find_keyframes(clips(5, noise=0.006), KeyframeConfig(tolerance=0.01))
    assert found.counts_alone.shape == (5,)
    assert len(set(found.counts_alone)) > 1, "noise makes the clips disagree by themselves"
    assert (np.diff(found.frames, axis=1) >= 0).all()


def test_noise_never_makes_more_keyframes_than_the_most_allowed():
    noisy = clips(3, noise=0.01)
    many = find_keyframes(noisy, KeyframeConfig(tolerance=0.002, max_count=48)).frames.shape[1]
    assert many > 5
    few = find_keyframes(noisy, KeyframeConfig(tolerance=0.002, max_count=5))
    assert 3 <= few.frames.shape[1] <= 5 and few.counts_alone.max() <= 5


def test_time_warping_matches_the_same_motion_at_another_speed():
    slow = np.linspace(0, 1, 30)[:, None]
    fast = np.linspace(0, 1, 15)[:, None]
    match = dynamic_time_warping(slow, fast)
    assert match[0] == 0 and match[-1] == 14 and (np.diff(match) >= 0).all()
    assert np.abs(fast[match] - slow).max() < 0.08


def test_hidden_frames_are_interpolated():
    track = np.linspace(0, 1, 5)[:, None, None] * np.ones((1, 1, 2))
    seen = np.array([True, False, True, False, False])[:, None]
    broken = np.where(seen[..., None], track, 9.0)
    np.testing.assert_allclose(fill_hidden(broken, seen)[:, 0, 0], [0, 0.25, 0.5, 0.5, 0.5])
