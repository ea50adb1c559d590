"""What `evf_sam` and `sam3` share: prompts, and cleaning up what a network says they mean.

Prompts come from `--prompt gripper="robot gripper" --prompt object="green drawer"`, else from
`prompts.json` in the folder of the videos, else from `PRESETS` by the folder's name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.crop import find_box, parse_crop
from preprocess_torch.errors import UsageError
from preprocess_torch.segmenters.color import PIECE, large_pieces

PRESETS = {
    "drawer_open": {"gripper": "robot gripper", "object": "green drawer"},
    "door_open": {"gripper": "robot gripper", "object": "door of the safe"},
    "button_press": {"gripper": "robot gripper", "object": "red button"},
    "window_open": {"gripper": "robot gripper", "object": "sliding window"},
}
"""task (name of the folder) → entity → prompt; never tried with trained weights."""

GRIPPER = "gripper"
HOLE = 0.1
"""holes smaller than this part of the mask are filled."""
LEAST = 2e-4
"""a mask of a smaller part of the image is nothing."""

Finder = Callable[[UInt8[np.ndarray, "H W 3"], str], tuple[Bool[np.ndarray, "H W"], float]]
"""(image, prompt) → the best mask, and its score in [0, 1]."""


class TextSegmenter:
    """Asks `finder` for each prompt in the first frame."""

    def __init__(
        self,
        name: str,
        prompts: dict[str, str],
        finder: Finder,
        settings: dict[str, Any],
        min_score: float,
        crop: str,
    ):
        self.entities = self.required = tuple(prompts)
        self._name, self._prompts, self._finder = name, prompts, finder
        self._settings, self._min_score, self._crop = settings, min_score, crop

    def describe(self) -> dict[str, Any]:
        """See `Segmenter`."""
        own = {"name": self._name, "version": 1, "prompts": self._prompts, "crop": self._crop}
        return own | {"min_score": self._min_score} | self._settings

    def inputs(self, path: Path) -> tuple[Path, ...]:
        """Nothing but the video."""
        return ()

    def segment(
        self, frames: UInt8[np.ndarray, "T H W 3"], path: Path
    ) -> dict[str, Bool[np.ndarray, "H W"]]:
        """See `Segmenter`. A pixel that fits several prompts belongs to the first."""
        # what moves does not say what a prompt means: only a box given by hand is cut out
        crop = "none" if self._crop == "auto" else self._crop
        box = find_box(crop, frames[:1], np.zeros((0, 2), np.float32))
        image = np.ascontiguousarray(box.cut(frames[:1])[0])
        taken = np.zeros(frames.shape[1:3], bool)
        masks = {}
        for name, prompt in self._prompts.items():
            found, score = self._finder(image, prompt)
            if score < self._min_score:
                continue
            mask = np.zeros_like(taken)
            mask[box.top : box.bottom, box.left : box.right] = clean(found)
            mask &= ~taken
            if mask.mean() >= LEAST:
                masks[name] = mask
                taken |= mask
        return masks


def clean(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """Without specks and small pieces, small holes filled."""
    if not mask.any():
        return mask
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        np.pad(~mask, 1, constant_values=True).astype(np.uint8), connectivity=4
    )
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < HOLE * mask.sum())
    holes = np.isin(labels, np.setdiff1d(small, [0, labels[0, 0]]))  # 0: the mask itself
    return large_pieces(mask | holes[1:-1, 1:-1], PIECE)


def find_prompts(config: PreprocessConfig, folder: Path) -> dict[str, str]:
    """entity → prompt, see the module's docstring. Raises `UsageError`."""
    example = f'--prompt {GRIPPER}="robot gripper" --prompt object="green drawer"'
    file, task = folder / "prompts.json", folder.resolve().name
    if config.prompt:
        pairs = [parse_prompt(text) for text in config.prompt]
        prompts = dict(pairs)
        if len(prompts) < len(pairs):
            raise UsageError("--prompt names an entity twice")
    elif file.exists():
        try:
            prompts = json.loads(file.read_text())
            if not all(isinstance(v, str) and v.strip() for v in prompts.values()):
                raise ValueError("a prompt is not a text")
        except (ValueError, AttributeError) as error:
            raise UsageError(
                f'{file} is not of the form {{"{GRIPPER}": "robot gripper"}} ({error})'
            ) from error
    elif task in PRESETS:
        prompts = PRESETS[task]
    else:
        raise UsageError(
            f"there are no prompts for {task}: give {example}, or write {file} with them"
        )
    if GRIPPER not in prompts:
        raise UsageError(f"no prompt is for the {GRIPPER}, which the reward needs: {example}")
    return prompts


def parse_prompt(text: str) -> tuple[str, str]:
    """`object=green drawer` → (object, green drawer); without a name the prompt is the name, but
    one that ends in the word gripper is the gripper's. Raises `UsageError`."""
    name, equals, prompt = (part.strip() for part in text.partition("="))
    if not equals:
        prompt, name = name, name.removeprefix("[semantic]").strip()
        name = GRIPPER if name.lower().split()[-1:] == [GRIPPER] else name
    if not name or not prompt:
        raise UsageError(f'--prompt {text!r} is not of the form object="green drawer"')
    return name, prompt


def check(config: PreprocessConfig) -> None:
    """Raises `UsageError` for settings that no network has to be loaded for to see."""
    if not 0 <= config.min_score <= 1:
        raise UsageError(f"--min_score {config.min_score}: between 0 and 1, please")
    if config.crop not in ("auto", "none"):
        parse_crop(config.crop)
