"""Keypoints that an online tracker follows in the cameras' images: no simulator state.

At the start of an episode the masks of the first images give the candidates, by the rule of the
videos; all of them are followed (they keep each other on the entity), and the planner's choice is
shown. A hidden point counts as seen while others of its entity tell where it is (`located`); else
it is hidden until it is found again.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from preprocess_torch.sampling import entity_queries
from preprocess_torch.trackers.base import OnlineTracker
from relam_jax.envs.pixels import Outcome, PixelEnv
from relam_jax.envs.protocol import Candidates, EnvState
from relam_jax.envs.tracking import Find, Follow, TrackingConfig, make_follow

PACKED_BYTES = 3 << 19
"""of one tracker in a checkpoint: arrays there keep their sizes."""


class TrackedEnv:
    """A `BatchedEnv` whose keypoints are tracked, on threads."""

    def __init__(
        self,
        cameras: PixelEnv,
        *,
        num_candidates: int = 32,
        num_threads: int = 2,
        follow: Follow | None = None,
        find: Find | None = None,
    ) -> None:
        """Nothing is reset yet. `follow` makes trackers (default: Lucas-Kanade), `find` label
        images (default: the cameras' own)."""
        self.cameras, self._find = cameras, find
        self._follow = follow or make_follow(TrackingConfig())
        self.num_envs, self.num_init_states = cameras.num_envs, cameras.num_init_states
        self.action_dim, self.proprio_dim = cameras.action_dim, cameras.proprio_dim
        self.view_names, self.entity_names = cameras.view_names, cameras.entity_names
        self.action_repeat, self.episode_length = cameras.action_repeat, cameras.episode_length
        self.num_candidates = num_candidates
        shape = (self.num_envs, len(self.view_names), len(self.entity_names), num_candidates)
        self._candidates = Candidates(np.zeros((*shape, 2), np.float32), np.zeros(shape, bool))
        self._points, self._seen = np.zeros((*shape, 2), np.float32), np.zeros(shape, bool)
        self._trackers: dict[tuple[int, int], OnlineTracker] = {}
        self._indices: np.ndarray | None = None
        self._outcome: Outcome | None = None
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="tracking")

    # ---------------------------------------------------------------- episodes

    def reset(
        self,
        mask: Bool[np.ndarray, " N"] | None = None,
        init_states: Int[np.ndarray, " N"] | None = None,
    ) -> Candidates:
        """See `BatchedEnv.reset`."""
        mask = np.ones(self.num_envs, bool) if mask is None else mask
        self._outcome = self.cameras.reset(mask, init_states)
        list(self._threads.map(self._begin, np.flatnonzero(mask).tolist()))
        return Candidates(*(x.copy() for x in self._candidates))

    def _begin(self, index: int) -> None:
        """Find the candidates of one environment and start to follow them."""
        count, entities = self.num_candidates, range(len(self.entity_names))
        points, valid = self._candidates
        valid[index] = False
        for view in range(len(self.view_names)):
            frame, labels = self._look(index, view)
            found = entity_queries(frame, [labels == e + 1 for e in entities], count)
            side = np.array(frame.shape[1::-1], np.float32)
            for e, queries in enumerate(found):
                valid[index, view, e, : len(queries)] = True
                points[index, view, e] = 0.5
                if len(queries):  # padding repeats them
                    points[index, view, e] = np.resize(queries / side, (count, 2))
            entity = np.repeat(entities, [len(queries) for queries in found])
            self._trackers[index, view] = self._follow(frame, np.concatenate(found), entity)
        self._points[index], self._seen[index] = points[index], valid[index]

    def _look(self, index: int, view: int) -> tuple[np.ndarray, np.ndarray]:
        """Image and label image of now."""
        frame = self.cameras.image(index, view)
        return frame, self._find(frame) if self._find else self.cameras.labels(index, view)

    def follow(
        self,
        indices: Int[np.ndarray, "N V E K"],
        mask: Bool[np.ndarray, " N"] | None = None,
    ) -> EnvState:
        """See `BatchedEnv.follow`."""
        if self._outcome is None:
            raise RuntimeError("call reset before follow")
        if mask is not None and self._indices is not None:
            indices = np.where(mask[:, None, None, None], indices, self._indices)
        self._indices = np.array(indices, np.int64)
        return self._state()

    @property
    def indices(self) -> Int[np.ndarray, "N V E K"]:
        """The candidates that are followed as keypoints."""
        assert self._indices is not None, "call follow first"
        return self._indices.copy()

    def step(self, action: Float[np.ndarray, "N A"]) -> EnvState:
        """See `BatchedEnv.step`."""
        self._outcome = self.cameras.step(action)
        list(self._threads.map(self._advance, range(self.num_envs)))
        return self._state()

    def _advance(self, index: int) -> None:
        """Follow the points of one environment into what its cameras show now."""
        for view in range(len(self.view_names)):
            valid = self._candidates.visibility[index, view]
            if not valid.any():  # this camera showed no entity at first
                continue
            frame, tracker = self.cameras.image(index, view), self._trackers[index, view]
            tracker.advance(frame)
            points = tracker.seen().points / np.array(frame.shape[1::-1], np.float32)
            self._points[index, view][valid] = points
            inside = ((points >= 0) & (points <= 1)).all(-1)
            self._seen[index, view][valid] = tracker.located() & inside

    def reseed(self, mask: Bool[np.ndarray, " N"]) -> None:
        """Take up lost points again by fresh masks where `mask` is True, before the next step."""
        list(self._threads.map(self._reseed, np.flatnonzero(mask).tolist()))

    def _reseed(self, index: int) -> None:
        for view in range(len(self.view_names)):
            tracker = self._trackers[index, view]
            if not tracker.seen().visibility.all():
                tracker.reseed(self._look(index, view)[1])

    def _state(self) -> EnvState:
        assert self._indices is not None and self._outcome is not None
        keypoints = np.take_along_axis(self._points, self._indices[..., None], axis=3)
        seen = np.take_along_axis(self._seen, self._indices, axis=3)
        return EnvState(keypoints, seen, *self._outcome)

    def scripted_actions(self) -> Float[np.ndarray, "N A"]:
        """There is none: experts read simulator state."""
        raise RuntimeError("no scripted expert sees pixels: use projected keypoints")

    def render(self, index: int, view: int) -> np.ndarray | None:
        """See `BatchedEnv.render`: the tracker's images."""
        return self.cameras.image(index, view)

    # ---------------------------------------------------------------- checkpoints

    def state(self) -> dict[str, Any]:
        """See `BatchedEnv.state`."""
        assert self._indices is not None and self._outcome is not None
        shape = (self.num_envs, len(self.view_names))
        packed, size = np.zeros((*shape, PACKED_BYTES), np.uint8), np.zeros(shape, np.int64)
        for key, tracker in self._trackers.items():
            buffer = io.BytesIO()
            np.savez_compressed(buffer, allow_pickle=False, **tracker.state())
            data = np.frombuffer(buffer.getvalue(), np.uint8)
            packed[key][: len(data)], size[key] = data, len(data)
        return {
            "cameras": self.cameras.state(),
            "candidates": self._candidates._asdict(),
            "points": self._points.copy(),
            "seen": self._seen.copy(),
            "indices": self._indices.copy(),
            "outcome": self._outcome._asdict(),
            "trackers": packed,
            "tracker_bytes": size,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from `state()`."""
        self.cameras.set_state(state["cameras"])
        self._candidates = Candidates(**{k: np.array(v) for k, v in state["candidates"].items()})
        self._points, self._seen = np.array(state["points"]), np.array(state["seen"])
        self._indices = np.array(state["indices"])
        self._outcome = Outcome(**{k: np.array(v) for k, v in state["outcome"].items()})
        entities = np.arange(len(self.entity_names))
        for index, view in np.ndindex(self.num_envs, len(self.view_names)):
            packed = np.asarray(state["trackers"])[index, view]
            packed = packed[: int(state["tracker_bytes"][index][view])]
            kept = np.load(io.BytesIO(packed.tobytes()))
            entity = np.repeat(entities, self._candidates.visibility[index, view].sum(-1))
            tracker = self._follow(kept["frame0"], kept["points0"], entity)
            tracker.set_state(kept)
            self._trackers[index, view] = tracker

    def close(self) -> None:
        """See `BatchedEnv.close`."""
        self._threads.shutdown()
        self.cameras.close()
