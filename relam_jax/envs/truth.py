"""The simulator's true geometry of a recorded clip: where any pixel of its first frame goes.

Reads what `experiments/record_demos.py --truth` writes. numpy only: no simulator, no jax.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int

from relam_jax.geometry import CameraPose, project

_DEPTH_TOLERANCE = 0.01
"""metres: a point counts as hidden when something lies this much in front of it."""


@dataclass(frozen=True)
class Truth:
    """True geometry of one clip from one fixed camera: T frames, B bodies."""

    body_id: Int[np.ndarray, "H W"]
    """int16: the body that each pixel of the first frame shows, −1 for none."""
    local_xyz: Float[np.ndarray, "H W 3"]
    """float32, metres: the surface point at each pixel's centre, in the frame of its body."""
    xpos: Float[np.ndarray, "T B 3"]
    """metres, world: origins of the bodies."""
    xmat: Float[np.ndarray, "T B 3 3"]
    """their rotations (columns are the body's axes)."""
    depth: Float[np.ndarray, "T h w"]
    """float16, metres along the optical axis (inf: nothing); perhaps coarser than the video."""
    camera: CameraPose

    def tracks(
        self, queries: Float[np.ndarray, "Q 2"]
    ) -> tuple[Float[np.ndarray, "T Q 2"], Bool[np.ndarray, "T Q"]]:
        """Follow points of the first frame: (tracks in image sides, visibility).

        A query off its pixel's centre keeps its offset to it. A query that hits no body stays where
        it is. Visible: inside the image and nothing in front of it.
        """
        height, width = self.body_id.shape
        column = np.clip((queries[:, 0] * width).astype(int), 0, width - 1)
        row = np.clip((queries[:, 1] * height).astype(int), 0, height - 1)
        body = self.body_id[row, column].astype(int)
        local = self.local_xyz[row, column].astype(np.float64)
        turned = np.einsum("tqij,qj->tqi", self.xmat[:, body], local)
        world = self.xpos[:, body] + turned
        tracks = project(world, self.camera)
        tracks = tracks + (queries - tracks[0])
        tracks[:, body < 0] = queries[body < 0]
        inside = np.all((tracks > 0) & (tracks < 1), axis=-1)
        distance = (self.camera.position - world) @ self.camera.rotation[:, 2]
        hidden = self._nearest_depth(tracks) + _DEPTH_TOLERANCE < distance
        return tracks.astype(np.float32), inside & (~hidden | (body < 0))

    def _nearest_depth(self, points: Float[np.ndarray, "T Q 2"]) -> Float[np.ndarray, "T Q"]:
        """The farthest depth among the four pixels around each point (lenient at edges)."""
        frames, height, width = self.depth.shape
        frame = np.arange(frames)[:, None]
        safe = np.nan_to_num(points, nan=0.0)
        left = np.floor(safe[..., 0] * width - 0.5).astype(int)
        top = np.floor(safe[..., 1] * height - 0.5).astype(int)
        corners = [
            self.depth[frame, np.clip(top + i, 0, height - 1), np.clip(left + j, 0, width - 1)]
            for i in (0, 1)
            for j in (0, 1)
        ]
        return np.max(corners, axis=0).astype(np.float64)

    def save(self, path: Path | str) -> None:
        """Write a compressed npz file."""
        fields = {name: getattr(self, name) for name in _ARRAYS}
        camera = {
            "camera_position": self.camera.position,
            "camera_rotation": self.camera.rotation,
            "camera_fovy": np.float64(self.camera.fovy),
        }
        np.savez_compressed(path, **fields, **camera)


_ARRAYS = ("body_id", "local_xyz", "xpos", "xmat", "depth")


def load(path: Path | str) -> Truth:
    """Read a clip's `000.cam0.truth.npz`. Raises OSError or KeyError if it is none."""
    with np.load(path) as data:
        camera = CameraPose(
            data["camera_position"], data["camera_rotation"], float(data["camera_fovy"])
        )
        return Truth(**{name: data[name] for name in _ARRAYS}, camera=camera)
