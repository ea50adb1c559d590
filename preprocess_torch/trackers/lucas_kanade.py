"""`lucas_kanade`: pyramidal Lucas-Kanade flow with checks, on a CPU and without weights.

A frame is taken in six steps:

1. flow from the frame before; a point is good if the way back ends where it began, and the patch
   around it looks like the one it started from, or like its own slow average;
2. a good point that leaves its companions (similarity.py: points that have moved with it so far)
   is lost, unless enough of them leave with it;
3. a lost point goes where the motion of its companions since frame 0 puts it; if the patch of
   frame 0 is found near there, it is good again;
4. one that was seen a frame ago, and whose place still looks as before, is carried: it counts as
   seen, for textureless surfaces fail step 1 though nothing hides them;
5. good points are pulled to where flow straight from frame 0 puts them, if that looks better: no
   drift;
6. an entity of which little is seen is searched for by its look when most of it was last seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.trackers.base import Seen, Tracks
from preprocess_torch.trackers.patches import patches_at
from preprocess_torch.trackers.redetect import search_shift
from preprocess_torch.trackers.similarity import MIN_COMPANIONS, Companions

VERSION = 4
"""Part of the provenance: raise it when tracks change."""


@dataclass(frozen=True)
class LucasKanadeConfig:
    """Lengths are pixels of the working image, whose short side is at least `short_side`."""

    short_side: int = 256
    """smaller videos are enlarged to this (cubic): at 128 px δ_avg rises from 58 to 71."""
    window: int = 7
    """side of the flow's window; larger ones mix what moves apart."""
    levels: int = 3
    """pyramid levels above the image."""
    blur: float = 0.5
    """sigma of the Gaussian that takes away aliasing; more of it loses texture."""
    round_trip: float = 1.0
    """largest error of forward-backward flow."""
    patch: int = 7
    """side of the patch whose look is compared."""
    gate: float = 25.0
    """largest mean absolute difference of patches, grey levels of 255."""
    carry: float = 15.0
    """the same, for a lost point that counts as seen where its companions put it."""
    average: float = 0.05
    """weight of a new frame in the slow average of a patch."""
    stray: float = 1.0
    """largest step of a good point away from its companions."""
    enough: int = 6
    """seen points that an entity needs for its lost ones to be placed from frame 0, and carried."""
    allies: int = 4
    """companions that make a stray point good if they have made the same step: a finger that starts
    to move."""
    ally_step: float = 0.5
    """largest difference to the step of such a companion."""
    mostly: float = 0.6
    """share of an entity's points that has to be seen for its look to be remembered."""
    hardly: float = 0.25
    """an entity of which less is seen is searched for."""
    search: float = 80.0
    """largest distance of that search; it grows from 12 by 4 a frame."""
    found: float = 0.15
    """share of its points that have to be found, on one motion."""
    recover: float = 3.0
    """a lost point is taken up again within this distance of where its companions put it."""
    anchor: float = 1.0
    """a good point is pulled at most this far to where flow from frame 0 puts it."""


class _Picture(NamedTuple):
    """A frame as the tracker sees it."""

    frame: np.ndarray
    """(H, W, 3) uint8, as it came."""
    flow: np.ndarray
    """(h, w, 3) uint8, for the flow."""
    smooth: np.ndarray
    """the same with less detail, for comparing patches at sub-pixel shifts."""

    @staticmethod
    def make(frame: np.ndarray, size: tuple[int, int], blur: float) -> _Picture:
        """Bring a frame to the working size."""
        sized = frame
        if frame.shape[1::-1] != size:
            sized = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
        flow = cv2.GaussianBlur(sized, (0, 0), blur) if blur else sized
        return _Picture(frame, flow, cv2.GaussianBlur(flow, (0, 0), 0.8))


class _View(NamedTuple):
    """Points in a frame, to be found again in others."""

    picture: _Picture
    points: np.ndarray
    patches: np.ndarray
    frame: int


