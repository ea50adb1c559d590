"""`masks`: a label image beside each clip, as an annotation tool writes it.

`000.cam0.masks.png` is a palette or grey PNG of the first frame of `000.cam0.mp4`, 0 = background;
`masks.json` in the folder names the indices: `{"1": "gripper", "2": "object"}`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, UnidentifiedImageError

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import ClipError, UsageError, no_bombs


class MaskSegmenter:
    """Reads masks; see the module's docstring for the files."""

    def __init__(self, names: dict[int, str]):
        self._names = dict(sorted(names.items()))
        self.entities = tuple(self._names.values())
        self.required = self.entities

    def describe(self) -> dict[str, Any]:
        """See `Segmenter`."""
        return {"name": "masks", "labels": {str(k): v for k, v in self._names.items()}}

    def inputs(self, path: Path) -> tuple[Path, ...]:
        """The label image."""
        return (label_image(path),)

    def segment(
        self, frames: UInt8[np.ndarray, "T H W 3"], path: Path
    ) -> dict[str, Bool[np.ndarray, "H W"]]:
        """See `Segmenter`. Labels without a name are background."""
        file = label_image(path)
        try:
            if not file.is_file():
                raise FileNotFoundError(file)
            with no_bombs(file.name), Image.open(file) as image:
                if image.mode not in ("P", "L", "1"):
                    raise ClipError(
                        f"{file.name} is a {image.mode} picture, not a palette or grey label image"
                    )
                labels = np.asarray(image).astype(np.uint8)
        except FileNotFoundError as error:
            raise ClipError(f"has no mask: {file.name} is missing") from error
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise ClipError(f"{file.name} is not a readable PNG") from error
        if labels.shape != frames.shape[1:3]:
            have, want = labels.shape[::-1], frames.shape[2:0:-1]
            raise ClipError(f"{file.name} is {have[0]}×{have[1]}, the video {want[0]}×{want[1]}")
        masks = {name: labels == index for index, name in self._names.items()}
        return {name: mask for name, mask in masks.items() if mask.any()}


def label_image(path: Path) -> Path:
    """`000.cam0.mp4` → `000.cam0.masks.png`."""
    return path.with_name(f"{path.stem}.masks.png")


def build(config: PreprocessConfig, folder: Path) -> MaskSegmenter:
    """Read the names. Raises `UsageError` when masks.json is missing or odd."""
    file = folder / "masks.json"
    example = '{"1": "gripper", "2": "object"}'
    if not file.is_file():
        raise UsageError(
            f"{file} is missing: it names the indices of the label images, for instance {example}; "
            "without label images use --segmenter color or motion"
        )
    try:
        names = {int(k): v for k, v in json.loads(file.read_text()).items()}
        values = list(names.values())
        if not names or not all(isinstance(v, str) and v for v in values):
            raise ValueError("no names")
        if len(set(values)) < len(values) or not all(0 < k < 256 for k in names):
            raise ValueError("each name once, indices 1 to 255")
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{file} is not of the form {example} ({error})") from error
    return MaskSegmenter(names)
