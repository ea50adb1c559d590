"""The two ways a run can go wrong that are the user's to mend; each carries one clear sentence."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image


class UsageError(ValueError):
    """The command asks for something that cannot be done: the run ends with exit code 2."""


class ClipError(ValueError):
    """One video cannot be used: it is reported by name and the run goes on."""


class NotFoundError(ClipError):
    """An entity was found in no view; what was found is shown in the preview."""

    def __init__(
        self, message: str, frames: Sequence[np.ndarray], masks: Sequence[dict[str, np.ndarray]]
    ):
        super().__init__(message)
        self.frames, self.masks = frames, masks  # first frames (H, W, 3) and masks, one a view


@contextmanager
def no_bombs(name: str) -> Iterator[None]:
    """Opening a picture within raises `ClipError` where it declares more pixels than PIL allows."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            yield
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ClipError(f"has a picture of too many pixels: {name} ({error})") from error


def printable(text: str) -> str:
    """One line that a terminal shows as it is, whatever a file's name holds: `new\\x0aline`."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )
