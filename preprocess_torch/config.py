"""What a run of preprocess_torch can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

MAX_POINTS = 256


@dataclass(frozen=True)
class PreprocessConfig:
    """Videos → keypoint records."""

    data: Path
    """folder of videos, or of folders of videos (each then becomes a data set)."""
    out: Path | None = None
    """data set to write; default data/<name of the folder>."""
    segmenter: str = "masks"
    """where the entities are in the first frame: masks, color, motion, evf_sam."""
    tracker: str = "lucas_kanade"
    """what follows the points: lucas_kanade, cotracker3, truth (simulator's own)."""
    points: int = 64
    """candidate points an entity and view, at most 256; all of them are kept in the record."""
    entities: str = ""
    """motion: names of the moving regions, comma separated, in order of their start."""
    color: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """color: `object=green` or `object=80-160,30-100,20-100` (HSV: degrees, %, %)."""
    strict: bool = False
    """exit with an error if any video fails, not only if all do."""
    redo: bool = False
    """track again although `out` was made with other settings."""
