"""Trackers by name; a back end is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import UsageError
from preprocess_torch.trackers.base import Tracker

TRACKERS = {name: f"preprocess_torch.trackers.{name}" for name in ("lucas_kanade", "truth")}
"""Each module offers `build(config) -> Tracker`."""

NOT_YET = {
    "cotracker3": "cotracker3 is not built in yet: it will need `make setup EXTRAS=torch` and "
    "`pip install git+https://github.com/facebookresearch/co-tracker` (code and weights "
    "CC-BY-NC-4.0); "
    "use --tracker lucas_kanade until then"
}


def build_tracker(config: PreprocessConfig) -> Tracker:
    """The tracker `config` names. Raises `UsageError`."""
    if config.tracker in NOT_YET:
        raise UsageError(NOT_YET[config.tracker])
    if config.tracker not in TRACKERS:
        known = ", ".join([*TRACKERS, *NOT_YET])
        raise UsageError(f"there is no tracker {config.tracker!r}; there are {known}")
    return import_module(TRACKERS[config.tracker]).build(config)
