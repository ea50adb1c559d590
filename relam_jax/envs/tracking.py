"""What follows keypoints in a policy's cameras, and what finds entities in their images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import ClipError
from preprocess_torch.segmenters import build_segmenter
from preprocess_torch.segmenters.base import Segmenter
from preprocess_torch.trackers import build_tracker
from preprocess_torch.trackers.base import OnlineTracker
from preprocess_torch.trackers.lucas_kanade import LucasKanadeConfig, OnlineLucasKanade

LUCAS_KANADE = LucasKanadeConfig(window=9, levels=2, enough=4, carry=25.0)
"""An agent moves faster, and is seen less often, than who demonstrates: settings that lose an
entity in 1 instead of 10 % of a half-trained policy's frames (docs/lab-notes.md)."""

Follow = Callable[
    [UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "Q 2"], Int[np.ndarray, " Q"]], OnlineTracker
]
Find = Callable[[UInt8[np.ndarray, "H W 3"]], UInt8[np.ndarray, "H W"]]


@dataclass(frozen=True)
class TrackingConfig:
    """Of `--keypoints tracked`; docs/perception.md says where code and weights have to be."""

    tracker: Literal["lucas_kanade", "cotracker3_online"] = "lucas_kanade"
    """cotracker3_online: for a GPU; it looks at up to 16 frames again in each agent step."""
    tracker_checkpoint: str = ""
    """cotracker3_online: as in preprocess_torch."""
    segmenter: Literal["labels", "evf_sam", "sam3"] = "labels"
    """What finds the entities in an episode's first images; labels: the simulator's own
    segmentation stands for it. The others take the task's prompts of preprocess_torch."""
    segmenter_checkpoint: str = ""
    """evf_sam, sam3: as in preprocess_torch."""
    reseed: bool = False
    """Take up lost points again by fresh masks whenever a subgoal is met."""


def make_follow(config: TrackingConfig) -> Follow:
    """What makes a tracker of a first frame, points in it and their entities. Raises
    `UsageError`, a ValueError, in one sentence where code or weights are missing."""
    if config.tracker == "lucas_kanade":
        return partial(OnlineLucasKanade, config=LUCAS_KANADE)
    from preprocess_torch.trackers.cotracker3 import CoTracker3, OnlineCoTracker

    tracker = build_tracker(
        PreprocessConfig(
            Path(), tracker=config.tracker, tracker_checkpoint=config.tracker_checkpoint
        )
    )
    assert isinstance(tracker, CoTracker3)
    return partial(OnlineCoTracker, tracker)


def make_find(config: TrackingConfig, task: str, entity_names: tuple[str, ...]) -> Find | None:
    """What makes label images of images; None: the simulator does. Raises as `make_follow`, and
    ValueError if an entity has no prompt."""
    if config.segmenter == "labels":
        return None
    settings = PreprocessConfig(
        Path(), segmenter=config.segmenter, segmenter_checkpoint=config.segmenter_checkpoint
    )
    return label_images_of(build_segmenter(settings, Path(task)), entity_names)


def label_images_of(segmenter: Segmenter, entity_names: tuple[str, ...]) -> Find:
    """The segmenter's masks as label images: 0 background, i the i-th entity, from 1 on. Threads
    may ask at once. ValueError if it does not look for one of the entities."""
    if unknown := sorted(set(entity_names) - set(segmenter.entities)):
        raise ValueError(f"no prompt is for {unknown[0]}: {', '.join(segmenter.entities)} have one")
    lock = Lock()

    def find(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W"]:
        labels = np.zeros(image.shape[:2], np.uint8)
        try:
            with lock:
                masks = segmenter.segment(image[None], Path("camera"))
        except ClipError:  # nothing was found
            return labels
        for number, name in enumerate(entity_names, start=1):
            if name in masks:
                labels[masks[name]] = number
        return labels

    return find
