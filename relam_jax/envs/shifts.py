"""What differs from training when a policy is tested for robustness: one factor at one level.

A `Shift` is given to `make_env`. What it does to cameras, images and keypoints stands here; what it
does to the scene itself (light, looks, physics, a box in front of it) in `shifted_scene.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from relam_jax.geometry import CameraPose

Where = Literal["camera", "scene", "looks", "image", "points"]


@dataclass(frozen=True)
class Factor:
    """One way in which a test may differ from training."""

    name: str
    group: str
    """factors that are asked for together."""
    where: Where
    """what it changes: the cameras' poses; what the scene is made of; only how it looks; the
    finished image; the keypoints."""
    levels: tuple[float, ...]
    unit: str
    """of a level: `{}` stands for its number."""
    words: str
    """what a level does, for tables."""
    neutral: float = 0.0
    """the level that changes nothing."""


_SIDES = (-10.0, -5.0, -2.0, 2.0, 5.0, 10.0)
_TIMES = (0.25, 0.5, 2.0, 4.0)

FACTORS = {
    factor.name: factor
    for factor in (
        Factor("camera_position", "camera", "camera", _SIDES, "{:+g} cm", "moved to their right"),
        Factor("camera_angle", "camera", "camera", _SIDES, "{:+g}°", "turned to their left"),
        Factor("light_intensity", "light", "looks", (0.25, 0.5, 2.0), "× {:g}", "all lights", 1.0),
        Factor("light_direction", "light", "looks", (45.0, 90.0, 180.0), "{:g}°",
               "lights turned round the vertical"),
        Factor("light_colour", "light", "looks", (-1.0, -0.5, 0.5, 1.0), "{:+g}",
               "share of blue (+) or red (−) that is missing"),
        Factor("object_colour", "colour", "looks", (0.5, 1.0), "{:g}", "share of purple"),
        Factor("table_colour", "colour", "looks", (0.5, 1.0), "{:g}", "share of purple"),
        Factor("object_texture", "texture", "looks", (0.3, 0.6), "{:g}", "contrast of a chequer"),
        Factor("table_texture", "texture", "looks", (0.3, 0.6), "{:g}", "contrast of a chequer"),
        Factor("friction", "physics", "scene", _TIMES, "× {:g}",
               "of all contacts and of the object's joints", 1.0),
        Factor("mass", "physics", "scene", _TIMES, "× {:g}", "of the object", 1.0),
        Factor("size", "physics", "scene", (0.8, 0.9, 1.1, 1.2), "× {:g}",
               "of the object and what it is part of", 1.0),
        Factor("keypoint_noise", "noise", "points", (0.002, 0.005, 0.01), "{:g}",
               "standard deviation, image sides"),
        Factor("image_noise", "noise", "image", (5.0, 10.0, 20.0), "{:g}",
               "standard deviation, grey levels of 255"),
        Factor("blur", "blur", "image", (1.0, 2.0, 4.0), "{:g} px", "sigma of a Gaussian"),
        Factor("occluder", "occluder", "scene", (0.05, 0.1, 0.2), "{:g}",
               "width of a bar across each image's middle, image sides"),
    )
}  # fmt: skip
"""By name."""

_WHY_NOT = {
    "looks": "projected keypoints are geometry: how the scene looks does not reach them",
    "image": "projected keypoints are geometry: no image is looked at",
    "points": "tracked keypoints get the noise of their images (image_noise)",
}


@dataclass(frozen=True)
class Shift:
    """One factor at one level; the default changes nothing."""

    factor: str = "none"
    """a name in `FACTORS`, or `none`."""
    level: float = 0.0
    """in the factor's unit."""

    @property
    def neutral(self) -> bool:
        """Whether it changes nothing."""
        return self.factor == "none" or self.level == FACTORS[self.factor].neutral

    @property
    def label(self) -> str:
        """The level with its unit: `+5 cm`, `× 0.5`."""
        if self.factor == "none":
            return "none"
        return FACTORS[self.factor].unit.format(self.level).replace("-", "−")

    def _is(self, where: Where) -> bool:
        return not self.neutral and FACTORS[self.factor].where == where

    @property
    def of_scene(self) -> bool:
        """Whether the simulator's model is another one."""
        return self._is("scene") or self._is("looks")

    def camera(self, pose: CameraPose) -> CameraPose:
        """The pose of a camera: moved along its own x axis, or turned about its own y axis."""
        if not self._is("camera"):
            return pose
        if self.factor == "camera_position":
            return replace(pose, position=pose.position + 0.01 * self.level * pose.rotation[:, 0])
        cos, sin = np.cos(np.radians(self.level)), np.sin(np.radians(self.level))
        turn = np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])
        return replace(pose, rotation=pose.rotation @ turn)

    def image(
        self, image: UInt8[np.ndarray, "H W 3"], moment: tuple[int, ...]
    ) -> UInt8[np.ndarray, "H W 3"]:
        """An image as the sensor gives it; the same at the same `moment` (any numbers)."""
        if not self._is("image"):
            return image
        if self.factor == "blur":
            return cv2.GaussianBlur(image, (0, 0), self.level)
        noise = np.random.default_rng(moment).normal(scale=self.level, size=image.shape)
        return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)

    def keypoints(
        self, points: Float[np.ndarray, "V E K 2"], moment: tuple[int, ...]
    ) -> Float[np.ndarray, "V E K 2"]:
        """One environment's keypoints; the same at the same `moment` (any numbers)."""
        if not self._is("points"):
            return points
        noise = np.random.default_rng(moment).normal(scale=self.level, size=points.shape)
        return points + noise.astype(points.dtype)


NO_SHIFT = Shift()


def why_not(factor: str, keypoints: str, simulator: str) -> str:
    """Why a factor does not apply to a source of keypoints, or empty if it does."""
    where = FACTORS[factor].where
    if where in (("points",) if keypoints == "tracked" else ("looks", "image")):
        return _WHY_NOT[where]
    if simulator != "metaworld" and where in ("scene", "looks"):
        return "only Meta-World's scenes can be changed"
    return ""


def choose_factors(names: tuple[str, ...]) -> tuple[str, ...]:
    """Factors by their own names or those of their groups, in order; all if there are no names.

    Raises ValueError, in one sentence, if there is no such factor.
    """
    groups = dict.fromkeys(f.group for f in FACTORS.values())
    for name in names:
        if name not in FACTORS and name not in groups:
            raise ValueError(
                f"unknown factor {name!r}: choose among {', '.join(groups)}, "
                f"or singly among {', '.join(FACTORS)}"
            )
    return tuple(f.name for f in FACTORS.values() if not names or {f.name, f.group} & {*names})
