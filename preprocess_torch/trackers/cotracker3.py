"""`cotracker3` and `cotracker3_online`: Meta's CoTracker3 through upstream's own code and weights.

`cotracker3` (offline) sees a chunk of the clip at once, past and future. Chunks overlap, so memory
does not grow with the clip: a point goes on from the frame of the overlap in which it was seen
best, and what the next chunk says counts from there. A point hidden in all of the overlap is
sought again from frame 0, which is put before that chunk. `cotracker3_online` goes through the
clip in windows of 16 frames and carries the look of frame 0 along: less memory, no look ahead.

While hidden, a point stands where the model believes it to be, with `visibility` off. Visible is
what upstream's evaluation calls so: visibility · confidence > 0.6. That product is kept as the
confidence. A point that leaves the picture is not visible, whatever the model says.

Upstream's pixel coordinates are integers at pixel centres, and its pictures are resized corner
centre to corner centre (`align_corners`).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.crop import find_box, parse_crop
from preprocess_torch.models import (
    checkpoint_file,
    import_torch,
    import_upstream,
    load_state,
    load_weights,
    pick_device,
    sha256,
)
from preprocess_torch.trackers.base import Seen, Tracks

ONLINE = "cotracker3_online"
URL = "https://huggingface.co/facebook/cotracker3/resolve/main/scaled_{mode}.pth"
INSTALL = (
    "install it by `pip install git+https://github.com/facebookresearch/co-tracker` "
    "or clone that repository"
)
MEMORY = tuple(
    f"online_{name}"
    for name in (
        *("ind", "track_feat", "track_support"),
        *("coords_predicted", "vis_predicted", "conf_predicted"),
    )
)
"""what upstream's model keeps from window to window"""
LICENCE = "CoTracker3: code and weights are CC-BY-NC-4.0, not for commercial use"


@dataclass(frozen=True)
class CoTrackerConfig:
    """Values are upstream's where upstream has one."""

    chunk: int = 60
    """offline: frames that the model sees at once; memory grows with it."""
    overlap: int = 12
    """offline: frames that a chunk shares with the one before."""
    iterations: int = 6
    """updates a chunk or window."""
    support: int = 6
    """a grid of support × support further points helps the model; they are dropped again."""
    visible: float = 0.6
    """visibility · confidence above which a point counts as seen."""
    crop: str = "auto"
    """see crop.py."""