class PyramidFlow:
    """Flow between two pictures with its checks, for the trackers here and in group_flow.py."""

    config: LucasKanadeConfig

    def _find_again(
        self,
        seen: _View,
        now: _Picture,
        index: int,
        moved: np.ndarray,
        good: np.ndarray,
        mine: np.ndarray,
    ) -> bool:
        """Put the points `mine` of an entity where they are found in frame `index`, if they are."""
        c = self.config
        around = (moved[mine] - seen.points).mean(0)
        reach = min(c.search, 12.0 + 4.0 * (index - seen.frame))
        shift = search_shift(seen.picture.smooth, seen.points, now.smooth, around, reach)
        if shift is None:
            return False
        guess = (seen.points + shift).astype(np.float32)
        there, error = self._there_and_back(seen.picture, now, seen.points, guess)
        found = (error < c.round_trip) & (np.linalg.norm(there - guess, axis=-1) < 2 * c.recover)
        found &= self._look(now, there, seen.patches, seen.patches) < c.gate
        # they have to agree on one motion
        companions = Companions(seen.points, np.zeros(len(mine), np.int32))
        together = companions.predict(seen.points, there, found, np.arange(len(mine)))
        found &= np.linalg.norm(there - together, axis=-1) < c.round_trip + c.ally_step
        if found.sum() < max(c.allies, c.found * len(mine)):
            return False
        moved[mine] = np.where(found[:, None], there, together)
        good[mine] = found
        return True

    def _there_and_back(
        self, a: _Picture, b: _Picture, start: np.ndarray, guess: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Flow of `start` from image a to b, begun at `guess`, and the error of the way back."""
        c = self.config
        options = {
            "winSize": (c.window, c.window),
            "maxLevel": c.levels,
            "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.01),
            "flags": cv2.OPTFLOW_USE_INITIAL_FLOW,
        }
        there, found, _ = cv2.calcOpticalFlowPyrLK(a.flow, b.flow, start, guess.copy(), **options)
        back, found_back, _ = cv2.calcOpticalFlowPyrLK(
            b.flow, a.flow, there, start.copy(), **options
        )
        error = np.linalg.norm(back - start, axis=-1)
        height, width = b.flow.shape[:2]
        inside = ((there >= 0) & (there <= (width - 1, height - 1))).all(-1)
        ok = (found[:, 0] > 0) & (found_back[:, 0] > 0) & inside & np.isfinite(error)
        return np.where(np.isfinite(there), there, start), np.where(ok, error, np.inf)

    def _look(
        self, picture: _Picture, points: np.ndarray, patch_0: np.ndarray, slow: np.ndarray
    ) -> np.ndarray:
        """Mean absolute difference to the nearer of the two reference patches, a point."""
        here = patches_at(picture.smooth, points, self.config.patch)
        return np.minimum(abs(here - patch_0).mean((1, 2)), abs(here - slow).mean((1, 2)))


class LucasKanadeTracker:
    """See the module's docstring."""

    def __init__(self, config: LucasKanadeConfig | None = None):
        self.config = config or LucasKanadeConfig()
        cv2.setNumThreads(1)  # one process a core is what scales; also keeps results the same

    def describe(self) -> dict[str, Any]:
        """See `Tracker`."""
        return {"name": "lucas_kanade", "version": VERSION, **asdict(self.config)}

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
        online = OnlineLucasKanade(frames[0], queries, entity_id, self.config)
        history = [online.seen()]
        for frame in frames[1:]:
            online.advance(frame)
            history.append(online.seen())
        return Tracks(*(np.stack(column) for column in zip(*history, strict=True)))


_KEPT = ("slow", "points", "good", "trust", "index")


class OnlineLucasKanade(PyramidFlow):
    """See `OnlineTracker`; goes on from its state bit for bit."""

    def __init__(
        self,
        frame: UInt8[np.ndarray, "H W 3"],
        queries: Float[np.ndarray, "Q 2"],
        entity_id: Int[np.ndarray, " Q"],
        config: LucasKanadeConfig,
    ) -> None:
        """`queries`: pixels from the corner, in this first frame."""
        self.config, self._entity_id = config, entity_id
        self._size, self._scale = _working_size(frame.shape[:2], config.short_side)
        # OpenCV's integers are pixel centres, hence the half
        start = (queries * self._scale - 0.5).astype(np.float32)
        first = _Picture.make(frame, self._size, config.blur)
        self._origin = _View(first, start, patches_at(first.smooth, start, config.patch), 0)
        self._companions = Companions(start, entity_id)
        self._entities = [np.flatnonzero(entity_id == index) for index in np.unique(entity_id)]
        self._last_seen = [
            _View(first, start[e], self._origin.patches[e], 0) for e in self._entities
        ]
        self._slow, self._points, self._before = self._origin.patches.copy(), start, first
        self._good, self._trust = np.ones(len(start), bool), np.ones(len(start), np.float32)
        self._index = 0

    def state(self) -> dict[str, np.ndarray]:
        """Everything that `set_state` needs to go on bit for bit."""
        out = {name: np.asarray(getattr(self, f"_{name}")) for name in _KEPT}
        out |= {"before": self._before.frame, "drift": self._companions.drift}
        for number, view in enumerate((self._origin, *self._last_seen)):
            out |= {f"frame{number}": view.picture.frame, f"points{number}": view.points}
            out |= {f"patches{number}": view.patches, f"index{number}": np.asarray(view.frame)}
        return out

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from the `state` of a tracker of the same points."""
        for name in _KEPT:
            setattr(self, f"_{name}", np.array(state[name]))

        def picture(name: str) -> _Picture:
            return _Picture.make(np.array(state[name]), self._size, self.config.blur)

        self._before = picture("before")
        self._origin, *self._last_seen = [
            _View(
                picture(f"frame{n}"),
                np.array(state[f"points{n}"]),
                np.array(state[f"patches{n}"]),
                int(state[f"index{n}"]),
            )
            for n in range(1 + len(self._entities))
        ]
        self._companions = Companions(self._origin.points, self._entity_id)
        self._companions.drift = np.array(state["drift"])

    def seen(self) -> Seen:
        """Where the points are in the newest frame, pixels from the corner."""
        points = ((self._points + 0.5) / self._scale).astype(np.float32)
        return Seen(points, self._good, self._trust)

    def located(self) -> Bool[np.ndarray, " Q"]:
        """See `OnlineTracker`: of an entity of which enough is seen all points."""
        count = np.bincount(self._entity_id[self._good], minlength=self._entity_id.max() + 1)
        return self._good | (count >= MIN_COMPANIONS)[self._entity_id]

    def reseed(self, labels: UInt8[np.ndarray, "H W"]) -> None:
        """Take up lost points again by masks of the newest frame, in which i shows entity i − 1.

        An entity of which too little is seen to tell where the rest is moves as a whole to the
        middle of its mask. Lost points inside it count as seen from then on, as they look there.
        """
        places, located = self.seen().points.astype(np.float64), self.located()
        for entity in np.unique(self._entity_id[~located]):
            mine, mask = self._entity_id == entity, labels == entity + 1
            if mask.any():
                places[mine] += np.argwhere(mask)[:, ::-1].mean(0) + 0.5 - places[mine].mean(0)
        column, row = np.clip(places.astype(int), 0, np.array(labels.shape[::-1]) - 1).T
        found = ~self._good & (labels[row, column] == self._entity_id + 1)
        self._points = (places * self._scale - 0.5).astype(np.float32)
        patches = patches_at(self._before.smooth, self._points, self.config.patch)
        self._slow = np.where(found[:, None, None], patches, self._slow)
        self._good = self._good | found

    def advance(self, frame: UInt8[np.ndarray, "H W 3"]) -> None:
        """Follow the points into the next frame."""
        c, entity_id, origin = self.config, self._entity_id, self._origin
        companions, start, slow = self._companions, self._origin.points, self._slow
        self._index += 1
        now = _Picture.make(frame, self._size, c.blur)
        # 1. flow
        moved, error = self._there_and_back(self._before, now, self._points, self._points)
        look = self._look(now, moved, origin.patches, slow)
        good = self._good & (error < c.round_trip) & (look < c.gate)
        # 2. companions
        everyone = np.arange(len(start))
        together = companions.predict(self._points, moved, good, everyone)
        follows = np.linalg.norm(moved - together, axis=-1) < c.stray
        allies = companions.agreeing(self._points, moved, good, c.ally_step)
        good &= follows | (allies >= c.allies)
        # 3. the lost
        lost = np.flatnonzero(~good)
        guess = together[lost]
        enough = np.bincount(entity_id[good], minlength=entity_id.max() + 1)[entity_id[lost]]
        enough = enough >= c.enough
        # from frame 0 errors do not add up, but a few companions do not span what has changed since
        guess[enough] = companions.predict(start, moved, good, lost[enough])
        moved[lost], error[lost] = guess, 0.5 * c.round_trip
        look[lost] = self._look(now, moved[lost], origin.patches[lost], slow[lost])
        carried = lost[enough & self._good[lost] & (look[lost] < c.carry)]
        found = self._pull_to_origin(origin, now, moved, lost, c.recover, None)
        good[lost[found]] = True
        # 5. no drift (before 4: a carried point was just put where its companions are)
        self._pull_to_origin(origin, now, moved, np.flatnonzero(good), c.anchor, look)
        # 4. the carried
        good[carried] = True
        # 6. the hidden
        patches = patches_at(now.smooth, moved, c.patch)
        for number, mine in enumerate(self._entities):
            share = good[mine].mean()
            if share > c.mostly:
                self._last_seen[number] = _View(now, moved[mine], patches[mine], self._index)
            elif share < c.hardly and self._find_again(
                self._last_seen[number], now, self._index, moved, good, mine
            ):
                slow[mine] = patches[mine] = patches_at(now.smooth, moved[mine], c.patch)

        companions.observe(moved, good)
        trust = np.clip(1 - 0.5 * error / c.round_trip - 0.5 * look / c.gate, 0, 1)
        averaged = (1 - c.average) * slow + c.average * patches
        self._slow = np.where(good[:, None, None], averaged, slow)
        self._trust = np.where(good, trust, 0).astype(np.float32)
        self._before, self._points, self._good = now, moved, good

    def _pull_to_origin(
        self,
        origin: _View,
        now: _Picture,
        moved: np.ndarray,
        which: np.ndarray,
        reach: float,
        look: np.ndarray | None,
    ) -> np.ndarray:
        """Put points `moved[which]` where flow from frame 0 says, and tell which could be.

        That is: at most `reach` away, with a good round trip and look; a better one than now if
        `look` is given.
        """
        if len(which) == 0:
            return np.zeros(0, bool)
        c, patches = self.config, origin.patches[which]
        there, error = self._there_and_back(origin.picture, now, origin.points[which], moved[which])
        look_there = self._look(now, there, patches, patches)
        found = np.linalg.norm(there - moved[which], axis=-1) < reach
        found &= (error < c.round_trip) & (look_there < c.gate)
        if look is not None:
            found &= look_there < self._look(now, moved[which], patches, patches)
        moved[which[found]] = there[found]
        return found


def _working_size(shape: tuple[int, ...], short_side: int) -> tuple[tuple[int, int], np.ndarray]:
    """(width, height) of the working image, and its scale (2,) against the video."""
    height, width = shape
    factor = max(1.0, short_side / min(height, width))
    size = (round(width * factor), round(height * factor))
    return size, np.array([size[0] / width, size[1] / height])


def build(config: PreprocessConfig) -> LucasKanadeTracker:
    """Defaults; `config` has nothing to say here."""
    return LucasKanadeTracker()
