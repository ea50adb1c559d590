"""Colours: bright ones for entities on camera images, CSS variables for everything else."""

from __future__ import annotations

ENTITY_RGB = ((255, 170, 0), (0, 200, 255), (255, 60, 160), (120, 230, 60), (170, 120, 255))
"""One an entity, repeated; those of the previews that preprocess_torch writes."""
NUM_SERIES = 8
"""Line colours in the template, light and dark: `--s0` … one a run, `--e0` … one an entity."""


def entity_rgb(entity: int) -> tuple[int, int, int]:
    """RGB on images."""
    return ENTITY_RGB[entity % len(ENTITY_RGB)]


def entity_hex(entity: int) -> str:
    """The same for SVG."""
    return "#{:02x}{:02x}{:02x}".format(*entity_rgb(entity))
