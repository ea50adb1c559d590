"""Segmenters by name; a back end is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import UsageError
from preprocess_torch.segmenters.base import Segmenter

SEGMENTERS = {name: f"preprocess_torch.segmenters.{name}" for name in ("masks", "color", "motion")}
"""Each module offers `build(config, folder) -> Segmenter`."""

NOT_YET = {
    "evf_sam": "evf_sam is not built in yet: it will need `make setup EXTRAS=torch`, a checkout of "
    "https://github.com/hustvl/EVF-SAM and the checkpoint YxZhang/evf-sam2; "
    "use --segmenter masks, color or motion until then"
}


def build_segmenter(config: PreprocessConfig, folder: Path) -> Segmenter:
    """The segmenter `config` names, for the videos in `folder`. Raises `UsageError`."""
    if config.segmenter in NOT_YET:
        raise UsageError(NOT_YET[config.segmenter])
    if config.segmenter not in SEGMENTERS:
        known = ", ".join([*SEGMENTERS, *NOT_YET])
        raise UsageError(f"there is no segmenter {config.segmenter!r}; there are {known}")
    return import_module(SEGMENTERS[config.segmenter]).build(config, folder)
