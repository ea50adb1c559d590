"""Drawings on a demonstration's first frame: small SVGs that share one copy of each image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from markupsafe import Markup, escape

from relam_jax.keypoints.schema import KeypointRecord
from relam_jax.keypoints.selection import EpisodeTracks, group_by_entity
from relam_jax.report.palette import entity_hex
from relam_jax.report.svg import data_uri

UNITS = 256
"""The drawing's own units an image height."""
MARGIN, LEAST = 0.08, 0.4
"""Pictures are cut to where something happens: space around it, and least side, image sides."""


class Crop(NamedTuple):
    """A square part of an image, in the drawing's units."""

    left: float
    top: float
    side: float


def frame_symbols(record: KeypointRecord) -> Markup:
    """The first frames as SVG symbols `frame0` …, one a view, for the drawings to use."""
    height, width = record.image_size
    wide = UNITS * width / height
    images = [
        f'<symbol id="frame{v}" viewBox="0 0 {wide:.0f} {UNITS}"><image width="{wide:.0f}" '
        f'height="{UNITS}" href="{data_uri("image/jpeg", image)}"/></symbol>'
        for v, image in enumerate(record.first_frames)
    ]
    return Markup(f'<svg width="0" height="0" class="hidden">{"".join(images)}</svg>')


def interesting(record: KeypointRecord, tracks: EpisodeTracks, view: int) -> Crop:
    """The square around all that the keypoints pass in a view, inside the image where it fits."""
    height, width = record.image_size
    size = np.array([UNITS * width / height, UNITS])
    points = tracks.points[:, view][tracks.visibility[:, view]] * size
    if not len(points):
        return Crop(0, 0, float(size.min()))
    low, high = points.min(0), points.max(0)
    side = max(LEAST * UNITS, float((high - low).max()) + 2 * MARGIN * UNITS)
    side = min(side, float(size.min()))
    left, top = np.clip((low + high - side) / 2, 0, size - side).tolist()
    return Crop(left, top, side)


class Drawing:
    """An SVG over the first frame of a view; points in image sides, lengths in crops / 256."""

    def __init__(self, record: KeypointRecord, view: int, crop: Crop, label: str) -> None:
        height, width = record.image_size
        self.size = np.array([UNITS * width / height, UNITS])
        self.view, self.crop, self.label = view, crop, label
        self.scale = crop.side / UNITS
        self.parts: list[str] = []

    def _xy(self, point: np.ndarray) -> tuple[str, str]:
        x, y = np.clip(point, -1, 2) * self.size
        return f"{x:.1f}", f"{y:.1f}"

    def dot(self, point: np.ndarray, radius: float, colour: str, rim: bool = False) -> None:
        """A filled point."""
        x, y = self._xy(point)
        edge = f' stroke="#000" stroke-width="{0.9 * self.scale:.2f}"' if rim else ""
        r = radius * self.scale
        self.parts.append(f'<circle cx="{x}" cy="{y}" r="{r:.2f}" fill="{colour}"{edge}/>')

    def ring(self, point: np.ndarray, radius: float, colour: str) -> None:
        """A hollow point with a dark rim, to be seen on any background."""
        x, y = self._xy(point)
        for stroke, width in (("#000", 2.6), (colour, 1.5)):
            self.parts.append(
                f'<circle cx="{x}" cy="{y}" r="{radius * self.scale:.2f}" fill="none" '
                f'stroke="{stroke}" stroke-width="{width * self.scale:.2f}"/>'
            )

    def path(self, points: Iterable[np.ndarray], colour: str, width: float = 1.0) -> None:
        """A line through points."""
        joined = " ".join(",".join(self._xy(p)) for p in points)
        self.parts.append(
            f'<polyline points="{joined}" fill="none" stroke="{colour}" '
            f'stroke-width="{width * self.scale:.2f}" stroke-linejoin="round"/>'
        )

    def element(self) -> Markup:
        """The picture."""
        left, top, side = self.crop
        return Markup(
            f'<svg class="frame" viewBox="{left:.1f} {top:.1f} {side:.1f} {side:.1f}" role="img" '
            f'aria-label="{escape(self.label)}"><use href="#frame{self.view}" '
            f'width="{self.size[0]:.0f}" height="{UNITS}"/>{"".join(self.parts)}</svg>'
        )


def selection_picture(record: KeypointRecord, chosen: EpisodeTracks, view: int) -> Markup:
    """All candidates small and white, the chosen ones in their entity's colour, with tracks."""
    label = f"candidates, chosen keypoints and their tracks in {record.view_names[view]}"
    drawing = Drawing(record, view, interesting(record, chosen, view), label)
    everything = group_by_entity(record)
    seen = chosen.visibility[:, view]
    for e, k in np.argwhere(seen[0]):
        track = chosen.points[seen[:, e, k], view, e, k]
        drawing.path(track[:: max(1, len(track) // 48)], entity_hex(int(e)), 0.8)
    for e, c in np.argwhere(everything.visibility[0, view]):
        drawing.dot(everything.points[0, view, e, c], 1.4, "#fff", rim=True)
    for e, k in np.argwhere(seen[0]):
        drawing.dot(chosen.points[0, view, e, k], 3.6, entity_hex(int(e)), rim=True)
    return drawing.element()


def subgoal_picture(
    record: KeypointRecord,
    view: int,
    crop: Crop,
    stage: int,
    start: Float[np.ndarray, "V E C 2"],
    true: Float[np.ndarray, "V E C 2"],
    anticipated: Float[np.ndarray, "V E C 2"],
    seen: Bool[np.ndarray, "V E C"],
) -> Markup:
    """True keypoints of a keyframe filled, anticipated ones hollow; white: the way there."""
    label = f"subgoal {stage + 1} in {record.view_names[view]}, anticipated and true"
    drawing = Drawing(record, view, crop, label)
    shown = np.argwhere(seen[view])
    for e, c in shown:
        drawing.path([start[view, e, c], true[view, e, c]], "#fffb", 1.0)
    for e, c in shown:
        drawing.dot(true[view, e, c], 3.4, entity_hex(int(e)), rim=True)
    for e, c in shown:
        drawing.path([true[view, e, c], anticipated[view, e, c]], entity_hex(int(e)), 1.2)
        drawing.ring(anticipated[view, e, c], 6.5, entity_hex(int(e)))
    return drawing.element()
