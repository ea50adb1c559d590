"""What a run of preprocess_torch can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

MAX_POINTS = 256
NETWORKS = {"evf_sam", "sam3", "cotracker3", "cotracker3_online"}
"""segmenters and trackers that a GPU helps."""


@dataclass(frozen=True)
class PreprocessConfig:
    """Videos → keypoint records."""

    data: Path
    """folder of videos, of folders of frames, a LeRobot or RLDS data set; or a folder of such
    folders (each then becomes a data set)."""
    out: Path | None = None
    """data set to write; default data/<name of the folder>."""
    segmenter: str = "masks"
    """where the entities are in the first frame: masks, color, motion, evf_sam, sam3."""
    tracker: str = "lucas_kanade"
    """what follows the points: lucas_kanade, two_flows (slower, for plain surfaces), cotracker3,
    cotracker3_online, truth (the simulator's own)."""
    cameras: str = ""
    """views to take, comma separated, in this order; default all."""
    fps: float = 0.0
    """resample to so many frames a second; 0 takes all. Of pictures without times: their rate."""
    trim: str = ""
    """START:END in seconds of each clip, either may be missing, a negative end counts from the
    clip's end. Masks are of the first frame that is left."""
    points: int = 64
    """candidate points an entity and view, at most 256; all of them are kept in the record."""
    entities: str = ""
    """motion: names of the moving regions, comma separated, in order of their start."""
    color: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """color: `object=green` or `object=80-160,30-100,20-100` (HSV: degrees, %, %)."""
    prompt: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """evf_sam, sam3: `gripper="robot gripper"`, one an entity; default prompts.json beside the
    videos, else a preset of the task."""
    min_score: float = 0.5
    """evf_sam, sam3: masks with a lower score are not taken."""
    crop: str = "auto"
    """part of the picture that a network sees: none, left,top,right,bottom in image sides, or auto:
    for cotracker3 where points are and things move, for evf_sam and sam3 all of it."""
    evf_sam_repo: Path | None = None
    """evf_sam: checkout of hustvl/EVF-SAM; default $RELAM_EVFSAM."""
    segmenter_checkpoint: str = ""
    """evf_sam, sam3: folder or hub name; default YxZhang/evf-sam2-multitask, facebook/sam3."""
    precision: str = "auto"
    """evf_sam, sam3: fp32, fp16 (a GPU's default), bf16."""
    cotracker_repo: Path | None = None
    """cotracker3: checkout of facebookresearch/co-tracker; default $RELAM_COTRACKER, else what is
    installed."""
    tracker_checkpoint: str = ""
    """cotracker3: path or URL of the weights, `#sha256=…` at its end is checked; default upstream's
    scaled_offline.pth or scaled_online.pth, downloaded once."""
    device: str = "auto"
    """of the neural networks: auto (a GPU if there is one), cpu, cuda."""
    workers: int = 1
    """processes that track, each with its own models; the records are the same."""
    ray: str = ""
    """the workers run on this Ray cluster: HOST:PORT, auto, or local (this machine, all its
    GPUs)."""
    worker_gpus: float = 1.0
    """ray: GPUs that a worker with networks takes of a cluster that has some; 0.25: four share
    one."""
    clip_timeout: float = 0.0
    """seconds after which a clip is given up, also when its decoder hangs; 0: never."""
    strict: bool = False
    """exit with an error if any video fails, not only if all do."""
    redo: bool = False
    """track again although `out` was made with other settings."""
