"""The tracker on motion that is known to a fraction of a pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess_torch import sampling
from preprocess_torch.trackers.base import Tracks
from preprocess_torch.trackers.group_flow import GroupFlowTracker
from preprocess_torch.trackers.groups import Group, gains
from preprocess_torch.trackers.lucas_kanade import LucasKanadeTracker
from preprocess_torch.trackers.redetect import search_shift
from preprocess_torch.trackers.two_flows import TwoFlowsTracker

from .synthetic import line, render


def sample_queries(frame: np.ndarray, mask: np.ndarray, count: int) -> np.ndarray:
    return sampling.sample_queries(frame, mask, count, np.random.default_rng(0))


def track(
    frames: np.ndarray, masks: dict[str, np.ndarray], count: int = 40
) -> tuple[Tracks, np.ndarray, np.ndarray]:
    queries = [sample_queries(frames[0], mask, count) for mask in masks.values()]
    entity_id = np.repeat(np.arange(len(queries), dtype=np.int32), [len(q) for q in queries])
    points = np.concatenate(queries)
    return LucasKanadeTracker().track(frames, points, entity_id, Path("x.mp4")), points, entity_id


@pytest.mark.parametrize("size", [96, 160, 256])
def test_sub_pixel_motion(size: int) -> None:
    """Also where the working image is larger than the video: a wrong half pixel would show."""
    shifts = {"object": line(11.3, -7.6)}
    frames, masks = render(shifts, size=size)
    out, queries, _ = track(frames, masks)
    error = np.linalg.norm(out.points - (queries + shifts["object"][:, None]), axis=-1)
    assert np.median(error[-1]) < 0.3
    assert np.quantile(error, 0.9) < 0.5 and error.max() < 2  # those at the edge are the worst
    bias = (out.points - (queries + shifts["object"][:, None])).mean((0, 1))
    assert abs(bias).max() < 0.1
    assert out.visibility.mean() > 0.95
    assert (out.confidence[out.visibility] > 0).all() and out.confidence.max() <= 1


def test_queries_are_pixel_centres_inside_the_mask() -> None:
    frames, masks = render({"object": line(3, 3)})
    queries = sample_queries(frames[0], masks["object"], 64)
    assert queries.shape == (64, 2)
    np.testing.assert_array_equal(queries % 1, 0.5)
    columns, rows = queries.astype(int).T
    assert masks["object"][rows, columns].all()
    assert len(np.unique(queries, axis=0)) == 64
    # a mask of three pixels gives three points
    tiny = np.zeros_like(masks["object"])
    tiny[40, 50:53] = True
    assert len(sample_queries(frames[0], tiny, 64)) == 3


def test_parts_of_an_entity_may_move_apart() -> None:
    """One entity of two squares, as a hand and its finger: the few do not follow the many."""
    shifts = {"hand": line(0, 9), "finger": line(0, -6)}
    frames, masks = render(shifts, side=22)
    hand = sample_queries(frames[0], masks["hand"], 50)
    finger = sample_queries(frames[0], masks["finger"], 8)
    queries = np.concatenate([hand, finger])
    out = LucasKanadeTracker().track(frames, queries, np.zeros(58, np.int32), Path("x.mp4"))
    truth = np.concatenate(
        [hand + shifts["hand"][:, None], finger + shifts["finger"][:, None]], axis=1
    )
    error = np.linalg.norm(out.points - truth, axis=-1)[-1]
    assert np.quantile(error[:50], 0.8) < 0.5 and np.median(error[50:]) < 1


def test_hidden_points_go_on_with_their_entity_and_are_seen_again() -> None:
    """A bar passes over part of a moving square."""
    length = 24
    shifts = {"object": line(30, 4, length)}
    frames, masks = render(shifts)
    for t in range(6, 15):
        left = 5 + 4 * (t - 6)
        frames[t, :, left : left + 9] = (90, 40, 160)
    out, queries, _ = track(frames, masks)
    truth = queries + shifts["object"][:, None]
    hidden = np.zeros(out.visibility.shape, bool)
    for t in range(6, 15):
        left = 5 + 4 * (t - 6)
        hidden[t] = (truth[t, :, 0] > left + 1) & (truth[t, :, 0] < left + 8)
    assert hidden.sum() > 30
    assert out.visibility[hidden].mean() < 0.3
    assert out.visibility[-1].mean() > 0.8
    error = np.linalg.norm(out.points - truth, axis=-1)
    assert np.median(error[hidden]) < 1.5 and np.median(error[-1]) < 0.5


def test_an_entity_that_was_hidden_as_a_whole_is_found_again() -> None:
    """It moves on behind a wall; nothing of it is seen for eight frames."""
    length = 30
    shifts = {"object": line(48, 6, length)}
    frames, masks = render(shifts, size=128)
    frames[8:16, :, :90] = (30, 30, 60)
    out, queries, _ = track(frames, masks)
    truth = queries + shifts["object"][:, None]
    assert not out.visibility[10:16].any()
    assert out.visibility[-1].mean() > 0.8
    assert np.median(np.linalg.norm(out.points - truth, axis=-1)[-1]) < 0.5


def test_search_shift_stays_inside_the_picture() -> None:
    frames, masks = render({"object": line(20, 9)})
    points = (sample_queries(frames[0], masks["object"], 30) - 0.5).astype(np.float32)
    found = search_shift(frames[0], points, frames[-1], np.zeros(2), 30.0)
    assert found is not None
    np.testing.assert_allclose(found, [20, 9], atol=1)
    assert search_shift(frames[0], points, frames[-1], np.array([500.0, 0.0]), 30.0) is None
    assert search_shift(frames[0], points + 1000, frames[-1], np.zeros(2), 30.0) is None


def test_the_same_clip_gives_the_same_tracks() -> None:
    frames, masks = render({"a": line(5, 5), "b": line(-3, 4)})
    first, again = track(frames, masks)[0], track(frames, masks)[0]
    np.testing.assert_array_equal(first.points, again.points)
    np.testing.assert_array_equal(first.confidence, again.confidence)


def test_a_white_clip_and_points_on_the_edge() -> None:
    frames = np.full((4, 40, 60, 3), 255, np.uint8)
    mask = np.ones((40, 60), bool)
    out, queries, _ = track(frames, {"all": mask})
    assert np.isfinite(out.points).all()
    np.testing.assert_allclose(out.points[-1], queries, atol=1e-3)


def test_points_without_texture_go_where_the_others_take_them() -> None:
    """Corners give an affine motion; plain points, whose own flow is wrong, follow it."""
    rng = np.random.default_rng(0)
    before = rng.uniform(0, 60, (40, 2))
    turn = np.array([[0.7, -0.2], [0.3, 1.1]])
    true = (before - 30) @ turn.T + 35
    gain, wrong = np.tile(np.eye(2), (40, 1, 1)), true.copy()
    gain[20:] *= 0
    wrong[20:] += 9
    moved, factor = Group(before, 15.0, 0.1).motion(before, wrong, gain, 0.5)
    assert abs(moved - true).max() < 0.5
    np.testing.assert_allclose(factor, np.linalg.det(turn), atol=0.1)
    over = before * [-1, 1]
    assert (Group(before, 15.0, 0.1).motion(before, over, gain, 0.5)[1] < 0).all()


def test_an_edge_knows_its_motion_across_alone() -> None:
    plain = np.full((1, 49, 3), 80, np.float32)
    edge = np.full((1, 7, 7, 3), 20, np.float32)
    edge[:, :, 4:] = 200
    gain = gains(np.concatenate([plain, edge.reshape(1, 49, 3)]), np.ones((2, 49)), 6.0)
    np.testing.assert_allclose(gain[0], np.zeros((2, 2)), atol=1e-9)
    assert gain[1, 0, 0] > 0.95 and abs(gain[1, 1, 1]) < 1e-9
    other = np.ones((1, 49))
    other.reshape(7, 7)[:, 3:] = 0  # the edge is that of another entity
    assert gains(edge.reshape(1, 49, 3), other, 6.0)[0, 0, 0] < 1e-9


def test_group_flow_follows_a_square() -> None:
    shifts = {"object": line(11.3, -7.6)}
    frames, masks = render(shifts)
    queries = sample_queries(frames[0], masks["object"], 40)
    tracker = GroupFlowTracker()
    args = (frames, queries, np.zeros(40, np.int32), Path("x.mp4"))
    out = tracker.track(*args, masks["object"].astype(np.uint8))
    error = np.linalg.norm(out.points - (queries + shifts["object"][:, None]), axis=-1)
    assert np.median(error[-1]) < 0.5 and out.visibility.mean() > 0.95
    with pytest.raises(ValueError, match="masks"):
        tracker.track(*args)


def test_of_two_flows_the_one_that_fits_is_taken() -> None:
    """Each entity's tracks are those of the better tracker: the other one's are led astray here."""
    shifts = {"gripper": line(4, 16), "object": line(11.3, -7.6)}
    frames, masks = render(shifts)
    labels = np.zeros(frames.shape[1:3], np.uint8)
    queries, ids = [], np.repeat(np.arange(2, dtype=np.int32), 30)
    for index, mask in enumerate(masks.values()):
        labels[mask] = index + 1
        queries.append(sample_queries(frames[0], mask, 30))
    args = (frames, np.concatenate(queries), ids, Path("x.mp4"), labels)
    true = args[1] + np.stack([shifts["gripper"], shifts["object"]], 1)[:, ids]
    for astray in ("_plain", "_group"):
        for entity in (0, 1):
            tracker = TwoFlowsTracker()
            good = getattr(tracker, astray)
            setattr(tracker, astray, Astray(good, ids == entity))
            error = np.linalg.norm(tracker.track(*args).points - true, axis=-1)
            assert np.median(error[-1, ids == entity]) < 0.5, (astray, entity)
            assert np.median(error[-1, ids != entity]) < 0.5, (astray, entity)


class Astray:
    """A tracker that leaves some of the points behind."""

    def __init__(self, tracker: LucasKanadeTracker, which: np.ndarray):
        self._tracker, self._which = tracker, which

    def track(self, *args: Any) -> Tracks:
        out = self._tracker.track(*args)
        points = out.points.copy()
        points[:, self._which] = points[:1, self._which]
        return Tracks(points, out.visibility, out.confidence)
