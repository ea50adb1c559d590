"""Numbers about keypoints: what they count, and against the simulator's truth."""

from dataclasses import replace

import numpy as np
import pytest

from relam_jax.envs.truth import Truth
from relam_jax.geometry import CameraPose
from relam_jax.keypoints.selection import SelectionConfig
from relam_jax.report.quality import apart, keypoint_quality, overall
from tests.keypoints.synthetic import record

SELECTION = SelectionConfig(num_keypoints=4)


def test_counts_the_keypoints_that_a_threshold_leaves():
    clip = record(0)
    clip.tracks[:, :, 12:22] = clip.tracks[:, :1, 12:22]  # ten of the object's twelve stand still
    clip.visibility[:, 10:20] = False  # a quarter of the clip
    few = keypoint_quality([clip, clip], SELECTION)
    assert few["gripper"].an_entity == 4 and few["object"].an_entity == 2
    assert few["gripper"].in_sight == few["object"].in_sight == 0.75
    means = overall(few)
    assert means["an_entity"] == 3 and "error" not in means, "there is no truth here"
    whole = keypoint_quality([clip], SelectionConfig(min_motion=0.0, num_keypoints=4))
    assert whole["object"].an_entity == 4


def test_places_are_compared_within_the_entity():
    clip = record(0)
    moved = replace(clip, tracks=(0.5 * clip.tracks + 0.2).astype(np.float32))
    same = keypoint_quality([clip, moved], replace(SELECTION, min_motion=0.0))
    assert same["object"].apart == pytest.approx(0, abs=1e-5), "farther away and elsewhere"
    assert keypoint_quality([clip], SELECTION)["object"].apart is None


def test_apart_is_the_way_to_the_nearest_of_another_demonstration():
    one, other = [np.array([[0.0, 0.0], [0.4, 0.0]])], [np.array([[0.0, 0.1]])]
    expected = np.mean([0.1, np.hypot(0.4, 0.1), 0.1])
    assert apart([one, other]) == pytest.approx(expected)
    assert apart([one, [np.zeros((0, 2))]]) is None


def test_distance_to_true_tracks(tmp_path):
    """A camera that looks down at a plane which does not move: the truth stands still."""
    clip = record(0)
    frames = clip.num_frames
    still = Truth(
        body_id=np.zeros((8, 8), np.int16),
        local_xyz=np.zeros((8, 8, 3), np.float32),
        xpos=np.zeros((frames, 1, 3)),
        xmat=np.tile(np.eye(3), (frames, 1, 1, 1)),
        depth=np.full((frames, 4, 4), np.inf, np.float16),
        camera=CameraPose(np.array([0.0, 0.0, 1.0]), np.eye(3), 45.0),
    )
    clip.tracks[:] = clip.tracks[:, :1]
    clip.tracks[:, 1:, :, 0] += 0.01
    for view in clip.view_names:
        still.save(tmp_path / f"{clip.episode_id}.{view}.truth.npz")
    found = keypoint_quality([clip], replace(SELECTION, min_motion=0.0), tmp_path)
    for quality in found.values():
        assert quality.error == pytest.approx(0.01, abs=1e-4)
    (tmp_path / f"{clip.episode_id}.cam0.truth.npz").unlink()
    (tmp_path / f"{clip.episode_id}.cam1.truth.npz").unlink()
    assert keypoint_quality([clip], SELECTION, tmp_path)["object"].error is None
