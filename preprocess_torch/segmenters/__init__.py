"""Segmenters by name; a back end is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import UsageError
from preprocess_torch.segmenters.base import Segmenter

SEGMENTERS = ("masks", "color", "motion", "evf_sam", "sam3")
"""Each is a module here, which offers `build(config, folder) -> Segmenter`."""


def build_segmenter(config: PreprocessConfig, folder: Path) -> Segmenter:
    """The segmenter `config` names, for the videos in `folder`. Raises `UsageError`."""
    if config.segmenter not in SEGMENTERS:
        known = ", ".join(SEGMENTERS)
        raise UsageError(f"there is no segmenter {config.segmenter!r}; there are {known}")
    return import_module(f"{__name__}.{config.segmenter}").build(config, folder)
