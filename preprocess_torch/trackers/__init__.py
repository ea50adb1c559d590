"""Trackers by name; a back end is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import UsageError
from preprocess_torch.trackers.base import Tracker

TRACKERS = {
    "lucas_kanade": "lucas_kanade",
    "two_flows": "two_flows",
    "cotracker3": "cotracker3",
    "cotracker3_online": "cotracker3",
    "truth": "truth",
}
"""name → module here, which offers `build(config) -> Tracker`."""


def build_tracker(config: PreprocessConfig) -> Tracker:
    """The tracker `config` names. Raises `UsageError`."""
    if config.tracker not in TRACKERS:
        known = ", ".join(TRACKERS)
        raise UsageError(f"there is no tracker {config.tracker!r}; there are {known}")
    return import_module(f"{__name__}.{TRACKERS[config.tracker]}").build(config)
