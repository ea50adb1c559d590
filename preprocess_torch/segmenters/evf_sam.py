"""`evf_sam`: EVF-SAM, the method's own text-prompted segmenter, by upstream's code and weights.

One prompt means one object; where it is may be part of it ("the drawer on the left"). The
multitask checkpoints also take `[semantic] robot arm`: all that is of that kind, parts and
background too. The score is the mean probability of the mask's pixels, at least 0.5 by nature.

Upstream's scripts need CUDA; here the same steps run on a CPU too, in seconds to minutes.
"""

from __future__ import annotations

import json
import sys
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
    import_upstream,
    load_state,
    load_weights,
    pick_device,
    pick_dtype,
    sha256_of_all,
)
from preprocess_torch.segmenters.prompts import TextSegmenter, check, find_prompts

CHECKPOINT = "YxZhang/evf-sam2-multitask"
INSTALL = "clone https://github.com/hustvl/EVF-SAM"
KINDS = {
    "huge": ("model.evf_sam", "EvfSamModel"),
    "large": ("model.evf_sam2", "EvfSam2Model"),
    "tiny": ("model.evf_sam2", "EvfSam2Model"),
}
"""`sam_scale` in a checkpoint's config.json → upstream's module and class."""
SEMANTIC = "[semantic]"
SIDE, BEIT_SIDE = 1024, 224
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""ImageNet's, of 255."""


class EvfSam:
    """A `Finder`."""

    def __init__(self, model: Any, tokenizer: Any, dtype: Any, weights: dict[str, str]):
        self.model, self.tokenizer, self.dtype, self.weights = model, tokenizer, dtype, weights
        self.padded = model.config.sam_scale == "huge"

    def __call__(
        self, image: UInt8[np.ndarray, "H W 3"], prompt: str
    ) -> tuple[Bool[np.ndarray, "H W"], float]:
        """Mask and score of what `prompt` means in `image`."""
        logits = self.logits(image, prompt)
        mask = logits > 0
        return mask, float((1 / (1 + np.exp(-logits[mask]))).mean()) if mask.any() else 0.0

    def logits(self, image: np.ndarray, prompt: str) -> np.ndarray:
        """(H, W) float32."""
        torch = import_torch()
        device = next(self.model.parameters()).device
        sam, resized = sam_input(image, self.padded)
        ids = self.tokenizer(prompt, return_tensors="pt")["input_ids"].to(device)
        half = self.dtype != torch.float32
        with torch.inference_mode(), torch.autocast(device.type, self.dtype, enabled=half):
            logits = self.model.inference(
                sam[None].to(device, self.dtype),
                beit_input(image)[None].to(device, self.dtype),
                ids,
                resize_list=[resized],
                original_size_list=[image.shape[:2]],
            )
        return logits[0].float().cpu().numpy()


def sam_input(
    image: UInt8[np.ndarray, "H W 3"], padded: bool
) -> tuple[Any, tuple[int, int] | None]:
    """What the SAM branch sees, (3, 1024, 1024), and the size of the picture in it if padded.

    SAM 2 gets the picture squeezed into the square, the first SAM with its sides kept and padding
    at the right or below.
    """
    torch = import_torch()
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    if not padded:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()
        square = torch.nn.functional.interpolate(
            pixels, (SIDE, SIDE), mode="bilinear", align_corners=False
        )
        return (square[0] - mean) / std, None
    upstream = import_module("model.segment_anything.utils.transforms")
    kept = upstream.ResizeLongestSide(SIDE).apply_image(image)
    height, width = kept.shape[:2]
    pixels = (torch.from_numpy(np.array(kept)).permute(2, 0, 1) - mean) / std
    padding = (0, SIDE - width, 0, SIDE - height)
    return torch.nn.functional.pad(pixels, padding), (height, width)


def beit_input(image: UInt8[np.ndarray, "H W 3"]) -> Any:
    """What BEiT-3 sees, (3, 224, 224) in about [-1, 1]."""
    torch = import_torch()
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    small = torch.nn.functional.interpolate(
        pixels, (BEIT_SIDE, BEIT_SIDE), mode="bicubic", align_corners=False
    )
    return (small[0] - 0.5) / 0.5


def build(config: PreprocessConfig, folder: Path) -> TextSegmenter:
    """Find the prompts, import upstream's code, check and load the weights."""
    check(config)
    prompts = find_prompts(config, folder)
    checkpoint = config.segmenter_checkpoint or CHECKPOINT
    semantic = [prompt for prompt in prompts.values() if prompt.startswith(SEMANTIC)]
    if semantic and not Path(checkpoint).is_dir() and "multitask" not in checkpoint:
        raise UsageError(
            f"only the multitask checkpoints understand {semantic[0]!r}: "
            f"--segmenter_checkpoint {CHECKPOINT}"
        )
    finder = _load(config.evf_sam_repo, checkpoint, config.device, config.precision)
    settings = {"model": finder.weights, "precision": str(finder.dtype).removeprefix("torch.")}
    return TextSegmenter("evf_sam", prompts, finder, settings, config.min_score, config.crop)


@lru_cache(maxsize=1)
def _load(repo: Path | None, checkpoint: str, device_name: str, precision: str) -> EvfSam:
    """One model a process, however many data sets it goes through."""
    device = pick_device(device_name)
    dtype = pick_dtype(precision, device)
    # before the gigabytes: is the code there?
    import_upstream("model.configuration_evf", repo, "--evf_sam_repo", "RELAM_EVFSAM", INSTALL)
    folder = hub_folder(checkpoint, "3.2 GB")
    try:
        scale = json.loads((folder / "config.json").read_text())["sam_scale"]
        module, name = KINDS[scale]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder} is no checkpoint of EVF-SAM: its config.json names no sam_scale of "
            f"{', '.join(KINDS)} (the Effi variants were never released)"
        ) from error
    upstream = import_upstream(module, repo, "--evf_sam_repo", "RELAM_EVFSAM", INSTALL)
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise UsageError(f"{folder} holds no weights (*.safetensors or pytorch_model*.bin)")
    # not from_pretrained: upstream's class predates transformers 5, which refuses it
    model = getattr(upstream, name)(upstream.EvfConfig.from_pretrained(folder))
    state = {key: value for file in files for key, value in load_state(file).items()}
    unknown = sorted(state.keys() - model.state_dict().keys())
    if unknown:  # upstream's own loader leaves them out too; what is missing is an error
        print(f"{folder}: {len(unknown)} unknown weights ({unknown[0]}) left out", file=sys.stderr)
    load_weights(model, {k: v for k, v in state.items() if k not in unknown}, folder)
    model.to(device, dtype).eval()
    tokenizer = import_module("transformers").AutoTokenizer.from_pretrained(
        folder, padding_side="right", use_fast=False
    )
    weights = {"checkpoint": folder.name, "sha256": sha256_of_all(files)}
    return EvfSam(model, tokenizer, dtype, weights)
