"""`color`: an entity is where the first frame has a colour, by name or by a range in HSV.

    --segmenter color --color object=green --color gripper=350-10,60-100,20-100

A range is hue (degrees, may wrap), saturation and value (%). Pieces much smaller than the largest
are noise.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import UsageError

Range = tuple[float | int, float | int]
"""low and high; for a hue low may exceed high."""
Colour = tuple[Range, Range, Range]
"""hue (degrees), saturation (%), value (%)."""

_HUES: dict[str, Range] = {
    "red": (345, 15),
    "orange": (15, 42),
    "yellow": (42, 70),
    "green": (70, 165),
    "cyan": (165, 195),
    "blue": (195, 260),
    "purple": (260, 300),
    "pink": (300, 345),
}
NAMED: dict[str, Colour] = {
    **{name: (hue, (35.0, 100.0), (20.0, 100.0)) for name, hue in _HUES.items()},
    "white": ((0, 360), (0, 15), (85, 100)),
    "grey": ((0, 360), (0, 15), (25, 85)),
    "black": ((0, 360), (0, 100), (0, 20)),
}
PIECE = 0.2
"""connected pieces smaller than this part of the largest are dropped."""


class ColorSegmenter:
    """See the module's docstring."""

    def __init__(self, colours: dict[str, Colour]):
        self._colours = colours
        self.entities = tuple(colours)
        self.required = self.entities

    def describe(self) -> dict[str, Any]:
        """See `Segmenter`."""
        colours = {name: [list(part) for part in colour] for name, colour in self._colours.items()}
        return {"name": "color", "version": 1, "colours": colours, "piece": PIECE}

    def inputs(self, path: Path) -> tuple[Path, ...]:
        """Nothing but the video."""
        return ()

    def segment(
        self, frames: UInt8[np.ndarray, "T H W 3"], path: Path
    ) -> dict[str, Bool[np.ndarray, "H W"]]:
        """See `Segmenter`. A pixel that fits several colours belongs to the first."""
        hsv = cv2.cvtColor(frames[0].astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
        taken = np.zeros(hsv.shape[:2], bool)
        masks = {}
        for name, colour in self._colours.items():
            mask = large_pieces(colour_mask(hsv, colour) & ~taken, PIECE)
            taken |= mask
            if mask.any():
                masks[name] = mask
        return masks


def colour_mask(
    hsv: np.ndarray,  # (H, W, 3) float32: degrees, 0–1, 0–1
    colour: Colour,
) -> Bool[np.ndarray, "H W"]:
    """Pixels inside a range."""
    (low, high), saturation, value = colour
    hue = hsv[..., 0]
    inside = (hue >= low) & (hue <= high) if low <= high else (hue >= low) | (hue <= high)
    for channel, (least, most) in ((1, saturation), (2, value)):
        percent = 100 * hsv[..., channel]
        inside &= (percent >= least - 1e-3) & (percent <= most + 1e-3)
    return inside


def large_pieces(mask: Bool[np.ndarray, "H W"], part: float) -> Bool[np.ndarray, "H W"]:
    """The mask without specks and without pieces smaller than `part` of its largest."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    opened = opened if opened.any() else mask.astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=8)
    if count < 2:
        return mask
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    return np.isin(labels, np.flatnonzero(area >= max(1, part * area.max())))


def parse_colour(text: str) -> tuple[str, Colour]:
    """`object=green` or `object=80-160,30-100,20-100`. Raises `UsageError`."""
    name, _, value = text.partition("=")
    problem = UsageError(
        f"--color {text!r} is not of the form object=green or object=80-160,30-100,20-100 "
        f"(hue in degrees, saturation and value in %); colours: {', '.join(NAMED)}"
    )
    if not name or not value:
        raise problem
    if value.lower() in NAMED:
        return name, NAMED[value.lower()]
    try:
        hue, saturation, brightness = (_range(part) for part in value.split(","))
    except ValueError:
        raise problem from None
    for (low, high), most in ((hue, 360), (saturation, 100), (brightness, 100)):
        if not (0 <= low <= most and 0 <= high <= most):
            raise problem
    return name, (hue, saturation, brightness)


def _range(text: str) -> Range:
    low, high = text.split("-")
    return float(low), float(high)


def build(config: PreprocessConfig, folder: Path) -> ColorSegmenter:
    """Colours from the command line. Raises `UsageError` when there are none."""
    if not config.color:
        raise UsageError("--segmenter color needs at least one --color, for instance object=green")
    colours = [parse_colour(text) for text in config.color]
    if len(dict(colours)) < len(colours):
        raise UsageError("--color names an entity twice")
    return ColorSegmenter(dict(colours))