class CoTracker3:
    """See the module's docstring."""

    def __init__(self, predictor: Any, name: str, config: CoTrackerConfig, weights: dict[str, str]):
        self._predictor, self._name, self._weights = predictor, name, weights
        self.config, self._lock = config, Lock()

    def describe(self) -> dict[str, Any]:
        """See `Tracker`."""
        return {"name": self._name, "version": 1, **asdict(self.config), "model": self._weights}

    def inputs(self, path: Path) -> tuple[Path, ...]:
        """Nothing but the video."""
        return ()

    def track(
        self,
        frames: UInt8[np.ndarray, "T H W 3"],
        queries: Float[np.ndarray, "Q 2"],
        entity_id: Int[np.ndarray, " Q"],
        path: Path,
        labels: UInt8[np.ndarray, "H W"] | None = None,
    ) -> Tracks:
        """See `Tracker`."""
        box = find_box(self.config.crop, frames, queries)
        cut = box.cut(frames)
        scale = self.scale(cut.shape[1:3])
        start = ((queries - box.corner - 0.5) * scale).astype(np.float32)
        follow = self._online if self._name == ONLINE else self._offline
        coords, trust = follow(cut, start)
        points = (coords / scale + 0.5 + box.corner).astype(np.float32)
        points[0], trust[0] = queries, 1.0
        return Tracks(*self.judge(points, trust, frames.shape[1:3]))

    def judge(
        self, points: np.ndarray, trust: np.ndarray, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points in a picture of (height, width), whether they are seen, and how surely."""
        inside = ((points >= 0) & (points <= shape[::-1])).all(-1)
        trust = np.where(inside, trust, 0.0).astype(np.float32)
        return points, trust > self.config.visible, trust

    @property
    def step(self) -> int:
        """Frames by which the online model's window moves on, half its length."""
        return self._predictor.step

    def scale(self, shape: tuple[int, ...]) -> Float[np.ndarray, "2"]:
        """Size of the model's picture over that of a picture of (height, width), x and y."""
        (height, width), (high, wide) = shape, self._predictor.interp_shape
        return np.array([(wide - 1) / (width - 1), (high - 1) / (height - 1)])

    def look(
        self, frames: np.ndarray, start: np.ndarray, memory: dict[str, Any] | None
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """The online model on a window, which the `memory` of the one before precedes by half its
        length: coords and trust as of `_offline` in its last frame, and its own memory. Threads may
        look at once."""
        model = self._predictor.model
        with self._lock, import_torch().no_grad():
            model.init_video_online_processing()
            for name, value in (memory or {}).items():  # upstream adds to these lists in place
                kept = [x.clone() for x in value] if isinstance(value, list) else value
                setattr(model, name, kept)
            coords, vis, conf, _ = model(
                video=self._video(frames),
                queries=self._queries(np.zeros(len(start)), start),
                iters=self.config.iterations,
                is_online=True,
            )
            memory = {name: getattr(model, name) for name in MEMORY}
        coords, trust = self._numpy(coords, vis, conf, len(start))
        return coords[-1], trust[-1], memory

    def _offline(self, frames: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """coords (T, Q, 2) in pixels of the model's picture, trust (T, Q)."""
        c, length, count = self.config, len(frames), len(start)
        coords, trust = np.zeros((length, count, 2), np.float32), np.zeros((length, count))
        done = min(c.chunk, length)
        coords[:done], trust[:done] = self._call(frames[:done], np.zeros(count), start)
        while done < length:
            begin = done - c.overlap
            end = min(begin + c.chunk, length)
            best = trust[begin:done].argmax(0)
            hidden = trust[begin:done].max(0) <= c.visible
            shown, before = frames[begin:end], int(hidden.any())
            if before:
                shown = np.concatenate([frames[:1], shown])
            queries = np.where(hidden[:, None], start, coords[begin + best, np.arange(count)])
            new_coords, new_trust = self._call(
                shown, np.where(hidden, 0, best + before), queries.astype(np.float32)
            )
            known = np.where(hidden, -1, best)  # last frame of the overlap that stays
            keep = np.arange(end - begin)[:, None] <= known
            coords[begin:end] = np.where(keep[..., None], coords[begin:end], new_coords[before:])
            trust[begin:end] = np.where(keep, trust[begin:end], new_trust[before:])
            done = end
        return coords, trust

    def _online(self, frames: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `_offline`."""
        torch, step = import_torch(), self.step
        queries = self._queries(np.zeros(len(start)), start)
        self._predictor.model.init_video_online_processing()
        coords = vis = conf = None
        with torch.no_grad():
            for begin in range(0, max(1, len(frames) - step), step):
                coords, vis, conf, _ = self._predictor.model(
                    video=self._video(frames[begin : begin + 2 * step]),
                    queries=queries,
                    iters=self.config.iterations,
                    is_online=True,
                )
        return self._numpy(coords, vis, conf, len(start))

    def _call(
        self, frames: np.ndarray, times: np.ndarray, points: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The offline model on one chunk; queries are `points` (Q, 2) at frames `times` (Q,)."""
        with import_torch().no_grad():
            coords, vis, conf, _ = self._predictor.model(
                video=self._video(frames),
                queries=self._queries(times, points),
                iters=self.config.iterations,
            )
        coords, trust = self._numpy(coords, vis, conf, len(points))
        coords[times.astype(int), np.arange(len(points))] = points  # upstream does the same
        return coords, trust

    def _numpy(self, coords: Any, vis: Any, conf: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
        trust = (vis * conf)[0, :, :count]
        return coords[0, :, :count].cpu().numpy(), trust.double().cpu().numpy()

    def _video(self, frames: np.ndarray) -> Any:
        """(T, H, W, 3) uint8 → (1, T, 3, h, w) float32, 0 to 255."""
        torch = import_torch()
        video = torch.from_numpy(np.ascontiguousarray(frames)).to(self._device)
        video = torch.nn.functional.interpolate(
            video.permute(0, 3, 1, 2).float(),
            tuple(self._predictor.interp_shape),
            mode="bilinear",
            align_corners=True,
        )
        return video[None]

    def _queries(self, times: np.ndarray, points: np.ndarray) -> Any:
        """(1, Q + support², 3): frame, x, y."""
        torch = import_torch()
        upstream = sys.modules["cotracker.models.core.model_utils"]
        queries = np.concatenate([times[:, None], points], axis=1).astype(np.float32)
        queries = torch.from_numpy(queries)[None]
        if self.config.support:
            grid = upstream.get_points_on_a_grid(
                self.config.support, tuple(self._predictor.interp_shape)
            )
            grid = torch.cat([torch.zeros_like(grid[..., :1]), grid], dim=-1)
            queries = torch.cat([queries, grid], dim=1)
        return queries.to(self._device)

    @property
    def _device(self) -> Any:
        return next(self._predictor.model.parameters()).device


class OnlineCoTracker:
    """See `OnlineTracker`: in each frame what `cotracker3_online` says of the clip that ends there,
    without a crop. Goes on from its state with a new window, not bit for bit."""

    def __init__(
        self,
        tracker: CoTracker3,
        frame: UInt8[np.ndarray, "H W 3"],
        queries: Float[np.ndarray, "Q 2"],
        entity_id: Int[np.ndarray, " Q"],
    ) -> None:
        """`queries`: pixels from the corner, in this first frame."""
        self._tracker, self._frames = tracker, [frame]
        self._scale = tracker.scale(frame.shape[:2])
        self._start = ((queries - 0.5) * self._scale).astype(np.float32)
        self._memory: dict[str, Any] | None = None
        ones = np.ones(len(queries))
        self._seen = Seen(queries.astype(np.float32), ones > 0, ones.astype(np.float32))

    def advance(self, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        """Look at the newest frames again, up to a window of them."""
        self._frames.append(frame)
        coords, trust, memory = self._tracker.look(
            np.stack(self._frames), self._start, self._memory
        )
        points = (coords / self._scale + 0.5).astype(np.float32)
        self._seen = Seen(*self._tracker.judge(points, trust, frame.shape[:2]))
        if len(self._frames) == 2 * self._tracker.step:
            self._memory, self._frames = memory, self._frames[self._tracker.step :]

    def seen(self) -> Seen:
        """See `OnlineTracker`."""
        return self._seen

    def located(self) -> Bool[np.ndarray, " Q"]:
        """See `OnlineTracker`: those that are seen."""
        return self._seen.visibility

    def reseed(self, labels: UInt8[np.ndarray, "H W"]) -> None:
        """Nothing: the model itself finds lost points again."""

    def state(self) -> dict[str, np.ndarray]:
        """See `OnlineTracker`."""
        return {"frame0": self._frames[-1], "points0": self._seen.points} | {
            name: getattr(self._seen, name) for name in ("visibility", "confidence")
        }

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """See `OnlineTracker`."""
        self._seen = Seen(self._seen.points, state["visibility"], state["confidence"])


def build(config: PreprocessConfig) -> CoTracker3:
    """Import upstream's code, check and load the weights."""
    if config.crop not in ("auto", "none"):
        parse_crop(config.crop)
    url = URL.format(mode="online" if config.tracker == ONLINE else "offline")
    return _load(
        config.tracker,
        config.cotracker_repo,
        config.tracker_checkpoint or url,
        config.device,
        CoTrackerConfig(crop=config.crop),
    )


@lru_cache(maxsize=1)
def _load(
    name: str, repo: Path | None, checkpoint: str, device: str, settings: CoTrackerConfig
) -> CoTracker3:
    """One model a process, however many data sets it goes through."""
    torch_device, online = pick_device(device), name == ONLINE
    upstream = import_upstream(
        "cotracker.predictor", repo, "--cotracker_repo", "RELAM_COTRACKER", INSTALL
    )
    file = checkpoint_file(
        checkpoint,
        f"download {URL.format(mode='online' if online else 'offline')} (102 MB) and name the file "
        "by --tracker_checkpoint",
    )
    print(LICENCE, file=sys.stderr)
    kind = upstream.CoTrackerOnlinePredictor if online else upstream.CoTrackerPredictor
    predictor = kind(checkpoint=None, offline=not online, window_len=16 if online else 60)
    load_weights(predictor.model, load_state(file), file)
    predictor.model.to(torch_device)
    return CoTracker3(predictor, name, settings, {"file": file.name, "sha256": sha256(file)})
