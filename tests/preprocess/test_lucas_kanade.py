"""The tracker on motion that is known to a fraction of a pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocess_torch import sampling
from preprocess_torch.trackers.base import Tracks
from preprocess_torch.trackers.lucas_kanade import LucasKanadeTracker
from preprocess_torch.trackers.redetect import search_shift

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
