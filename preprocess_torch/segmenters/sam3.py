"""`sam3`: SAM 3 from `transformers`, a maintained text-prompted segmenter.

It takes short noun phrases ("robot gripper") and ignores where a thing is said to be. Of all it
finds the instance with the best score is taken. Its weights are gated: Meta's licence has to be
accepted on the hub once.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from preprocess_torch.config import PreprocessConfig
from preprocess_torch.errors import UsageError
from preprocess_torch.models import (
    hub_folder,
    import_torch,
    pick_device,
    pick_dtype,
    sha256_of_all,
)
from preprocess_torch.segmenters.prompts import TextSegmenter, check, find_prompts

CHECKPOINT = "facebook/sam3"


class Sam3:
    """A `Finder`."""

    def __init__(self, model: Any, processor: Any, dtype: Any, weights: dict[str, str]):
        self.model, self.processor, self.dtype, self.weights = model, processor, dtype, weights

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], prompt: str
    ) -> tuple[Bool[np.ndarray, "H W"], float]:
        """Mask and score of the best instance of `prompt` in `image`."""
        torch = import_torch()
        inputs = self.processor(images=image, text=prompt, return_tensors="pt").to(
            self.model.device, self.dtype
        )
        with torch.inference_mode():
            outputs = self.model(**inputs)
        found = self.processor.post_process_instance_segmentation(
            outputs, threshold=0.0, mask_threshold=0.5, target_sizes=[image.shape[:2]]
        )[0]
        if not len(found["scores"]):
            return np.zeros(image.shape[:2], bool), 0.0
        best = int(found["scores"].argmax())
        return found["masks"][best].cpu().numpy() > 0, float(found["scores"][best])


def build(config: PreprocessConfig, folder: Path) -> TextSegmenter:
    """Find the prompts, check and load the weights."""
    check(config)
    prompts = find_prompts(config, folder)
    checkpoint = config.segmenter_checkpoint or CHECKPOINT
    finder = _load(checkpoint, config.device, config.precision)
    settings = {"model": finder.weights, "precision": str(finder.dtype).removeprefix("torch.")}
    return TextSegmenter("sam3", prompts, finder, settings, config.min_score, config.crop)


@lru_cache(maxsize=1)
def _load(checkpoint: str, device_name: str, precision: str) -> Sam3:
    """One model a process, however many data sets it goes through."""
    device = pick_device(device_name)
    dtype = pick_dtype(precision, device)
    try:
        transformers: Any = import_module("transformers")
        classes = transformers.Sam3Model, transformers.Sam3Processor
    except (ImportError, AttributeError) as error:
        raise UsageError(
            "--segmenter sam3 needs transformers 5 and torchvision: docs/perception.md has the "
            "commands"
        ) from error
    folder = hub_folder(checkpoint, "3.4 GB; accept the licence on its page first")
    try:
        model, info = classes[0].from_pretrained(folder, dtype=dtype, output_loading_info=True)
        processor = classes[1].from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"{folder} is no checkpoint of SAM 3 ({first})") from error
    # a name that this version of transformers does not know would silently stay random
    wrong = [*info["missing_keys"], *info["mismatched_keys"]]
    if wrong:
        raise UsageError(
            f"{folder} lacks {len(wrong)} weights that this version of transformers needs "
            f"({wrong[0]}): install the one that docs/perception.md names"
        )
    weights = {"checkpoint": folder.name, "sha256": sha256_of_all(folder.glob("*.safetensors"))}
    return Sam3(model.to(device).eval(), processor, dtype, weights)
