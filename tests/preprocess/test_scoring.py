"""TAP-Vid's numbers on tracks whose score is known, and the `truth` tracker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import ClipError
from preprocess_torch.scoring import score_tracks
from preprocess_torch.trackers import build_tracker
from relam_jax.envs.truth import Truth
from relam_jax.geometry import CameraPose


def moving(count: int = 5, frames: int = 9) -> np.ndarray:
    start = np.linspace(0.2, 0.4, count)[None, :, None] + np.zeros((frames, count, 2))
    return start + np.linspace(0, 0.3, frames)[:, None, None]


def test_scores() -> None:
    true = moving()
    seen = np.ones(true.shape[:2], bool)
    perfect = score_tracks(true, seen, true, seen)
    assert perfect.delta_avg == perfect.jaccard == perfect.occlusion == 100
    assert perfect.mean_error == 0
    # three pixels off in all frames but the query: within 4, 8 and 16
    off = true + np.array([3 / 256, 0])
    off[0] = true[0]
    score = score_tracks(off, seen, true, seen)
    assert score.delta_avg == pytest.approx(60) and score.delta_moving == pytest.approx(60)
    # Jaccard: right n, wrong counts as false and as missed: n / (n + 0) or 0 / (n + n)
    assert score.jaccard == pytest.approx(60)
    assert score.mean_error == pytest.approx(3) and score.final_error == pytest.approx(3)
    # half of the points are called hidden and are not
    said = seen.copy()
    said[:, :2] = False
    score = score_tracks(true, said, true, seen)
    assert score.occlusion == pytest.approx(60) and score.jaccard == pytest.approx(60)
    assert score.delta_avg == 100
    still = score_tracks(np.repeat(true[:1], 9, 0), seen, np.repeat(true[:1], 9, 0), seen)
    assert still.delta_avg == 100 and np.isnan(still.delta_moving)


def test_truth_tracker_projects_what_the_recorder_kept(tmp_path: Path) -> None:
    """A plane one metre in front of a camera slides 0.1 m to the right; its left half is hidden."""
    frames, size = 4, 32
    camera = CameraPose(np.zeros(3), np.eye(3), fovy=90.0)
    centre = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(2 * centre - 1, 1 - 2 * centre)
    shift = np.linspace(0, 0.1, frames)
    depth = np.ones((frames, size, size), np.float16)
    depth[1:, :, :16] = 0.5
    Truth(
        body_id=np.zeros((size, size), np.int16),
        local_xyz=np.stack([x, y, -np.ones_like(x)], -1).astype(np.float32),
        xpos=np.stack([shift, 0 * shift, 0 * shift], -1)[:, None],
        xmat=np.tile(np.eye(3), (frames, 1, 1, 1)),
        depth=depth,
        camera=camera,
    ).save(tmp_path / "000.truth.npz")
    tracker = build_tracker(PreprocessConfig(data=tmp_path, tracker="truth"))
    video = tmp_path / "000.mp4"
    queries = np.array([[20.5, 10.5], [4.5, 10.5]], np.float32)
    pictures = np.zeros((frames, size, size, 3), np.uint8)
    out = tracker.track(pictures, queries, np.zeros(2, np.int32), video)
    np.testing.assert_allclose(out.points[0], queries, atol=1e-4)
    np.testing.assert_allclose(out.points[-1], queries + np.array([0.1 / 2 * size, 0]), atol=1e-3)
    assert out.visibility[:, 0].all() and not out.visibility[1:, 1].any()
    assert tracker.inputs(video) == (tmp_path / "000.truth.npz",)
    with pytest.raises(ClipError, match="has 4 frames, the video 3"):
        tracker.track(pictures[:3], queries, np.zeros(2, np.int32), video)
    with pytest.raises(ClipError, match="record_demos"):
        tracker.track(pictures, queries, np.zeros(2, np.int32), tmp_path / "001.mp4")
