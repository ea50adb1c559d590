"""The two ways a run can go wrong that are the user's to mend; each carries one clear sentence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
