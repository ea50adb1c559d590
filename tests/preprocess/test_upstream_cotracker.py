"""The adapter against CoTracker3's own code with random weights: never a stand-in."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from preprocess_torch.cli import main
from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import UsageError
from preprocess_torch.models import sha256
from preprocess_torch.trackers import build_tracker
from preprocess_torch.trackers.cotracker3 import CoTracker3, OnlineCoTracker, _load
from relam_jax.envs import make_env
from relam_jax.envs.tracking import TrackingConfig
from relam_jax.keypoints.records import read_records

from .synthetic import line, render
from .upstream import need, need_torch

torch = need_torch()
need("cotracker", "RELAM_COTRACKER", "facebookresearch/co-tracker")
pytestmark = pytest.mark.filterwarnings("ignore")  # upstream's own
SMALL = (64, 64)
PATH = Path("a.mp4")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of random weights, as upstream saves them: one bare, one under `model`."""
    from preprocess_torch.models import import_upstream

    upstream: Any = import_upstream("cotracker.predictor", None, "", "RELAM_COTRACKER", "")
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    offline = upstream.CoTrackerPredictor(checkpoint=None).model.state_dict()
    online = upstream.CoTrackerOnlinePredictor(checkpoint=None).model.state_dict()
    torch.save(offline, folder / "offline.pth")
    torch.save({"model": online}, folder / "online.pth")
    return {"cotracker3": folder / "offline.pth", "cotracker3_online": folder / "online.pth"}


@pytest.fixture(autouse=True)
def no_memory_of_models() -> Iterator[None]:
    _load.cache_clear()
    yield
    _load.cache_clear()


def build(weights: dict[str, Path], name: str, small: bool = True, **fields: Any) -> CoTracker3:
    """The adapter as the command makes it; `small` lets the model see 64 × 64 pixels."""
    config = PreprocessConfig(
        data=Path("videos"),
        tracker=name,
        tracker_checkpoint=str(weights[name]),
        **{"crop": "none", "device": "cpu", **fields},
    )
    tracker = build_tracker(config)
    assert isinstance(tracker, CoTracker3)
    if small:
        tracker._predictor.interp_shape = tracker._predictor.model.model_resolution = SMALL
        tracker._predictor.support_grid_size = 2
        tracker.config = dataclasses.replace(tracker.config, support=2)
    return tracker


def clip(length: int, size: int = 96) -> np.ndarray:
    return render({"a": line(20, 12, length), "b": line(-6, 9, length)}, size=size)[0]


def points(count: int, size: int = 96, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(5, size - 5, (count, 2)).astype(np.float32)


def track(tracker: CoTracker3, frames: np.ndarray, queries: np.ndarray) -> Any:
    return tracker.track(frames, queries, np.zeros(len(queries), np.int32), PATH)


def as_upstream(frames: np.ndarray, queries: np.ndarray) -> tuple[Any, Any]:
    """(1, T, 3, H, W) and (1, Q, 3): frame, x, y with integers at pixel centres."""
    video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float()
    times = np.zeros((len(queries), 1), np.float32)
    return video, torch.from_numpy(np.concatenate([times, queries - 0.5], 1))[None]


def test_upstreams_integers_are_pixel_centres(weights: dict[str, Path]) -> None:
    build(weights, "cotracker3")
    from cotracker.models.core.model_utils import bilinear_sampler

    image = torch.arange(35.0).reshape(1, 1, 5, 7)
    at = torch.tensor([[2.0, 3.0], [6.0, 4.0], [2.5, 3.0]])[None, None]
    sampled = bilinear_sampler(image, at).flatten().tolist()
    np.testing.assert_allclose(sampled, [3 * 7 + 2, 4 * 7 + 6, 3 * 7 + 2.5], atol=1e-4)


def test_offline_equals_upstreams_predictor(weights: dict[str, Path]) -> None:
    tracker, frames, queries = build(weights, "cotracker3"), clip(6), points(4)
    mine = track(tracker, frames, queries)
    theirs, _ = tracker._predictor(*as_upstream(frames, queries))
    assert mine.points.shape == (6, 4, 2) and mine.points.dtype == np.float32
    assert mine.visibility.shape == mine.confidence.shape == (6, 4)
    np.testing.assert_allclose(mine.points, theirs[0].numpy() + 0.5, atol=1e-3)
    np.testing.assert_array_equal(mine.points[0], queries)
    assert mine.visibility[0].all()
    assert np.abs(mine.points[1:] - queries).max() > 0.01  # random, but not idle


def test_online_equals_upstreams_predictor(weights: dict[str, Path]) -> None:
    for length in (2, 9, 17):
        tracker, frames, queries = build(weights, "cotracker3_online"), clip(length), points(3)
        mine = track(tracker, frames, queries)
        theirs, seen = None, None
        video, asked = as_upstream(frames, queries)
        predictor = tracker._predictor
        predictor(video, is_first_step=True, queries=asked, add_support_grid=True)
        for begin in range(0, max(1, length - predictor.step), predictor.step):
            theirs, seen = predictor(
                video[:, begin : begin + 2 * predictor.step], add_support_grid=True
            )
        np.testing.assert_allclose(mine.points[1:], theirs[0, 1:].numpy() + 0.5, atol=1e-3)
        inside = ((mine.points >= 0) & (mine.points <= 96)).all(-1)
        np.testing.assert_array_equal(mine.visibility[1:], (seen[0].numpy() & inside)[1:])


def test_frame_by_frame_is_as_the_clip_so_far(weights: dict[str, Path]) -> None:
    """Two followers of one model, through two windows: neither leaves anything to the other."""
    tracker, frames, queries = build(weights, "cotracker3_online"), clip(18), points(3)
    entities = np.zeros(3, np.int32)
    online = OnlineCoTracker(tracker, frames[0], queries, entities)
    other = OnlineCoTracker(tracker, frames[0][::-1], queries, entities)
    for t in range(1, len(frames)):
        online.advance(frames[t])
        if t in (1, 2, 15):
            other.advance(frames[t][::-1])
        if t in (1, 15, 17):
            whole, now = track(tracker, frames[: t + 1], queries), online.seen()
            np.testing.assert_allclose(now.points, whole.points[-1], atol=1e-3)
            np.testing.assert_allclose(now.confidence, whole.confidence[-1], atol=1e-4)
    again = OnlineCoTracker(tracker, online.state()["frame0"], online.state()["points0"], entities)
    again.set_state(online.state())
    for mine, theirs in zip(again.seen(), online.seen(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_policy_can_be_tracked_by_it(weights: dict[str, Path]) -> None:
    """The environment of `--tracking.tracker cotracker3_online`, at the model's own resolution."""
    config = TrackingConfig("cotracker3_online", str(weights["cotracker3_online"]))
    env = make_env(
        "drawer_open",
        1,
        seed=0,
        num_views=1,
        num_candidates=4,
        keypoints="tracked",
        tracking=config,
        num_init_states=1,
    )
    try:
        candidates = env.reset()
    except RuntimeError as error:
        pytest.skip(f"no OpenGL back end works here: {error}")
    env.follow(np.zeros((1, 1, 2, 4), int))
    seen = env.step(np.zeros((1, 4), np.float32))
    assert seen.keypoints.shape == (1, 1, 2, 4, 2) and np.isfinite(seen.keypoints).all()
    moved = np.abs(seen.keypoints - candidates.points[:, :, :, :1]).max()
    assert moved > 1e-4, "random weights do not stand still"
    state = env.state()
    env.set_state(state)
    for a, b in zip(env.follow(np.zeros((1, 1, 2, 4), int)), seen, strict=True):
        np.testing.assert_array_equal(a, b)
    env.close()


def test_points_come_back_in_the_order_they_were_asked(weights: dict[str, Path]) -> None:
    for name in weights:
        tracker, frames, queries = build(weights, name), clip(6), points(4)
        change(tracker, iterations=2)
        order = np.array([3, 0, 1, 2])
        straight, shuffled = (
            track(tracker, frames, queries),
            track(tracker, frames, queries[order]),
        )
        np.testing.assert_allclose(shuffled.points, straight.points[:, order], atol=2e-3)
        again = track(tracker, frames, queries)  # nothing of a clip is left for the next
        np.testing.assert_array_equal(again.points, straight.points)


def change(tracker: CoTracker3, **fields: Any) -> None:
    tracker.config = dataclasses.replace(tracker.config, **fields)


def calls_of(tracker: CoTracker3, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any, Any]]:
    """(frames, queries, tracks) of every call of the real model, which does its work."""
    calls, model = [], tracker._predictor.model
    real = model.forward

    def forward(video: Any, queries: Any, **options: Any) -> Any:
        out = real(video=video, queries=queries, **options)
        calls.append((video.shape[1], queries[0].numpy(), out[0][0].numpy()))
        return out

    monkeypatch.setattr(model, "forward", forward)
    return calls


def test_chunks_go_on_where_the_last_one_saw_the_point(
    weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, frames, queries = build(weights, "cotracker3"), clip(26), points(5)
    change(tracker, visible=-1.0, chunk=12, overlap=4, iterations=2)  # all count as seen
    calls = calls_of(tracker, monkeypatch)
    tracks = track(tracker, frames, queries)
    scale = 63 / 95
    assert [length for length, _, _ in calls] == [12, 12, 10]
    for number, begin in ((1, 8), (2, 16)):
        times = calls[number][1][:5, 0].astype(int)
        assert ((times >= 0) & (times < 4)).all()
        # the query of the new chunk is the result of the old one, at the same frame
        np.testing.assert_allclose(
            calls[number][1][:5, 1:],
            (tracks.points[begin + times, np.arange(5)] - 0.5) * scale,
            atol=1e-3,
        )
        last = calls[number][0]
        np.testing.assert_allclose(
            tracks.points[begin + 4 : begin + last - 4],
            calls[number][2][4 : last - 4, :5] / scale + 0.5,
            atol=1e-3,
        )
    np.testing.assert_allclose(tracks.points[1:8], calls[0][2][1:8, :5] / scale + 0.5, atol=1e-3)


def test_hidden_points_are_sought_again_from_frame_0(
    weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, frames, queries = build(weights, "cotracker3"), clip(20), points(5)
    change(tracker, visible=2.0, chunk=12, overlap=4, iterations=2)  # none counts as seen
    calls = calls_of(tracker, monkeypatch)
    tracks = track(tracker, frames, queries)
    assert [length for length, _, _ in calls] == [12, 13]  # frame 0 comes before the chunk
    np.testing.assert_array_equal(calls[1][1][:5, 0], 0)
    np.testing.assert_allclose(calls[1][1][:5, 1:], (queries - 0.5) * 63 / 95, atol=1e-4)
    np.testing.assert_allclose(tracks.points[8:], calls[1][2][1:, :5] / (63 / 95) + 0.5, atol=1e-3)
    assert not tracks.visibility[1:].any()


def test_a_crop_is_mapped_back(weights: dict[str, Path]) -> None:
    frames, queries = clip(4), points(3, 40) + np.float32([30, 20])
    whole = build(weights, "cotracker3")
    cut = build(weights, "cotracker3", crop="0.25,0.125,0.875,0.75")  # 24…84, 12…72 of 96
    wanted = track(whole, np.ascontiguousarray(frames[:, 12:72, 24:84]), queries - (24, 12))
    found = track(cut, frames, queries)
    np.testing.assert_allclose(found.points, wanted.points + np.float32([24, 12]), atol=1e-3)


def test_what_leaves_the_picture_is_not_seen(weights: dict[str, Path]) -> None:
    tracker, frames = build(weights, "cotracker3"), clip(4)
    change(tracker, visible=-1.0)
    bias = tracker._predictor.model.updateformer.flow_head.bias
    with torch.no_grad():
        bias[0] += 2.0  # every iteration drives the points to the right
    tracks = track(tracker, frames, points(3))
    outside = (tracks.points[1:] > 96).any(-1)
    assert outside.any()
    assert (tracks.confidence[1:][outside] == 0).all()


def test_wrong_weights_get_one_sentence(weights: dict[str, Path], tmp_path: Path) -> None:
    def problem(checkpoint: object) -> str:
        with pytest.raises(UsageError) as caught:
            build({"cotracker3": Path(str(checkpoint))}, "cotracker3")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "of another model" in problem(weights["cotracker3_online"])
    (tmp_path / "text.pth").write_text("hello")
    assert "not a checkpoint" in problem(tmp_path / "text.pth")
    torch.save({"x": Path("code")}, tmp_path / "code.pth")  # a pickle that would run code
    assert "not a checkpoint" in problem(tmp_path / "code.pth")
    missing = problem(tmp_path / "none.pth")
    assert "scaled_offline.pth" in missing and "--tracker_checkpoint" in missing
    good = weights["cotracker3"]
    assert "was asked for" in problem(f"{good}#sha256={'0' * 64}")
    tracker = build({"cotracker3": Path(f"{good}#sha256={sha256(good)}")}, "cotracker3")
    assert tracker.describe()["model"] == {"file": "offline.pth", "sha256": sha256(good)}


def test_the_command_makes_records(
    weights: dict[str, Path],
    make_folder: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """At the model's real resolution, masks to records, both models."""
    folder = make_folder("push", 1)
    for name in weights:
        args = ["--data", folder, "--out", tmp_path / name, "--points", 8, "--tracker", name]
        args += ["--tracker_checkpoint", weights[name], "--device", "cpu"]
        assert main([str(a) for a in args]) == 0
        assert "CC-BY-NC-4.0" in capsys.readouterr().err
        record = read_records(tmp_path / name)[0]
        assert record.tracks.shape == (1, 12, 16, 2)
        assert sha256(weights[name]) in record.provenance
